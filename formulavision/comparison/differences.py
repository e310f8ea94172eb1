"""Arms that differ by more than chance, by paired tests over seeds; of one seed, models that differ on test images."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from formulavision.comparison.config import PROBE
from formulavision.comparison.results import TOP_1, Findings
from formulavision.comparison.significance import ALPHA, holm, paired_t
from formulavision.evaluation.differences import mcnemar

__all__ = [
    "MCNEMAR",
    "T_TEST",
    "Difference",
    "Right",
    "between_arms",
    "from_baseline",
    "matrix_places",
    "right_images",
    "star",
]

T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"

Right = NDArray[np.bool_]
"""Of each test image, whether the model's class is right."""

_NAMED = 8
"""Pairs of arms that a sentence names."""

Place = tuple[str, str]
"""Frozen layers and downstream."""


@dataclass(frozen=True)
class Difference:
    """One arm against another.

    Attributes:
        downstream, freeze: where; None: the mean of several places.
        difference: mean of ``arm`` less that of ``other`` over the pairs, as shares of 1.
        pairs: how many results were paired, a seed each; of McNemar's test the images.
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
    def beyond_chance(self) -> bool:
        """Whether the test rejects chance: over seeds for the arms, over images for these trained models alone."""
        return self.corrected is not None and self.corrected < ALPHA

    @property
    def significant(self) -> bool:
        """Whether the arms differ beyond chance, which one seed cannot tell."""
        return self.method == T_TEST and self.beyond_chance


def from_baseline(findings: Findings, folder: Path) -> dict[tuple[str, str, str], Difference]:
    """Each cell of the table against the baseline with the same layers frozen: (arm, frozen, downstream) -> test.

    Args:
        findings: of the comparison.
        folder: the comparison's, in which the predictions of its models are.
    """
    results = _Results(findings, folder)
    found: dict[tuple[str, str, str], Difference] = {}
    for name, arm in findings.arms.items():
        if arm.baseline is None:
            continue
        for place, seeds in results.shared(
            name, arm.baseline, itertools.product(findings.freezes, findings.downstreams)
        ):
            if len(seeds) > 1:
                found[name, *place] = results.over_seeds(name, arm.baseline, [place], seeds, place)
            else:
                found[name, *place] = results.over_images(name, arm.baseline, place, seeds[0])
    return dict(zip(found, _corrected(list(found.values())), strict=True))


def between_arms(findings: Findings, folder: Path) -> list[Difference]:
    """Every arm against every other.

    Two arms that share several seeds are compared by one number, their mean over the places that both have at each of
    these seeds. Within a seed all places start from the same pre-training, so that a seed is one pair, however many
    places it has.

    Of arms that share one seed there is a difference for each downstream, because there the images are what is
    counted, each of them once: with the fewest layers frozen that both have.
    """
    results = _Results(findings, folder)
    places = matrix_places(findings)
    found: list[Difference] = []
    for arm, other in itertools.combinations(findings.arms, 2):
        shared = results.shared(arm, other, places)
        most = max((seeds for _, seeds in shared), key=len, default=[])
        if len(most) > 1:
            everywhere = [place for place, seeds in shared if set(most) <= set(seeds)]
            found.append(results.over_seeds(arm, other, everywhere, most, None))
            continue
        first: dict[str, tuple[Place, int]] = {}
        for place, seeds in shared:
            first.setdefault(place[1], (place, seeds[0]))
        found += [results.over_images(arm, other, place, seed) for place, seed in first.values()]
    return _corrected(found)


def matrix_places(findings: Findings) -> list[Place]:
    """Where arms are compared with each other: fine-tuned models, or probes where none is fine-tuned.

    Frozen features are told apart from fine-tuned models, since arms from scratch have none.
    """
    finetuned = [freeze for freeze in findings.by_frozen if not freeze.endswith(PROBE)]
    return list(itertools.product(finetuned or findings.by_frozen, findings.downstreams))


class _Results:
    """Scores and predictions of a comparison, each looked up once: an arm is compared with all others."""

    def __init__(self, findings: Findings, folder: Path) -> None:
        self.findings = findings
        self.folder = folder
        self.scores = functools.cache(findings.scores)
        self.right = functools.cache(self._right)

    def _right(self, arm: str, place: Place, seed: int) -> Right | None:
        entry = next(entry for entry in self.findings.select(arm, *place) if entry.row.seed == seed)
        known = entry.folder is not None and entry.row.metric == TOP_1
        return right_images(self.folder / str(entry.folder)) if known else None

    def shared(self, arm: str, other: str, places: Iterable[Place]) -> list[tuple[Place, list[int]]]:
        """The seeds at which two arms both have a result, by the place; no place without one."""
        result = []
        for place in places:
            ours, theirs = self.scores(arm, *place), self.scores(other, *place)
            seeds = [seed for seed in ours if seed in theirs]
            if seeds:
                result.append((place, seeds))
        return result

    def over_seeds(
        self, arm: str, other: str, places: Sequence[Place], seeds: Sequence[int], where: Place | None
    ) -> Difference:
        """Two arms by the t-test over seeds, of each of which the mean over the places counts."""
        ours, theirs = (
            [fmean(scores[seed] for scores in of_places) for seed in seeds]
            for of_places in ([self.scores(name, *place) for place in places] for name in (arm, other))
        )
        freeze, downstream = where or (None, None)
        p = paired_t(ours, theirs)
        method = T_TEST if p is not None else None
        return Difference(arm, other, downstream, freeze, fmean(ours) - fmean(theirs), len(seeds), method, p)

    def over_images(self, arm: str, other: str, place: Place, seed: int) -> Difference:
        """Two arms at one place and one seed, by McNemar's test; without one where it is not known who is right."""
        freeze, downstream = place
        difference = self.scores(arm, *place)[seed] - self.scores(other, *place)[seed]
        one, two = self.right(arm, place, seed), self.right(other, place, seed)
        if one is None or two is None or len(one) != len(two):
            return Difference(arm, other, downstream, freeze, difference, 1, None, None)
        return Difference(arm, other, downstream, freeze, difference, len(one), MCNEMAR, mcnemar(one, two))


