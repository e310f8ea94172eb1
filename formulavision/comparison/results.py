"""What a comparison found: a row a fine-tuned model, and the table over seeds."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from formulavision import files
from formulavision.comparison.config import ComparisonSettings
from formulavision.errors import StoreError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Cell",
    "Comparison",
    "Line",
    "Row",
    "caption",
    "console",
    "mean",
    "print_table",
    "table",
    "to_csv",
    "to_markdown",
    "write_text",
]


@dataclass
class Row:
    """One arm, fine-tuned on one downstream with one choice of frozen layers and one seed.

    Attributes:
        top1: share of test images whose class comes first, 0 to 1; None where the row failed.
        top5: share of test images whose class is among the first five, 0 to 1; None with fewer than five classes.
        loss: mean cross-entropy over the test images, nats.
        pretrain_accuracy: of the last pre-training epoch, 0 to 1; None without pre-training.
        generate_seconds: of generating the store; None where images are drawn on demand.
        error: why the row has no result, in one line.
    """

    arm: str
    downstream: str
    freeze: str
    seed: int
    top1: float | None = None
    top5: float | None = None
    loss: float | None = None
    pretrain_accuracy: float | None = None
    generate_seconds: float | None = None
    pretrain_seconds: float | None = None
    pretrain_images_per_second: float | None = None
    finetune_seconds: float | None = None
    finetune_images_per_second: float | None = None
    evaluate_seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        folder: holds ``results.csv``, ``results.md``, ``report.html``, ``comparison.yaml`` and the runs.
    """

    settings: ComparisonSettings
    folder: Path
    rows: list[Row]

    @property
    def failures(self) -> dict[str, str]:
        """Why, for each arm that failed somewhere, in one line."""
        result: dict[str, str] = {}
        for row in self.rows:
            if row.error:
                result.setdefault(row.arm, row.error)
        return result

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


@dataclass(frozen=True)
class Cell:
    """Top-1 accuracy of an arm on a downstream over the seeds, as shares of 1.

    Attributes:
        mean: None where every seed failed.
        spread: sample standard deviation over seeds; None where there are fewer than two.
        seeds: how many seeds gave a result.
        difference: to the mean of training from scratch with the same layers frozen; None where there is none.
        best: whether no other mean of this downstream is higher.
        error: why a seed failed.
    """

    mean: float | None
    spread: float | None
    seeds: int
    difference: float | None
    best: bool
    error: str | None

    @property
    def text(self) -> str:
        """``91.2 ± 0.3``, per cent; without the spread where there is one seed."""
        if self.mean is None:
            return "failed"
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.spread:.1f}" if self.spread is not None else "")

    @property
    def difference_text(self) -> str:
        return "" if self.difference is None else f"{100 * self.difference:+.1f}".replace("-", "−")


@dataclass(frozen=True)
class Line:
    """One line of the table: an arm with one choice of frozen layers, a cell for each downstream."""

    arm: str
    freeze: str
    cells: dict[str, Cell]


def table(settings: ComparisonSettings, rows: Iterable[Row]) -> list[Line]:
    """The table of a comparison: arms (and frozen layers) down, downstreams across."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.freeze, row.downstream), []).append(row)
    means = {key: mean(row.top1 for row in group) for key, group in groups.items()}
    scratch = next((name for name, arm in settings.arms.items() if arm.from_scratch), None)

    def cell(arm: str, freeze: str, downstream: str) -> Cell:
        group = groups[arm, freeze, downstream]
        values = [row.top1 for row in group if row.top1 is not None]
        own = means[arm, freeze, downstream]
        others = [m for (_, _, where), m in means.items() if where == downstream and m is not None]
        base = means.get((scratch, freeze, downstream)) if scratch not in (None, arm) else None
        return Cell(
            mean=own,
            spread=statistics.stdev(values) if len(values) > 1 else None,
            seeds=len(values),
            difference=own - base if own is not None and base is not None else None,
            best=own is not None and len(others) > 1 and own == max(others),
            error=next((row.error for row in group if row.error), None),
        )

    return [
        Line(arm, freeze, {downstream: cell(arm, freeze, downstream) for downstream in settings.downstreams})
        for arm in settings.arms
        for freeze in settings.freeze
    ]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def to_csv(rows: Iterable[Row]) -> str:
    """A line a row; shares from 0 to 1, times in seconds."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    return text.getvalue()


def to_markdown(settings: ComparisonSettings, rows: list[Row]) -> str:
    """The table in Markdown: top-1 accuracy in per cent, mean ± standard deviation over seeds, best in bold."""
    return "\n".join(_markdown(settings, rows)) + "\n"


def _markdown(settings: ComparisonSettings, rows: list[Row]) -> Iterator[str]:
    yield f"# {settings.name}"
    yield ""
    yield caption(settings)
    yield ""
    frozen = len(settings.freeze) > 1
    head = ["arm", *(["frozen"] if frozen else []), *settings.downstreams]
    yield "| " + " | ".join(head) + " |"
    yield (
        "|"
        + "|".join([" --- "] * (len(head) - len(settings.downstreams)) + [" ---: "] * len(settings.downstreams))
        + "|"
    )
    lines = table(settings, rows)
    for line in lines:
        cells = [f"**{cell.text}**" if cell.best else cell.text for cell in line.cells.values()]
        yield "| " + " | ".join([line.arm, *([line.freeze] if frozen else []), *cells]) + " |"
    failed = list(dict.fromkeys((row.arm, row.error) for row in rows if row.error))
    if failed:
        yield ""
        yield from (f"- {arm} failed: {error}" for arm, error in failed)


def caption(settings: ComparisonSettings) -> str:
    """What the numbers of the table are."""
    seeds = len(settings.seeds)
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else f"one seed ({settings.seeds[0]})"
    return f"Top-1 accuracy in per cent on the test images, {over}; {settings.model}; the best of a column in bold."


def console() -> Console:
    """Where progress goes: standard error, so that output can be piped."""
    from rich.console import Console

    return Console(stderr=True)


def print_table(comparison: Comparison) -> None:
    """Print the table on the terminal, and where the report is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    settings = comparison.settings
    frozen = len(settings.freeze) > 1
    scratch = any(arm.from_scratch for arm in settings.arms.values())
    grid = Table(title=escape(settings.name))
    grid.add_column("arm", overflow="fold")
    if frozen:
        grid.add_column("frozen")
    for downstream in settings.downstreams:
        grid.add_column(downstream, justify="right")
        if scratch:
            grid.add_column("to scratch", justify="right")
    for line in table(settings, comparison.rows):
        cells = [line.arm, *([line.freeze] if frozen else [])]
        for cell in line.cells.values():
            cells += [f"[bold]{cell.text}[/bold]" if cell.best else cell.text]
            cells += [cell.difference_text] if scratch else []
        grid.add_row(*cells)
    screen = Console()
    screen.print(grid)
    screen.print(caption(settings), markup=False, highlight=False, soft_wrap=True)
    for arm, error in comparison.failures.items():
        screen.print(f"{arm} failed: {error}", markup=False, highlight=False, soft_wrap=True)
    screen.print(f"report: {comparison.report}", markup=False, highlight=False, soft_wrap=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
