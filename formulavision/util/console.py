"""Lines on the terminal: results on standard output, progress and notes on standard error."""

from __future__ import annotations

from rich.console import Console

__all__ = ["STDERR", "STDOUT", "say"]

STDOUT = Console(highlight=False, emoji=False)
STDERR = Console(highlight=False, stderr=True, emoji=False)


def say(text: str, console: Console = STDOUT) -> None:
    """Print text as it is: ``[...]`` and ``:cat:`` in paths and in messages of others stay, and lines are not cut.

    Args:
        text: one line or several.
        console: ``STDOUT`` for results, ``STDERR`` for progress, or a quiet one.
    """
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
