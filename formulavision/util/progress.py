"""Progress bars with count, rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from formulavision.util.console import say

__all__ = ["Bars", "is_watched", "progress_bars"]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s", style="cyan")


class Bars:
    """A progress bar for each kind of work, shown from its first step on."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def show(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            # Steps that were done before, in a run that is resumed, do not count for the rate.
            self._tasks[what] = self._bars.add_task(what, total=total, completed=done)
        self._bars.update(self._tasks[what], completed=done)

    def categories(self, found: int, total: int) -> None:
        self.show("categories", found, total)

    def images(self, done: int, total: int) -> None:
        self.show("images", done, total)

    def note(self, line: str) -> None:
        say(line, self._bars.console)


def is_watched() -> bool:
    """Whether standard error is a terminal or a notebook, where bars can be seen."""
    return sys.stderr.isatty() or Console(stderr=True).is_jupyter


@contextmanager
def progress_bars(*, show: bool = True) -> Iterator[Bars]:
    """Show bars on standard error, so that standard output holds results alone."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True), disable=not show)
    # Rich before 14.3 ends bars with a line break even where they are disabled.
    with bars if show else nullcontext():
        yield Bars(bars)
        bars.refresh()  # in a notebook, Rich leaves out the last state