def right_images(folder: Path) -> Right | None:
    """Which test images the model of a run got right, as ``evaluate`` left it; None where it did not."""
    file = folder / "predictions.npz"
    try:
        changed = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(file, changed.st_mtime_ns, changed.st_size)


@functools.lru_cache(maxsize=4096)
def _read(file: Path, mtime_ns: int, size: int) -> Right:
    """Read once for all arms that a model is compared with, and again where the file has changed."""
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


def star(findings: Findings, differences: Sequence[Difference]) -> list[str]:
    """What the star beside a difference says, or that there is none, and what is not tested; sentences."""
    sentences = []
    holm = f"p < {ALPHA} after Holm's correction"
    if any(difference.method == T_TEST for difference in differences):
        marked = any(difference.significant for difference in differences)
        verdict = "* is a difference beyond chance" if marked else "No difference is beyond chance"
        sentences.append(f"{verdict}: {T_TEST} over seeds, {holm}.")
    of_images = [difference for difference in differences if difference.method == MCNEMAR]
    if of_images:
        apart = [
            f"{d.arm} and {d.other}"
            + (f" ({d.downstream}, frozen: {d.freeze})" if d.freeze != "none" else f" ({d.downstream})")
            for d in of_images
            if d.beyond_chance
        ]
        models = "no two of the single trained models differ"
        if apart:
            more = f" and {len(apart) - _NAMED} other pairs" if len(apart) > _NAMED else ""
            models = f"the single trained models of these arms differ: {', '.join(apart[:_NAMED])}{more}"
        sentences += [
            "A difference of one seed is not marked: it says nothing about how much other seeds differ.",
            f"On these test images, {models} ({MCNEMAR} over the images, {holm}).",
        ]
    without = dict.fromkeys(
        d.downstream
        for d in differences
        if d.method is None and d.downstream and findings.metric(d.downstream) != TOP_1
    )
    if without:
        sentences.append(
            f"{', '.join(without)} cannot be tested with one seed: an image of several labels is not right or wrong."
        )
    return sentences
