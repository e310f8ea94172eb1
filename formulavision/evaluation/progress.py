"""Progress of an evaluation: a bar on a terminal, a line every 20 seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from formulavision.training.progress import say_and_log

__all__ = ["steps"]

_SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def steps(console: Console, doing: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how many steps of some work are done. The function that it gives is to be called after each step."""
    if console.is_terminal and not console.quiet:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(doing, total=total)
            yield lambda: bar.advance(task)
        return
    started = told = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, told
        done += 1
        now = time.monotonic()
        if now - told > _SECONDS_BETWEEN_LINES:
            say_and_log(f"{doing}: {done:,} of {total:,} done after {now - started:.0f} s", console)
            told = now

    yield advance
