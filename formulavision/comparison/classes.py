"""The classes on which one arm beats another (the paper's table 10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from formulavision.comparison.results import Entry, Findings
from formulavision.comparison.significance import paired_t
from formulavision.util.errors import FormulaVisionError

if TYPE_CHECKING:
    from formulavision.evaluation import ClassDifference

from formulavision.util.text import csv_text

__all__ = ["ClassLine", "Classes", "by_class", "classes_csv"]


@dataclass(frozen=True)
class ClassLine:
    """One class: accuracy (average precision, with several labels an image), shares of 1, mean over seeds.

    Attributes:
        arm, baseline: of the two models.
        difference: of the first less the second.
        p: two-sided p-value, not corrected for the number of classes: of McNemar's exact test on the class's images
            or, of several seeds, of the paired t-test over them; None where there is none.
    """

    name: str
    arm: float
    baseline: float
    p: float | None

    @property
    def difference(self) -> float:
        return self.arm - self.baseline


@dataclass(frozen=True)
class Classes:
    """The classes on which an arm differs from its baseline, on one downstream.

    Attributes:
        lines: all classes, by falling difference.
        problem: why there are none, in one line.
    """

    arm: str
    baseline: str
    downstream: str
    freeze: str
    lines: tuple[ClassLine, ...] = ()
    problem: str = ""

    @property
    def better(self) -> list[ClassLine]:
        """The greatest difference first, as in ``worse``."""
        return [line for line in self.lines if line.difference > 0]

    @property
    def worse(self) -> list[ClassLine]:
        return [line for line in reversed(self.lines) if line.difference < 0]


def by_class(findings: Findings, folder: Path, arms: Iterable[str]) -> list[Classes]:
    """Of each arm against its baseline on each downstream.

    Fine-tuned models are compared with the fewest layers frozen that both have.
    """
    result = []
    for downstream in findings.downstreams:
        for arm in arms:
            baseline = findings.arms[arm].baseline
            if baseline is None:
                continue
            for freeze in findings.by_frozen:
                pairs = _pairs(findings, arm, baseline, freeze, downstream)
                if pairs:
                    result.append(_compare(pairs, folder, Classes(arm, baseline, downstream, freeze)))
                    break
    return result


def _pairs(findings: Findings, arm: str, baseline: str, freeze: str, downstream: str) -> list[tuple[Entry, Entry]]:
    """Models of the same seed."""
    ours, theirs = (
        {e.row.seed: e for e in findings.select(name, freeze, downstream) if e.row.score is not None and e.folder}
        for name in (arm, baseline)
    )
    return [(entry, theirs[seed]) for seed, entry in ours.items() if seed in theirs]


def _compare(pairs: list[tuple[Entry, Entry]], folder: Path, classes: Classes) -> Classes:
    from formulavision.evaluation import per_class_difference

    found: dict[str, list[ClassDifference]] = {}
    try:
        for ours, theirs in pairs:
            for each in per_class_difference(folder / str(ours.folder), folder / str(theirs.folder)):
                found.setdefault(each.name, []).append(each)
    except FormulaVisionError as error:
        # Runs that are not at hand leave a line; the rest of the report is made of the findings.
        return replace(classes, problem=str(error))
    lines = [_line(name, differences) for name, differences in found.items()]
    lines.sort(key=lambda line: -line.difference)
    return replace(classes, lines=tuple(lines))


def _line(name: str, differences: list[ClassDifference]) -> ClassLine:
    """One class over the seeds."""
    ours, theirs = [d.first for d in differences], [d.second for d in differences]
    p = differences[0].p if len(differences) == 1 else paired_t(ours, theirs)
    return ClassLine(name, fmean(ours), fmean(theirs), p)


def classes_csv(found: Iterable[Classes]) -> str:
    """A line a class, arm and downstream; shares from 0 to 1, p-values not corrected for the number of classes."""
    rows: list[list[str]] = [
        ["arm", "baseline", "downstream", "frozen", "class", "score", "baseline_score", "difference", "p"]
    ]
    for each in found:
        where = (each.arm, each.baseline, each.downstream, each.freeze)
        for line in each.lines:
            numbers = (line.arm, line.baseline, line.difference, line.p)
            rows.append([*where, line.name, *("" if number is None else f"{number:.6g}" for number in numbers)])
    return csv_text(rows)
