"""The table of a comparison, over seeds and with its tests: on the terminal, in Markdown and as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from formulavision.comparison.config import PROBE
from formulavision.comparison.results import (
    FINDINGS,
    TOP_1,
    Findings,
    Result,
    shown,
    table_as_csv,
    without_folder,
    write_text,
)
from formulavision.comparison.significance import ALPHA, holm, paired_t, rank_correlation
from formulavision.evaluation.per_class import mcnemar
from formulavision.util.console import say
from formulavision.util.text import counted, markdown_text

__all__ = [
    "MCNEMAR",
    "REPORT_FILES",
    "T_TEST",
    "Cell",
    "Table",
    "explanations",
    "grid",
    "mean",
    "missing",
    "points",
    "print_table",
    "spread",
    "table_csv",
    "table_of",
    "to_markdown",
    "write_tables",
]

REPORT_FILES = (
    *(FINDINGS, "results.csv", "table.csv", "results.md", "report.html"),
    *("plots/*.svg", "plots/classes.csv", "pictures/*.png", "pictures/*.jpg"),
)
"""Files of the tables and the report, as patterns for the marker of their folder."""

T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"

_LISTED = 6
"""Results that a sentence lists; the table of results has the others."""
_WIDE = 10_000
"""Characters of a line that is not written to a terminal."""
_STAR = "*"
"""Behind a difference beyond chance."""

Place = tuple[str, str, str]
"""Arm, frozen layers and downstream."""


@dataclass
class Cell:
    """Results of an arm on one downstream with one choice of frozen layers, a seed each, beside those of its baseline.

    Attributes:
        results: of all seeds, also of those that failed or are pending.
        baseline: name of the arm that it is compared with.
        reference: results of the baseline with the same layers frozen.
        paper: the paper's number, 0 to 1.
        best: whether no other mean of this downstream is higher, among those of fine-tuning or of the same probe.
        method: the test against the baseline; None where there is too little to test.
        p: two-sided p-value.
        p_corrected: the same after Holm's correction for the number of tests in the table.
    """

    arm: str
    freeze: str
    downstream: str
    results: list[Result]
    baseline: str | None = None
    reference: Sequence[Result] = ()
    paper: float | None = None
    best: bool = False
    method: str | None = None
    p: float | None = None
    p_corrected: float | None = None

    @property
    def scores(self) -> dict[int, float]:
        """By seed, 0 to 1."""
        return _scores(self.results)

    @property
    def mean(self) -> float | None:
        """None where every seed failed or is pending."""
        return mean(self.scores.values())

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None of fewer than two."""
        return spread(self.scores.values())

    @property
    def pairs(self) -> list[tuple[Result, Result]]:
        """Results of the arm and its baseline at each seed at which both have a score."""
        theirs = {result.seed: result for result in self.reference if result.score is not None}
        ours = (result for result in self.results if result.score is not None)
        return [(result, theirs[result.seed]) for result in ours if result.seed in theirs]

    @property
    def paired_scores(self) -> tuple[list[float], list[float]]:
        """Scores of the arm and of its baseline, pair by pair."""
        ours, theirs = self.scores, _scores(self.reference)
        seeds = [seed for seed in ours if seed in theirs]
        return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]

    @property
    def difference(self) -> float | None:
        """Mean difference to the baseline over the seeds that both have; None where there is none."""
        return mean(ours - theirs for ours, theirs in zip(*self.paired_scores, strict=True))

    @property
    def error(self) -> str | None:
        """Why a seed failed."""
        return next((result.error for result in self.results if result.error), None)

    @property
    def beyond_chance(self) -> bool:
        """Whether the test rejects chance: over seeds for the arms, over images for these trained models alone."""
        return self.p_corrected is not None and self.p_corrected < ALPHA

    @property
    def significant(self) -> bool:
        """Whether the arms differ beyond chance, which one seed cannot tell."""
        return self.method == T_TEST and self.beyond_chance


