"""The table of a comparison, computed from the results: mean over seeds, difference to the baseline, and its test."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from formulavision.comparison.config import PROBE
from formulavision.comparison.results import TOP_1, Findings, Result, table_as_csv
from formulavision.comparison.significance import ALPHA, holm, paired_t
from formulavision.evaluation.per_class import mcnemar

__all__ = ["MCNEMAR", "T_TEST", "Cell", "Table", "contest", "table_csv", "table_of"]

T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"


@dataclass
class Cell:
    """Results of an arm on one downstream with one choice of frozen layers, a seed each, beside those of its baseline.

    Attributes:
        results: of all seeds, also of those that failed or are pending; none if the comparison plans none.
        baseline: name of the arm that it is compared with.
        reference: results of the baseline with the same layers frozen.
        paper: the paper's number, 0 to 1.
        best: whether no other mean of this downstream is higher, among those of fine-tuning or of the same probe.
        method: the test against the baseline; None if there is too little to test.
        p: two-sided p-value.
        p_corrected: p-value after Holm's correction for the number of tests in the table.
    """

    arm: str
    freeze: str
    downstream: str
    results: Sequence[Result]
    baseline: str | None = None
    reference: Sequence[Result] = ()
    paper: float | None = None
    best: bool = False
    method: str | None = None
    p: float | None = None
    p_corrected: float | None = None

    @property
    def scores(self) -> dict[int, float]:
        """Seed -> score, 0 to 1."""
        return _scores(self.results)

    @property
    def mean(self) -> float | None:
        """None if every seed failed or is pending."""
        return fmean(self.scores.values()) if self.scores else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return stdev(self.scores.values()) if len(self.scores) > 1 else None

    @property
    def pairs(self) -> list[tuple[Result, Result]]:
        """Results of the arm and of its baseline, for each seed for which both have a score."""
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
        """Mean difference to the baseline, over the seeds that both have; None if there is no such seed."""
        differences = [ours - theirs for ours, theirs in zip(*self.paired_scores, strict=True)]
        return fmean(differences) if differences else None

    @property
    def lacks_pairs(self) -> bool:
        """Whether the difference leaves out a seed that one of the two arms has."""
        return 0 < len(self.pairs) < max(len(self.scores), len(_scores(self.reference)))

    @property
    def error(self) -> str | None:
        """Reason why a seed failed; None if none did."""
        return next((result.error for result in self.results if result.error), None)

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
    cells: dict[tuple[str, str, str], Cell]

    @property
    def rows(self) -> list[list[Cell]]:
        """Cells of each arm and choice of frozen layers that has results, a cell a downstream."""
        rows = (
            [self.cells[arm, freeze, downstream] for downstream in self.findings.downstreams]
            for arm, freeze in itertools.product(self.findings.arms, self.findings.freezes)
        )
        return [row for row in rows if any(cell.results for cell in row)]


def table_of(findings: Findings, folder: Path) -> Table:
    """Compute the table of a comparison, and test each cell against the baseline with the same layers frozen.

    If both have several seeds in common, the paired t-test over seeds compares them. If they have one, McNemar's test
    over the test images compares the two models.

    Args:
        findings: of the comparison.
        folder: of the comparison, from which the models' predictions are read.
    """
    results: dict[tuple[str | None, str, str], list[Result]] = defaultdict(list)
    for result in findings.results:
        results[result.arm, result.freeze, result.downstream].append(result)
    cells: dict[tuple[str, str, str], Cell] = {}
    for arm, freeze, downstream in itertools.product(findings.arms, findings.freezes, findings.downstreams):
        baseline = findings.arms[arm].baseline
        ours, reference = (results[name, freeze, downstream] for name in (arm, baseline))
        cell = Cell(arm, freeze, downstream, ours, baseline, reference, findings.paper_number(arm, freeze, downstream))
        cell.method, cell.p = _test(cell, folder)
        cells[arm, freeze, downstream] = cell
    tested = {place: cell.p for place, cell in cells.items() if cell.p is not None}
    for place, corrected in zip(tested, holm(list(tested.values())), strict=True):
        cells[place].p_corrected = corrected
    _mark_best(cells.values())
    return Table(findings, cells)


def _scores(results: Iterable[Result]) -> dict[int, float]:
    """Seed -> score, of the results that have one."""
    return {result.seed: result.score for result in results if result.score is not None}


def _test(cell: Cell, folder: Path) -> tuple[str | None, float | None]:
    """Method and p-value of the test against the baseline; None if there is too little to test."""
    if len(cell.pairs) > 1:
        p = paired_t(*cell.paired_scores)
        return (None, None) if p is None else (T_TEST, p)
    for first, second in cell.pairs:
        ours, theirs = _correct_images(first, folder), _correct_images(second, folder)
        if ours is not None and theirs is not None and len(ours) == len(theirs):
            return MCNEMAR, mcnemar(ours, theirs)
    return None, None


def _correct_images(result: Result, folder: Path) -> NDArray[np.bool_] | None:
    """Whether the predicted class of each test image is right, bool [n]; None if the predictions were not kept."""
    file = folder / str(result.folder) / "predictions.npz"
    if result.folder is None or result.metric != TOP_1 or not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as content:
        return np.asarray(content["predicted"] == content["label"])


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
    rows = [
        {
            "arm": cell.arm,
            "frozen": cell.freeze,
            "downstream": cell.downstream,
            "metric": table.findings.metric(cell.downstream),
            "seeds": len(cell.scores),
            "mean": cell.mean,
            "standard_deviation": cell.spread,
            "baseline": cell.baseline,
            "difference": cell.difference,
            "paired_seeds": len(cell.pairs) or None,
            "test": cell.method,
            "p": cell.p,
            "p_corrected": cell.p_corrected,
            "significant": "yes" if cell.significant else "",
            "paper": cell.paper,
            "error": cell.error,
        }
        for row in table.rows
        for cell in row
    ]
    return table_as_csv(list(rows[0]), rows) if rows else ""
