"""Progress of work that takes more than two seconds: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from formulavision.training.progress import say

__all__ = ["steps"]

_FIRST_LINE_S = 2.0
_NEXT_LINES_S = 20.0


@contextmanager
def steps(console: Console, doing: str, total: int) -> Iterator[Callable[[], None]]:
    """Tell how much of some work is done; gives a function to be called after each step."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if bar is not None:
            bar.advance(task)

    bar = None
    if console.is_terminal and not console.quiet:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(doing, total=total)
            yield advance
        return

    ended = threading.Event()
    started = time.monotonic()

    def tell() -> None:
        wait = _FIRST_LINE_S
        while not ended.wait(wait):
            say(console, f"{doing}: {done:,} of {total:,} done after {time.monotonic() - started:.0f} s")
            wait = _NEXT_LINES_S

    # A thread of its own: a single step may take minutes.
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield advance
    finally:
        ended.set()
        teller.join()
