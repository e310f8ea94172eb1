"""Which arms differ by more than chance: paired tests over seeds, or over test images where there is one seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formulavision.comparison.results import TOP_1, Findings
from formulavision.comparison.significance import ALPHA, holm, paired_t
from formulavision.evaluation.differences import mcnemar

__all__ = ["MCNEMAR", "T_TEST", "Difference", "Right", "between_arms", "explanation", "from_baseline", "right_images"]

T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"

Right = NDArray[np.bool_]
"""Of each test image, whether the model's class is right."""


@dataclass(frozen=True)
class Difference:
    """One arm against another.

    Attributes:
        downstream, freeze: where; None: everywhere that both have results.
        difference: mean of ``arm`` less that of ``other`` over the pairs, as shares of 1.
        pairs: how many results were paired; of McNemar's test the images.
        method: the test; None where there is too little to test.
        p: two-sided p-value; None where there is none.
        corrected: the same after Holm's correction for all tests of its kind here.
    """

    arm: str
    other: str
    downstream: str | None
    freeze: str | None
    difference: float
    pairs: int
    method: str | None
    p: float | None
    corrected: float | None = None

    @property
    def significant(self) -> bool:
        return self.corrected is not None and self.corrected < ALPHA


def from_baseline(findings: Findings, folder: Path) -> dict[tuple[str, str, str], Difference]:
    """Each cell of the table against the baseline with the same layers frozen: (arm, frozen, downstream) -> test.

    Args:
        findings: of the comparison.
        folder: the comparison's, in which the predictions of its models are.
    """
    found: dict[tuple[str, str, str], Difference] = {}
    for name, arm in findings.arms.items():
        for freeze, downstream in itertools.product(findings.freezes, findings.downstreams):
            if arm.baseline is not None:
                places = [(freeze, downstream)]
                difference = _compare(findings, folder, name, arm.baseline, places, downstream, freeze)
                if difference is not None:
                    found[name, freeze, downstream] = difference
    return dict(zip(found, _corrected(list(found.values())), strict=True))


def between_arms(findings: Findings, folder: Path) -> list[Difference]:
    """Every arm against every other, over all (seed, downstream, frozen layers) that both have."""
    # Other layers of the same model on the same images are no further evidence on images: one choice of them there.
    freezes = findings.freezes if len(findings.seeds) > 1 else findings.freezes[:1]
    places = list(itertools.product(freezes, findings.downstreams))
    found = (
        _compare(findings, folder, arm, other, places, None, None)
        for arm, other in itertools.combinations(findings.arms, 2)
    )
    return _corrected([difference for difference in found if difference is not None])


def _compare(
    findings: Findings,
    folder: Path,
    arm: str,
    other: str,
    places: Sequence[tuple[str, str]],
    downstream: str | None,
    freeze: str | None,
) -> Difference | None:
    """Two arms over the pairs that both have in ``places``; None where they have none."""
    ours: list[float] = []
    theirs: list[float] = []
    seeds: set[int] = set()
    for place in places:
        one, two = findings.scores(arm, *place), findings.scores(other, *place)
        both = [seed for seed in one if seed in two]
        ours += [one[seed] for seed in both]
        theirs += [two[seed] for seed in both]
        seeds.update(both)
    if not ours:
        return None
    difference = float(np.mean(np.subtract(ours, theirs)))
    if len(seeds) > 1:
        p = paired_t(ours, theirs)
        return Difference(arm, other, downstream, freeze, difference, len(ours), T_TEST if p is not None else None, p)
    pair = _images(findings, folder, arm, other, places)
    if pair is None:
        return Difference(arm, other, downstream, freeze, difference, len(ours), None, None)
    p = mcnemar(*pair)
    return Difference(arm, other, downstream, freeze, difference, len(pair[0]), MCNEMAR, p)


def _images(
    findings: Findings, folder: Path, arm: str, other: str, places: Iterable[tuple[str, str]]
) -> tuple[Right, Right] | None:
    """Image by image, which of them two arms of one seed get right; None where that is not known."""
    sides: tuple[list[Right], list[Right]] = ([], [])
    for place in places:
        entries = findings.select(arm, *place), findings.select(other, *place)
        seeds = [{e.row.seed: e for e in side if e.row.score is not None} for side in entries]
        for seed in seeds[0].keys() & seeds[1].keys():
            pair = [_right_of(folder, side[seed].folder, side[seed].row.metric) for side in seeds]
            if pair[0] is None or pair[1] is None or len(pair[0]) != len(pair[1]):
                return None
            sides[0].append(pair[0])
            sides[1].append(pair[1])
    return (np.concatenate(sides[0]), np.concatenate(sides[1])) if sides[0] else None


def _right_of(folder: Path, where: str | None, metric: str | None) -> Right | None:
    return right_images(folder / where) if where is not None and metric == TOP_1 else None


def right_images(folder: Path) -> Right | None:
    """Which test images the model of a run got right, as ``evaluate`` left it; None where it did not."""
    file = folder / "predictions.npz"
    if not file.is_file():
        return None
    with np.load(file, allow_pickle=False) as content:
        return np.asarray(content["predicted"] == content["label"])


def _corrected(differences: list[Difference]) -> list[Difference]:
    """With p-values after Holm's correction for the number of those that were tested."""
    tested = [i for i, difference in enumerate(differences) if difference.p is not None]
    p_values = [p for difference in differences if (p := difference.p) is not None]
    result = list(differences)
    for i, corrected in zip(tested, holm(p_values), strict=True):
        result[i] = replace(result[i], corrected=corrected)
    return result


def explanation(differences: Iterable[Difference]) -> str:
    """How the differences were tested, in a sentence; empty where none was."""
    methods = list(dict.fromkeys(d.method for d in differences if d.method))
    if not methods:
        return ""
    over: dict[str, str] = {T_TEST: f"{T_TEST} over seeds", MCNEMAR: f"{MCNEMAR} over the test images of one seed"}
    return f"{' and '.join(over[m] for m in methods)}, p < {ALPHA} after Holm's correction"
