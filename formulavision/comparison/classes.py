"""The classes on which an arm does better, and worse, than its baseline (the paper's table 10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from formulavision.comparison.results import table_as_csv
from formulavision.comparison.significance import paired_t
from formulavision.comparison.tables import Cell, Table, evaluated_again
from formulavision.util.errors import ConfigError, FormulaVisionError

if TYPE_CHECKING:
    from formulavision.evaluation import ClassDifference

__all__ = ["ByClass", "by_class", "classes_csv"]


@dataclass(frozen=True)
class ByClass:
    """The classes of one downstream, compared between an arm and its baseline.

    Attributes:
        cell: the arm, its baseline, the downstream and the frozen layers.
        classes: accuracies (average precisions, with several labels an image) of the arm (``first``) and the baseline
            (``second``), 0 to 1, mean over seeds, by falling difference. With one seed, p is of McNemar's exact test on
            the class's images; with several, of the paired t-test over seeds. It is not corrected for the number of
            classes.
        problem: why the classes cannot be compared, in one line.
    """

    cell: Cell
    classes: tuple[ClassDifference, ...] = ()
    problem: str = ""

    @property
    def better(self) -> list[ClassDifference]:
        """Classes on which the arm does better, the greatest difference first."""
        return [each for each in self.classes if each.difference > 0]

    @property
    def worse(self) -> list[ClassDifference]:
        """Classes on which the arm does worse, the greatest difference first."""
        return [each for each in reversed(self.classes) if each.difference < 0]


def by_class(table: Table, folder: Path, arms: Iterable[str]) -> list[ByClass]:
    """Compare each arm with its baseline on each downstream, with the fewest layers frozen that both have.

    Args:
        folder: of the comparison, from which the evaluations are read.
    """
    result = []
    for downstream in table.findings.downstreams:
        for arm in arms:
            cells = (table.cells[arm, freeze, downstream] for freeze in table.findings.by_frozen)
            cell = next((cell for cell in cells if any(a.folder and b.folder for a, b in cell.pairs)), None)
            if cell is not None:
                result.append(_of_cell(cell, folder))
    return result


def _of_cell(cell: Cell, folder: Path) -> ByClass:
    from formulavision.evaluation import per_class_difference

    by_name: dict[str, list[ClassDifference]] = {}
    try:
        for ours, theirs in cell.pairs:
            if ours.folder and theirs.folder:
                if evaluated_again(ours, folder) or evaluated_again(theirs, folder):
                    raise ConfigError(f"{ours.folder}, {theirs.folder}: were evaluated again, on other images")
                for each in per_class_difference(folder / ours.folder, folder / theirs.folder):
                    by_name.setdefault(each.name, []).append(each)
    except FormulaVisionError as error:
        # Runs that are not there leave a line; the rest of the report is made of the findings.
        return ByClass(cell, problem=str(error))
    classes = sorted((_over_seeds(each) for each in by_name.values()), key=lambda each: -each.difference)
    return ByClass(cell, tuple(classes))


def _over_seeds(seeds: list[ClassDifference]) -> ClassDifference:
    """One class, mean over seeds."""
    if len(seeds) == 1:
        return seeds[0]
    ours, theirs = [each.first for each in seeds], [each.second for each in seeds]
    first, second = fmean(ours), fmean(theirs)
    return replace(seeds[0], first=first, second=second, difference=first - second, p=paired_t(ours, theirs))


def classes_csv(found: Iterable[ByClass]) -> str:
    """A row for each class, arm and downstream; shares from 0 to 1; p is not corrected for the number of classes."""
    rows = [
        {
            "arm": each.cell.arm,
            "baseline": each.cell.baseline,
            "downstream": each.cell.downstream,
            "frozen": each.cell.freeze,
            "class": one.name,
            "score": one.first,
            "baseline_score": one.second,
            "difference": one.difference,
            "p": one.p,
        }
        for each in found
        for one in each.classes
    ]
    return table_as_csv(list(rows[0]), rows) if rows else ""
