"""Tables, bars and closing lines on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from formulavision import generation

console = Console(highlight=False)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars with count, rate and time left, on standard error, so that standard output stays clean."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield bars


class Bars(generation.Progress):
    """Bars for categories and images."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, int] = {}

    def show(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            # Of a run that is resumed, only what it does itself counts for its rate.
            self.tasks[what] = self.bars.add_task(what, total=total, completed=done)
        self.bars.update(self.tasks[what], completed=done)  # type: ignore[arg-type]

    def categories(self, found: int, total: int) -> None:
        self.show("categories", found, total)

    def images(self, done: int, total: int) -> None:
        self.show("images", done, total)


def size_text(size: float) -> str:
    """Bytes for people: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
