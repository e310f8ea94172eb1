"""How soon each arm gets there: the first epoch of fine-tuning that reaches an accuracy (the paper's figure 1b)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from formulavision.comparison.results import TOP_1, Findings, mean

__all__ = ["Reached", "reached"]

_STEPS = (10, 5)
"""Per cent between the levels that are chosen: coarse, or finer where that leaves fewer than three."""
_ENOUGH = 3

Curves = Mapping[str, Sequence[Sequence[float | None]]]
"""By arm, a seed each, the accuracy after every epoch, 0 to 1; None where it was not measured."""


@dataclass(frozen=True)
class Reached:
    """When one arm reached one accuracy on one downstream.

    Attributes:
        level: the accuracy on the downstream's test images, 0 to 1.
        epoch: the first that reached it, counted from 1, mean over the seeds that did; None where none did.
        seeds: how many seeds reached it.
        of: how many seeds there are.
    """

    arm: str
    freeze: str
    downstream: str
    level: float
    epoch: float | None
    seeds: int
    of: int

    @property
    def text(self) -> str:
        """``12``, ``12.5``, ``12 (1 of 2 seeds)``, or ``never``."""
        if self.epoch is None:
            return "never"
        epoch = f"{self.epoch:.0f}" if self.epoch == round(self.epoch) else f"{self.epoch:.1f}"
        return epoch if self.seeds == self.of else f"{epoch} ({self.seeds} of {self.of} seeds)"


def reached(findings: Findings) -> list[Reached]:
    """First epochs by downstream, frozen layers, arm and accuracy; none of arms without a curve.

    The accuracies are ``findings.reach``, or those multiples of 10 (or 5) per cent that at least two arms reach and
    not all of them in their first epoch. With several labels an image a curve is of labels told right, not of the
    downstream's score, and tells nothing here.
    """
    result: list[Reached] = []
    downstreams = [downstream for downstream in findings.downstreams if findings.metric(downstream) == TOP_1]
    for downstream, freeze in itertools.product(downstreams, findings.by_frozen):
        curves = {arm: found for arm in findings.arms if (found := _curves(findings, arm, freeze, downstream))}
        levels = _levels(curves) if findings.reach is None else findings.reach
        for (arm, runs), level in itertools.product(curves.items(), levels):
            epochs = [epoch for run in runs if (epoch := _first(run, level)) is not None]
            result.append(Reached(arm, freeze, downstream, level, mean(epochs), len(epochs), len(runs)))
    return result


def _curves(findings: Findings, arm: str, freeze: str, downstream: str) -> list[list[float | None]]:
    entries = findings.select(arm, freeze, downstream)
    runs = [[epoch.get("validation_accuracy") for epoch in entry.history] for entry in entries]
    return [run for run in runs if any(accuracy is not None for accuracy in run)]


def _levels(curves: Curves) -> list[float]:
    levels: list[float] = []
    for step in _STEPS:
        levels = [percent / 100 for percent in range(step, 101, step) if _tells_apart(curves, percent / 100)]
        if len(levels) >= _ENOUGH:
            break
    return levels


def _tells_apart(curves: Curves, level: float) -> bool:
    """Whether at least two arms, where there are two, reach a level, and not all of them in their first epoch."""
    there = [arm for arm, runs in curves.items() if any(_first(run, level) is not None for run in runs)]
    at_once = all(_first(run, level) == 1 for runs in curves.values() for run in runs)
    return len(there) >= min(2, len(curves)) > 0 and not at_once


def _first(run: Sequence[float | None], level: float) -> int | None:
    there = ((epoch, accuracy) for epoch, accuracy in enumerate(run, start=1) if accuracy is not None)
    return next((epoch for epoch, accuracy in there if accuracy >= level), None)
