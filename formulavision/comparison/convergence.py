"""The first epoch of fine-tuning that reaches an accuracy, by arm (the paper's figure 1b)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from formulavision.comparison.results import TOP_1
from formulavision.comparison.tables import Cell, Table, mean

__all__ = ["FirstEpochs", "first_epochs"]

_STEPS = (10, 5)
"""Per cent between the levels that are chosen: coarse, or fine where the coarse ones are fewer than ``_ENOUGH``."""
_ENOUGH = 3

AccuracyByEpoch = Sequence[float | None]
"""Accuracy after every epoch, 0 to 1; None where it was not measured."""


@dataclass(frozen=True)
class FirstEpochs:
    """A table of one downstream and choice of frozen layers.

    Attributes:
        levels: accuracies, 0 to 1.
        epochs: by arm, the first epoch that reaches each level, in words: ``12``, ``12.5``, ``12 (1 of 2 seeds)``,
            ``never``; counted from 1, the mean over the seeds that reach it.
    """

    downstream: str
    freeze: str
    levels: list[float]
    epochs: dict[str, list[str]]


def first_epochs(table: Table) -> list[FirstEpochs]:
    """First epochs by downstream and frozen layers, of arms with a curve; no table without levels.

    The levels are ``findings.reach``, or those multiples of 10 (or 5) per cent that at least two arms reach and not all
    of them in their first epoch. With several labels an image a curve is the accuracy of labels, not the downstream's
    score, and is left out.
    """
    findings = table.findings
    result: list[FirstEpochs] = []
    downstreams = [downstream for downstream in findings.downstreams if findings.metric(downstream) == TOP_1]
    for downstream, freeze in itertools.product(downstreams, findings.by_frozen):
        every = {arm: _curves(table.cell(arm, freeze, downstream)) for arm in findings.arms}
        curves = {arm: runs for arm, runs in every.items() if runs}
        levels = _levels(curves) if findings.reach is None else findings.reach
        if curves and levels:
            epochs = {
                arm: [_words([_first(run, level) for run in runs]) for level in levels] for arm, runs in curves.items()
            }
            result.append(FirstEpochs(downstream, freeze, levels, epochs))
    return result


def _curves(cell: Cell) -> list[AccuracyByEpoch]:
    runs = [[epoch.get("validation_accuracy") for epoch in result.history] for result in cell.results]
    return [run for run in runs if any(accuracy is not None for accuracy in run)]


def _levels(curves: Mapping[str, Sequence[AccuracyByEpoch]]) -> list[float]:
    levels: list[float] = []
    for step in _STEPS:
        levels = [percent / 100 for percent in range(step, 101, step) if _distinguishes(curves, percent / 100)]
        if len(levels) >= _ENOUGH:
            break
    return levels


def _distinguishes(curves: Mapping[str, Sequence[AccuracyByEpoch]], level: float) -> bool:
    """Whether at least two arms, where there are two, reach a level, and not all of them in their first epoch."""
    firsts = {arm: [_first(run, level) for run in runs] for arm, runs in curves.items()}
    reaching = [arm for arm, epochs in firsts.items() if any(epoch is not None for epoch in epochs)]
    at_once = all(epoch == 1 for epochs in firsts.values() for epoch in epochs)
    return len(reaching) >= min(2, len(curves)) > 0 and not at_once


def _first(run: AccuracyByEpoch, level: float) -> int | None:
    """First epoch, counted from 1, whose accuracy is at least ``level``."""
    reaching = (i for i, accuracy in enumerate(run, start=1) if accuracy is not None and accuracy >= level)
    return next(reaching, None)


def _words(epochs: Sequence[int | None]) -> str:
    """Mean over the seeds that reach a level, and how many they are where not all do."""
    reached = [epoch for epoch in epochs if epoch is not None]
    if not reached:
        return "never"
    text = f"{mean(reached):.1f}".removesuffix(".0")
    return text if len(reached) == len(epochs) else f"{text} ({len(reached)} of {len(epochs)} seeds)"
