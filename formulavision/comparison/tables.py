"""The table of a comparison, computed from the results: mean over seeds, difference to the baseline, and its test."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.comparison.results import SAME_SCORE, TOP_1, Findings, Result, table_as_csv
from formulavision.comparison.settings import PROBE
from formulavision.comparison.significance import ALPHA, confidence_interval, holm, paired_t
from formulavision.evaluation.per_class import mcnemar
from formulavision.evaluation.results import read_predictions, read_tested

__all__ = ["MCNEMAR", "T_TEST", "Cell", "Table", "contest", "evaluated_again", "table_csv", "table_of"]

T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"

_COLUMNS = (
    *("arm", "frozen", "downstream", "metric", "seeds", "mean", "standard_deviation", "baseline", "difference"),
    *("paired_seeds", "test", "p", "p_corrected", "significant", "paper", "error"),
)
"""Columns of ``table.csv``."""

Place = tuple[str, str, str]
"""Arm, frozen layers and downstream."""


@dataclass(kw_only=True)
class Cell:
    """A cell of the table: an arm on one downstream with one choice of frozen layers, over seeds.

    Attributes:
        results: of all seeds, also of those that failed or are pending; none if the comparison plans none.
        pairs: results of the arm and of its baseline, for each seed for which both have a score.
        unpaired: whether the difference leaves out a seed that one of the two has.
        metric: name of the score.
        seeds: number of seeds that have a score.
        mean: of the scores, 0 to 1; None if there is none.
        spread: sample standard deviation of the scores; None for fewer than two.
        baseline: name of the arm that this one is compared with, with the same layers frozen.
        difference: mean difference to the baseline, over the pairs; None without pairs.
        method: the test against the baseline; None if there is too little to test.
        p: two-sided p-value.
        interval: 95 % confidence interval of the difference over seeds; None without a t-test.
        tests: number of tests in the table; cells that arms share have one.
        p_corrected: p-value after Holm's correction for the number of tests.
        paper: the paper's number, 0 to 1.
        error: reason why a seed failed; None if none did.
        best: whether no other mean of this downstream is higher, among those of fine-tuning or of the same probe.
    """

    arm: str
    freeze: str
    downstream: str
    results: Sequence[Result] = ()
    pairs: Sequence[tuple[Result, Result]] = ()
    unpaired: bool = False
    metric: str = TOP_1
    seeds: int = 0
    mean: float | None = None
    spread: float | None = None
    baseline: str | None = None
    difference: float | None = None
    method: str | None = None
    p: float | None = None
    interval: tuple[float, float] | None = None
    tests: int = 0
    p_corrected: float | None = None
    paper: float | None = None
    error: str | None = None
    best: bool = False

    @property
    def beyond_chance(self) -> bool:
        """Whether the test rejects chance: over seeds for the arms, over images for these trained models alone."""
        return self.p_corrected is not None and self.p_corrected < ALPHA

    @property
    def significant(self) -> bool:
        """Whether the arms differ beyond chance. One seed cannot show that."""
        return self.method == T_TEST and self.beyond_chance


@dataclass(frozen=True)
class Table:
    """Arms and frozen layers down, downstreams across.

    Attributes:
        cells: by arm, frozen layers and downstream; also those without results.
    """

    findings: Findings
    cells: dict[Place, Cell]

    @property
    def rows(self) -> list[list[Cell]]:
        """Cells of each arm and choice of frozen layers that has results, a cell a downstream."""
        every = itertools.product(self.findings.arms, self.findings.freezes)
        rows = ([self.cells[arm, freeze, name] for name in self.findings.downstreams] for arm, freeze in every)
        return [row for row in rows if any(cell.results for cell in row)]


def table_of(findings: Findings, folder: Path) -> Table:
    """Compute the table of a comparison, and test each cell against the baseline with the same layers frozen.

    If both have several seeds in common, the paired t-test over seeds compares them. If they have one, McNemar's test
    over the test images compares the two models.

    Args:
        findings: of the comparison.
        folder: of the comparison, from which the models' predictions are read.

    Raises:
        ConfigError: the file of some predictions is damaged.
    """
    results: dict[tuple[str | None, str, str], list[Result]] = defaultdict(list)
    for result in findings.results:
        results[result.arm, result.freeze, result.downstream].append(result)
    metrics = {downstream: findings.metric(downstream) for downstream in findings.downstreams}
    cells = {}
    for arm, freeze, downstream in itertools.product(findings.arms, findings.freezes, findings.downstreams):
        cell = Cell(
            arm=arm,
            freeze=freeze,
            downstream=downstream,
            results=results[arm, freeze, downstream],
            metric=metrics[downstream],
            baseline=findings.arms[arm].baseline,
            paper=findings.paper_number(arm, freeze, downstream),
        )
        _summarise(cell, results[cell.baseline, freeze, downstream], folder)
        cells[arm, freeze, downstream] = cell
    tests: dict[Any, list[Cell]] = defaultdict(list)
    for place, cell in cells.items():
        if cell.p is not None:
            tests[(cell.freeze, cell.downstream, *models) if (models := _models(cell)) else place].append(cell)
    for same, corrected in zip(tests.values(), holm([first.p or 0 for first, *_ in tests.values()]), strict=True):
        for cell in same:
            cell.p_corrected, cell.tests = corrected, len(tests)
    _mark_best(cells.values())
    return Table(findings, cells)


def _summarise(cell: Cell, reference: Sequence[Result], folder: Path) -> None:
    """Fill in what follows from the results of a cell and from those of its baseline."""
    ours, theirs = _scores(cell.results), _scores(reference)
    both = [seed for seed in ours if seed in theirs]
    cell.pairs = [(a, b) for a in cell.results for b in reference if a.seed == b.seed and a.seed in both]
    cell.unpaired = 0 < len(both) < max(len(ours), len(theirs))
    cell.seeds = len(ours)
    cell.mean = fmean(ours.values()) if ours else None
    cell.spread = stdev(ours.values()) if len(ours) > 1 else None
    cell.difference = fmean(ours[seed] - theirs[seed] for seed in both) if both else None
    cell.error = next((result.error for result in cell.results if result.error), None)
    if len(both) > 1:
        pairs = [ours[seed] for seed in both], [theirs[seed] for seed in both]
        cell.p, cell.interval = paired_t(*pairs), confidence_interval(*pairs)
        cell.method = None if cell.p is None else T_TEST
    elif both:
        cell.p = _compare_images(*cell.pairs[0], folder)
        cell.method = None if cell.p is None else MCNEMAR


def _models(cell: Cell) -> tuple[str | None, ...]:
    """Folders of the models that a cell's test compares: arms of one content share them, and the test. Empty where they
    are not known."""
    folders = tuple(result.folder for pair in cell.pairs for result in pair)
    return () if None in folders else folders


def _scores(results: Iterable[Result]) -> dict[int, float]:
    """Seed -> score, of the results that have one."""
    return {result.seed: result.score for result in results if result.score is not None}


def _compare_images(first: Result, second: Result, folder: Path) -> float | None:
    """p-value of McNemar's test of two models; None if there are no predictions of both on the same images."""
    (ours, images), (theirs, others) = _correct_images(first, folder), _correct_images(second, folder)
    if ours is None or theirs is None or len(ours) != len(theirs) or images != others:
        return None
    return mcnemar(ours, theirs)


