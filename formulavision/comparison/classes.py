"""The classes on which one arm beats another (the paper's table 10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from formulavision.comparison.results import Entry, Findings
from formulavision.errors import FormulaVisionError

if TYPE_CHECKING:
    from formulavision.evaluation import ClassDifference

__all__ = ["ClassLine", "Classes", "by_class"]

_MOST = 10


@dataclass(frozen=True)
class ClassLine:
    """One class: accuracy (average precision, with several labels an image), shares of 1, mean over seeds.

    Attributes:
        arm, baseline: of the two models.
        difference: of the first less the second.
    """

    name: str
    arm: float
    baseline: float

    @property
    def difference(self) -> float:
        return self.arm - self.baseline


@dataclass(frozen=True)
class Classes:
    """The classes on which an arm differs most from its baseline, on one downstream.

    Attributes:
        better, worse: ten each at most, the greatest difference first.
        problem: why there are none, in one line.
    """

    arm: str
    baseline: str
    downstream: str
    freeze: str
    better: tuple[ClassLine, ...] = ()
    worse: tuple[ClassLine, ...] = ()
    problem: str = ""


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
            for freeze in findings.freezes:
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
    lines = [
        ClassLine(name, fmean(d.first for d in differences), fmean(d.second for d in differences))
        for name, differences in found.items()
    ]
    lines.sort(key=lambda line: -line.difference)
    return replace(
        classes,
        better=tuple(line for line in lines if line.difference > 0)[:_MOST],
        worse=tuple(line for line in reversed(lines) if line.difference < 0)[:_MOST],
    )