@dataclass(frozen=True)
class Table:
    """Arms and frozen layers down, downstreams across.

    Attributes:
        cells: those that have results.
    """

    findings: Findings
    cells: dict[Place, Cell]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Arms and frozen layers."""
        there = {(arm, freeze) for arm, freeze, _ in self.cells}
        every = ((arm, freeze) for arm in self.findings.arms for freeze in self.findings.freezes)
        return [line for line in every if line in there]

    def cell(self, arm: str, freeze: str, downstream: str) -> Cell:
        """A cell, without results where there are none."""
        empty = Cell(arm, freeze, downstream, [], paper=self.findings.paper_number(arm, freeze, downstream))
        return self.cells.get((arm, freeze, downstream), empty)

    def column(self, downstream: str) -> list[Cell]:
        """Cells of a downstream, from the first line to the last."""
        return [self.cell(arm, freeze, downstream) for arm, freeze in self.lines]

    @property
    def baseline(self) -> str:
        """Name of the baseline; ``baseline`` where it is not the same for all, empty where there is none."""
        names = {arm.baseline for arm in self.findings.arms.values() if arm.baseline is not None}
        return "baseline" if len(names) > 1 else next(iter(names), "")


def table_of(findings: Findings, folder: Path) -> Table:
    """The table of a comparison, with a test of each cell against the baseline with the same layers frozen.

    Several seeds that both have are compared by the paired t-test over seeds. Of one seed the two models are compared
    by McNemar's test over the test images.

    Args:
        findings: of the comparison.
        folder: of the comparison, from which the models' predictions are read.
    """
    groups: dict[Place, list[Result]] = {}
    for result in findings.results:
        groups.setdefault((result.arm, result.freeze, result.downstream), []).append(result)
    cells: dict[Place, Cell] = {}
    for (arm, freeze, downstream), results in groups.items():
        baseline = findings.arms[arm].baseline
        reference = groups.get((baseline, freeze, downstream), []) if baseline is not None else []
        paper = findings.paper_number(arm, freeze, downstream)
        cell = Cell(arm, freeze, downstream, results, baseline, reference, paper)
        cell.method, cell.p = _test(cell, folder)
        cells[arm, freeze, downstream] = cell
    tested = {place: cell.p for place, cell in cells.items() if cell.p is not None}
    for place, corrected in zip(tested, holm(list(tested.values())), strict=True):
        cells[place].p_corrected = corrected
    _mark_best(cells.values())
    return Table(findings, cells)


def _scores(results: Iterable[Result]) -> dict[int, float]:
    """By seed, of the results that have one."""
    return {result.seed: result.score for result in results if result.score is not None}


def _test(cell: Cell, folder: Path) -> tuple[str | None, float | None]:
    """Method and p-value of the test against the baseline; None where there is too little to test."""
    if len(cell.pairs) > 1:
        p = paired_t(*cell.paired_scores)
        return (None, None) if p is None else (T_TEST, p)
    for first, second in cell.pairs:
        ours, theirs = _right_images(first, folder), _right_images(second, folder)
        if ours is not None and theirs is not None and len(ours) == len(theirs):
            return MCNEMAR, mcnemar(ours, theirs)
    return None, None


def _right_images(result: Result, folder: Path) -> NDArray[np.bool_] | None:
    """Of each test image whether the predicted class is right; None where the predictions were not kept."""
    file = folder / str(result.folder) / "predictions.npz"
    if result.folder is None or result.metric != TOP_1 or not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as content:
        return np.asarray(content["predicted"] == content["label"])


def _mark_best(cells: Iterable[Cell]) -> None:
    """Mark the highest mean of each downstream, where there are several; each kind of probe is a contest of its own."""
    contests: dict[tuple[str, str], list[tuple[float, Cell]]] = {}
    for cell in cells:
        if cell.mean is not None:
            contests.setdefault((cell.downstream, _contest(cell.freeze)), []).append((cell.mean, cell))
    for contest in contests.values():
        highest = max(score for score, _ in contest)
        for score, cell in contest:
            cell.best = len(contest) > 1 and score == highest


def _contest(freeze: str) -> str:
    return freeze if freeze.endswith(PROBE) else "fine-tuning"


# Words and numbers ---------------------------------------------------------------------------------------------------


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None where there is none."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def spread(values: Iterable[float | None]) -> float | None:
    """Sample standard deviation of the values that are not None; None where there are fewer than two."""
    there = [value for value in values if value is not None]
    return stdev(there) if len(there) > 1 else None


def points(difference: float) -> str:
    """A difference of shares in percentage points: ``+1.2``, ``−0.3``, ``0.0``."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def p_text(p: float) -> str:
    """``p < 0.001``, ``p = 0.012``, ``p = 0.38``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def place_text(downstream: str, freeze: str) -> str:
    """``cifar10``, ``cifar10, frozen: conv1-3``."""
    return downstream if freeze == "none" else f"{downstream}, frozen: {shown(freeze)}"


def explanations(table: Table) -> list[str]:
    """Sentences on the numbers of the table: what they are, and what its tests found."""
    findings, cells = table.findings, list(table.cells.values())
    sentences = [_caption(table)]
    if any(cell.pairs for cell in cells):
        frozen = " with the same layers frozen" if len(findings.freezes) > 1 else ""
        sentences.append(f"“to {table.baseline}” is the difference to {table.baseline}{frozen}, in percentage points.")
    if any(cell.pairs and len(cell.pairs) < max(len(cell.scores), len(_scores(cell.reference))) for cell in cells):
        sentences.append("Where results are missing, a difference is of the seeds that both arms have.")
    sentences += _test_sentences(findings, cells)
    if any(cell.paper is not None and cell.scores for cell in cells):
        sentences.append("“paper” is the paper’s number, at its scale.")
    for downstream in findings.downstreams:
        both = [(c.paper, c.mean) for c in table.column(downstream) if c.paper is not None and c.mean is not None]
        correlation = rank_correlation([theirs for theirs, _ in both], [ours for _, ours in both])
        if correlation is not None:
            number = f"{round(correlation, 2) + 0.0:.2f}".replace("-", "−")
            order = f"Order on {downstream} against the paper's: rank correlation (Spearman)"
            sentences.append(f"{order} {number} of {len(both)} results.")
    return sentences


def _caption(table: Table) -> str:
    findings = table.findings
    others = [downstream for downstream in findings.downstreams if findings.metric(downstream) != TOP_1]
    if others and len(others) == len(findings.downstreams):
        metric = "Mean average precision"
    else:
        metric = "Top-1 accuracy" + (f" ({', '.join(others)}: mean average precision, mAP)" if others else "")
    seeds = findings.seeds
    counts = {len(cell.scores) for cell in table.cells.values() if cell.scores}
    number = f"{'up to ' if len(counts) > 1 else ''}{len(seeds)}"
    over = f"mean ± standard deviation over {number} seeds" if len(seeds) > 1 else f"one seed ({seeds[0]})"
    size = "" if findings.size == "full" else f", size {findings.size}"
    contests = ", of fine-tuning and of each probe by itself," if len({*map(_contest, findings.freezes)}) > 1 else ""
    best = f"the best of a column{contests} in bold"
    return f"{metric} in per cent on the test images, {over}; {findings.model}{size}; {best}."


def _test_sentences(findings: Findings, cells: Sequence[Cell]) -> Iterator[str]:
    """What the tests found, over seeds and over images, and what could not be tested."""
    level = f"p < {ALPHA} after Holm's correction"
    if any(cell.method == T_TEST for cell in cells):
        marked = any(cell.significant for cell in cells)
        verdict = f"{_STAR} is a difference beyond chance" if marked else "No difference is beyond chance"
        yield f"{verdict}: {T_TEST} over seeds, {level}."
    if any(len(cell.pairs) == 1 for cell in cells):
        yield "A difference of one seed is not marked: it says nothing about how much other seeds differ."
    of_images = [cell for cell in cells if cell.method == MCNEMAR]
    if of_images:
        apart = [
            f"{cell.arm} and {cell.baseline} ({place_text(cell.downstream, cell.freeze)})"
            for cell in of_images
            if cell.beyond_chance
        ]
        models = f"the single trained models of these arms differ: {_some(apart, ', ')}"
        yield (
            f"On these test images, {models if apart else 'no two of the single trained models differ'} "
            f"({MCNEMAR} over the images, {level})."
        )
    untested = [cell for cell in cells if cell.pairs and cell.method is None]
    names = ", ".join(dict.fromkeys(c.downstream for c in untested if findings.metric(c.downstream) != TOP_1))
    if names:
        yield f"{names} cannot be tested with one seed: an image of several labels is not right or wrong."


def missing(findings: Findings) -> list[str]:
    """Sentences on what failed and what is yet to be computed, one for each arm and cause."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in findings.results:
        if result.score is None:
            groups.setdefault((result.arm, without_folder(result.error or "")), []).append(result)
    sentences = []
    # What failed comes first.
    for (arm, error), results in sorted(groups.items(), key=lambda group: not group[0][1]):
        everywhere = len(results) == sum(result.arm == arm for result in findings.results)
        places = [f"{place_text(result.downstream, result.freeze)}, seed {result.seed}" for result in results]
        where = "everywhere" if everywhere else _some(places, "; ")
        pending = f"{arm}: {counted(len(results), 'result')} yet to be computed ({where})"
        sentences.append(f"{arm} failed ({where}): {error}" if error else pending)
    return sentences


