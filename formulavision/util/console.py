"""Lines on the terminal: results on standard output, progress and notes on standard error."""

from __future__ import annotations

from rich.console import Console

__all__ = ["STDERR", "STDOUT", "say"]

STDOUT = Console(highlight=False)
STDERR = Console(highlight=False, stderr=True)


def say(text: str, console: Console = STDOUT) -> None:
    """Print text as it is: ``[...]`` in paths and in messages of others is not taken for markup, and lines are not cut.

    Args:
        text: one line or several.
        console: ``STDOUT`` for results, ``STDERR`` for progress, or a quiet one.
    """
    console.print(text, markup=False, highlight=False, soft_wrap=True)