def _correct_images(result: Result, folder: Path) -> tuple[NDArray[np.bool_] | None, str | None]:
    """Whether the predicted class of each test image is right, bool [n]; None if the predictions were not kept, or are
    those of another evaluation. And the digest of the test images."""
    if result.folder is None or result.metric != TOP_1 or evaluated_again(result, folder):
        return None, None
    correct = read_predictions(folder / result.folder)[1]
    return correct, None if correct is None else read_tested(folder / result.folder)[0]


def evaluated_again(result: Result, folder: Path) -> bool:
    """Whether the model's folder holds another evaluation than the comparison's, such as one on other images.

    Args:
        folder: of the comparison.

    Raises:
        ConfigError: the evaluation is damaged.
    """
    if result.folder is None or result.score is None:
        return False
    score = read_tested(folder / result.folder)[1]
    return score is not None and abs(score - result.score) > SAME_SCORE


def _mark_best(cells: Iterable[Cell]) -> None:
    """Mark the highest mean of each downstream, among several; each kind of probe is a contest of its own."""
    contests: dict[tuple[str, str], list[tuple[float, Cell]]] = defaultdict(list)
    for cell in cells:
        if cell.mean is not None:
            contests[cell.downstream, contest(cell.freeze)].append((cell.mean, cell))
    for entries in contests.values():
        highest = max(score for score, _ in entries)
        for score, cell in entries:
            cell.best = len(entries) > 1 and score == highest


def contest(freeze: str) -> str:
    """Name of the group of cells of which one is the best: fine-tuning, or a probe."""
    return freeze if freeze.endswith(PROBE) else "fine-tuning"


def table_csv(table: Table) -> str:
    """A row for each cell of the table; shares from 0 to 1; ``p_corrected`` is ``p`` after Holm's correction."""
    rows = (
        {
            **vars(cell),
            "frozen": cell.freeze,
            "standard_deviation": cell.spread,
            "paired_seeds": len(cell.pairs) or None,
            "test": cell.method,
            "significant": "yes" if cell.significant else "",
        }
        for row in table.rows
        for cell in row
    )
    return table_as_csv(_COLUMNS, rows)