def _some(places: Sequence[str], separator: str) -> str:
    more = f"{separator}and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return separator.join(places[:_LISTED]) + more


# The grid of texts, which terminal, Markdown and report show ---------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """Text of a cell.

    Attributes:
        kind: ``words`` (left-aligned), ``score``, ``difference`` or ``paper``.
        mark: ``best``, ``failed``, ``beyond chance`` or nothing.
        note: small print, in the report alone.
    """

    text: str
    kind: str
    mark: str = ""
    note: str = ""


def grid(table: Table) -> tuple[list[Shown], list[list[Shown]]]:
    """Headings and lines of the table as texts: arm, frozen layers, and for each downstream up to three columns."""
    findings = table.findings
    with_frozen = findings.freezes != ["none"]
    headings = [Shown("arm", "words"), *([Shown("frozen", "words")] if with_frozen else [])]
    lines = [
        [Shown(arm, "words"), *([Shown(shown(freeze), "words")] if with_frozen else [])] for arm, freeze in table.lines
    ]
    for downstream in findings.downstreams:
        cells = table.column(downstream)
        metric = "" if findings.metric(downstream) == TOP_1 else " (mAP)"
        columns = [(Shown(f"{downstream}{metric}", "score"), [_score(cell, len(findings.seeds)) for cell in cells])]
        if any(cell.pairs for cell in cells):
            columns.append((Shown(f"to {table.baseline}", "difference"), [_difference(cell) for cell in cells]))
        if any(cell.paper is not None for cell in cells):
            papers = ["" if cell.paper is None else f"{100 * cell.paper:.1f}" for cell in cells]
            columns.append((Shown("paper", "paper"), [Shown(text, "paper") for text in papers]))
        for heading, column in columns:
            headings.append(heading)
            for line, text in zip(lines, column, strict=True):
                line.append(text)
    return headings, lines


def _score(cell: Cell, seeds: int) -> Shown:
    """``91.2 ± 0.3``, per cent; without the spread where there is one seed."""
    if cell.mean is None:
        return Shown("failed", "score", "failed") if cell.error else Shown("–", "score")
    text = f"{100 * cell.mean:.1f}" + ("" if cell.spread is None else f" ± {100 * cell.spread:.1f}")
    note = f"{len(cell.scores)} of {seeds} seeds" if len(cell.scores) < seeds else ""
    return Shown(text, "score", "best" if cell.best else "", note)


def _difference(cell: Cell) -> Shown:
    if cell.difference is None:
        return Shown("", "difference")
    text = points(cell.difference) + (_STAR if cell.significant else "")
    tested = p_text(cell.p_corrected) if cell.method == T_TEST and cell.p_corrected is not None else ""
    pairs = f"{len(cell.pairs)} of {len(cell.scores)} seeds" if len(cell.pairs) < len(cell.scores) else ""
    return Shown(
        text, "difference", "beyond chance" if cell.significant else "", ", ".join(filter(None, (pairs, tested)))
    )


def to_markdown(table: Table) -> str:
    """The table in Markdown, in per cent: mean ± standard deviation over seeds, best in bold."""
    headings, lines = grid(table)

    def row(texts: Iterable[str]) -> str:
        return f"| {' | '.join(texts)} |"

    parts = [
        [f"# {markdown_text(table.findings.name)}"],
        [markdown_text(explanations(table)[0])],
        [
            row(_escaped(heading.text) for heading in headings),
            "|" + "|".join(" --- " if heading.kind == "words" else " ---: " for heading in headings) + "|",
            *(row(f"**{_escaped(t.text)}**" if t.mark == "best" else _escaped(t.text) for t in line) for line in lines),
        ],
        [f"- {_escaped(note)}" for note in _notes(table)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _notes(table: Table) -> list[str]:
    """Sentences below the table."""
    findings = table.findings
    machines = Counter(result.computed.machine for result in findings.results if result.computed is not None)
    return [
        *explanations(table)[1:],
        *(f"{count} of {len(findings.results)} results computed on {name}." for name, count in machines.items()),
        *findings.notes,
        *missing(findings),
    ]


def _escaped(text: str) -> str:
    # A lone star would be the start of italics.
    return markdown_text(text).replace(_STAR, f"\\{_STAR}")


def print_table(table: Table, folder: Path) -> None:
    """Print the table on the terminal, and where its files are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    headings, lines = grid(table)
    printed = RichTable(title=escape(table.findings.name))
    for heading in headings:
        # Where the window is narrow, names are folded, and numbers stay whole.
        words = heading.kind == "words"
        printed.add_column(heading.text, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for line in lines:
        printed.add_row(*(f"[bold]{escape(t.text)}[/bold]" if t.mark == "best" else escape(t.text) for t in line))
    screen = Console()
    if not screen.is_terminal:
        # A file or a pipe is as wide as the table.
        screen.width = _WIDE
    screen.print(printed)
    files = (f"table: {folder / 'results.md'}", f"report: {folder / 'report.html'}")
    for sentence in (explanations(table)[0], *_notes(table), *files):
        say(sentence, screen)


# For programs --------------------------------------------------------------------------------------------------------


def table_csv(table: Table) -> str:
    """A line a cell of the table; shares from 0 to 1, ``p`` before and ``p_corrected`` after Holm's correction."""
    lines = [
        {
            "arm": arm,
            "frozen": freeze,
            "downstream": downstream,
            "metric": table.findings.metric(downstream),
            "seeds": len(cell.scores),
            "mean": cell.mean,
            "standard_deviation": cell.spread,
            "baseline": table.findings.arms[arm].baseline,
            "difference": cell.difference,
            "paired_seeds": len(cell.pairs) or None,
            "test": cell.method,
            "p": cell.p,
            "p_corrected": cell.p_corrected,
            "significant": "yes" if cell.significant else "",
            "paper": cell.paper,
            "error": cell.error,
        }
        for arm, freeze in table.lines
        for downstream in table.findings.downstreams
        for cell in [table.cell(arm, freeze, downstream)]
    ]
    return table_as_csv(list(lines[0]), lines) if lines else ""


def write_tables(findings: Findings, folder: Path) -> Table:
    """Write ``results.json``, ``results.csv``, ``table.csv`` and ``results.md``; return the table.

    Raises:
        StoreError: one of them cannot be written.
    """
    findings.save(folder)
    table = table_of(findings, folder)
    write_text(folder / "table.csv", table_csv(table))
    write_text(folder / "results.md", to_markdown(table))
    return table
