"""The table of a comparison on the terminal, in Markdown and as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from formulavision.comparison.differences import Difference, from_baseline, star
from formulavision.comparison.results import (
    FINDINGS,
    TOP_1,
    Comparison,
    Findings,
    Line,
    Row,
    agreement,
    best_of,
    cause,
    missing_pairs,
    rho,
    shown,
    table,
    write_text,
)
from formulavision.util.text import csv_text, markdown_text

__all__ = [
    "REPORT_FILES",
    "TABLE",
    "caption",
    "footnotes",
    "print_table",
    "rows_csv",
    "say",
    "table_csv",
    "to_markdown",
    "write_tables",
]

TABLE = "table.csv"
REPORT_FILES = (
    *(FINDINGS, "results.csv", TABLE, "results.md", "report.html"),
    *("plots/*.svg", "plots/classes.csv", "pictures/*.png", "pictures/*.jpg"),
)
"""What the tables and the report of a comparison are written to, in the words of a marker's list."""

Tests = dict[tuple[str, str, str], Difference]
"""Of each cell (arm, frozen layers, downstream), its test against the baseline."""

_UNLIMITED = 10_000
"""Characters."""

_STAR = "*"
"""Behind a difference that is more than chance."""


@dataclass(frozen=True)
class _Grid:
    """Headings and rows as text; ``best`` holds (row, column) of the best results."""

    headings: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]
    texts: int
    """How many columns on the left hold words; the others hold numbers."""


def _grid(findings: Findings, lines: list[Line], tests: Tests) -> _Grid:
    frozen = len(findings.freezes) > 1
    headings = ["arm", *(["frozen"] if frozen else [])]
    rows = [[line.arm, *([shown(line.freeze)] if frozen else [])] for line in lines]
    texts = len(headings)
    best: set[tuple[int, int]] = set()
    for downstream in findings.downstreams:
        cells = [line.cells[downstream] for line in lines]
        best |= {(i, len(headings)) for i, cell in enumerate(cells) if cell.best}
        columns = [(_heading(findings, downstream), [cell.text for cell in cells])]
        if any(cell.difference is not None for cell in cells):
            found = [tests.get((line.arm, line.freeze, downstream)) for line in lines]
            differences = [
                cell.difference_text + (_STAR if test is not None and test.significant else "")
                for cell, test in zip(cells, found, strict=True)
            ]
            columns.append((f"to {_baseline(findings)}", differences))
        if any(cell.paper is not None for cell in cells):
            columns.append(("paper", [cell.paper_text for cell in cells]))
        for heading, texts_of_column in columns:
            headings.append(heading)
            for row, text in zip(rows, texts_of_column, strict=True):
                row.append(text)
    return _Grid(headings, rows, best, texts)


def _heading(findings: Findings, downstream: str) -> str:
    return downstream if findings.metric(downstream) == TOP_1 else f"{downstream} (mAP)"


def _baseline(findings: Findings) -> str:
    """The arm that the others are measured against, or ``baseline`` where it is not the same for all."""
    names = {arm.baseline for arm in findings.arms.values() if arm.baseline is not None}
    return names.pop() if len(names) == 1 else "baseline"


def caption(findings: Findings) -> str:
    """What the numbers of the table are."""
    others = [d for d in findings.downstreams if findings.metric(d) != TOP_1]
    if others and len(others) == len(findings.downstreams):
        metric = "Mean average precision"
    else:
        metric = "Top-1 accuracy" + (f" ({', '.join(others)}: mean average precision, mAP)" if others else "")
    seeds = findings.seeds
    counts = {cell.seeds for line in table(findings) for cell in line.cells.values() if cell.seeds}
    number = f"{'up to ' if len(counts) > 1 else ''}{len(seeds)}"
    over = f"mean ± standard deviation over {number} seeds" if len(seeds) > 1 else f"one seed ({seeds[0]})"
    size = "" if findings.size == "full" else f", size {findings.size}"
    return f"{metric} in per cent on the test images, {over}; {findings.model}{size}; {best_of(findings)} in bold."


def footnotes(findings: Findings, lines: list[Line], tests: Tests) -> list[str]:
    """What is to be said below the table, a sentence each."""
    notes = [*missing_pairs(findings, lines), *star(findings, list(tests.values()))]
    for downstream in findings.downstreams:
        found = agreement(lines, downstream)
        if found is not None:
            correlation, pairs = found
            notes.append(
                f"Order on {downstream} against the paper's: rank correlation (Spearman) "
                f"{rho(correlation)} of {pairs} results."
            )
    machines = Counter(entry.computed.machine for entry in findings.entries if entry.computed is not None)
    notes += [f"{count} of {len(findings.entries)} results computed on {name}." for name, count in machines.items()]
    pending = sum(row.pending for row in findings.rows)
    if pending:
        notes.append(f"{pending} of {len(findings.entries)} results are yet to be computed (–).")
    notes += findings.notes
    notes += [f"{arm} failed: {error}" for arm, error in _failures(findings)]
    return notes


def _failures(findings: Findings) -> Iterable[tuple[str, str]]:
    return dict.fromkeys((row.arm, cause(row.error)) for row in findings.rows if row.error)


# For people ----------------------------------------------------------------------------------------------------------


def to_markdown(findings: Findings, tests: Tests) -> str:
    """The table in Markdown, in per cent: mean ± standard deviation over seeds, best in bold."""
    return "\n".join(_markdown(findings, tests)) + "\n"


def _markdown(findings: Findings, tests: Tests) -> Iterator[str]:
    lines = table(findings)
    grid = _grid(findings, lines, tests)
    yield f"# {markdown_text(findings.name)}"
    yield ""
    yield markdown_text(caption(findings))
    yield ""
    yield "| " + " | ".join(map(_escaped, grid.headings)) + " |"
    yield "|" + "|".join(" --- " if i < grid.texts else " ---: " for i in range(len(grid.headings))) + "|"
    for i, row in enumerate(grid.rows):
        texts = [_escaped(text) for text in row]
        yield "| " + " | ".join(f"**{text}**" if (i, j) in grid.best else text for j, text in enumerate(texts)) + " |"
    notes = footnotes(findings, lines, tests)
    if notes:
        yield ""
        yield from (f"- {_escaped(note)}" for note in notes)


def _escaped(text: str) -> str:
    # A lone star would be the start of italics.
    return markdown_text(text).replace(_STAR, f"\\{_STAR}")


def print_table(comparison: Comparison) -> None:
    """Print the table on the terminal, and where the report is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    findings = comparison.findings
    lines, tests = table(findings), from_baseline(findings, comparison.folder)
    grid = _grid(findings, lines, tests)
    shape = Table(title=escape(findings.name))
    for i, heading in enumerate(grid.headings):
        # Where the window is narrow, names are folded, and numbers stay whole.
        words = i < grid.texts
        shape.add_column(heading, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for i, row in enumerate(grid.rows):
        shape.add_row(*(f"[bold]{escape(t)}[/bold]" if (i, j) in grid.best else escape(t) for j, t in enumerate(row)))
    screen = Console()
    if not screen.is_terminal:
        # A file or a pipe is as wide as the table.
        screen.width = _UNLIMITED
    screen.print(shape)
    for line in (
        caption(findings),
        *footnotes(findings, lines, tests),
        f"table: {comparison.folder / 'results.md'}",
        f"report: {comparison.report}",
    ):
        screen.print(line, markup=False, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print a line of progress: on standard error, so that output can be piped."""
    from rich.console import Console

    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


# For programs --------------------------------------------------------------------------------------------------------


def rows_csv(findings: Findings) -> str:
    """A line a result that is there, or failed; shares from 0 to 1, times in seconds."""
    rows = (asdict(row) for row in findings.rows if not row.pending)
    return _csv([field.name for field in fields(Row)], rows)


def table_csv(findings: Findings, tests: Tests) -> str:
    """A line a cell of the table; shares from 0 to 1, ``p`` before and ``p_corrected`` after Holm's correction."""
    cells = []
    for line in table(findings):
        for downstream, cell in line.cells.items():
            test = tests.get((line.arm, line.freeze, downstream))
            cells.append(
                {
                    "arm": line.arm,
                    "frozen": line.freeze,
                    "downstream": downstream,
                    "metric": findings.metric(downstream),
                    "seeds": cell.seeds,
                    "mean": cell.mean,
                    "standard_deviation": cell.spread,
                    "baseline": findings.arms[line.arm].baseline,
                    "difference": cell.difference,
                    "paired_seeds": cell.pairs if cell.difference is not None else None,
                    "test": None if test is None else test.method,
                    "p": None if test is None else test.p,
                    "p_corrected": None if test is None else test.corrected,
                    "significant": "yes" if test is not None and test.significant else "",
                    "paper": cell.paper,
                    "error": cell.error,
                }
            )
    return _csv(list(cells[0]), cells) if cells else ""


def _csv(columns: list[str], rows: Iterable[dict[str, Any]]) -> str:
    values = ([row.get(column, "") for column in columns] for row in rows)
    shortened = ([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in values)
    return csv_text([columns, *shortened])


def write_tables(findings: Findings, folder: Path) -> None:
    """Write all of a comparison's folder that is made of its findings, but for the report.

    Raises:
        StoreError: it cannot be written.
    """
    write_text(folder / FINDINGS, findings.model_dump_json(indent=1))
    write_text(folder / "results.csv", rows_csv(findings))
    tests = from_baseline(findings, folder)
    write_text(folder / TABLE, table_csv(findings, tests))
    write_text(folder / "results.md", to_markdown(findings, tests))
