"""The first epoch, or step, of fine-tuning that reaches a score, by arm (the paper's figure 1b)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from formulavision.comparison.results import Result
from formulavision.comparison.tables import Cell, Table
from formulavision.training.runs import unit_of, when

__all__ = ["FirstEpochs", "catching_up", "first_epochs"]

_STEPS = (10, 5)
"""Per cent between the levels that are chosen: coarse, or fine if the coarse ones are fewer than ``_ENOUGH``."""
_ENOUGH = 3

ScoreByEpoch = Sequence[tuple[int, float | None]]
"""Number of every epoch (in a run of steps, of the step after every interval), and the score after it, 0 to 1; None if
it was not measured."""


@dataclass(frozen=True)
class FirstEpochs:
    """A table for one downstream and choice of frozen layers.

    Attributes:
        unit: ``epoch`` or ``step``.
        levels: scores, 0 to 1.
        epochs: arm -> first epoch, or step, that reaches each level, in words: ``12``, ``12.5``, ``12 (1 of 2 seeds)``,
            ``never``; counted from 1, the mean over the seeds that reach it.
    """

    downstream: str
    freeze: str
    unit: str
    levels: list[float]
    epochs: dict[str, list[str]]


def first_epochs(table: Table) -> list[FirstEpochs]:
    """First epochs by downstream and frozen layers, of arms with a curve; no table without levels.

    The levels are ``findings.reach``. If that is None, they are those multiples of 10 (or 5) per cent that at least two
    arms reach, and not all of them in their first epoch.
    """
    findings = table.findings
    result: list[FirstEpochs] = []
    for downstream, freeze in itertools.product(findings.downstreams, findings.by_frozen):
        column = findings.curve(downstream)
        every = {arm: _curves(table.cells[arm, freeze, downstream], column) for arm in findings.arms}
        curves = {arm: runs for arm, runs in every.items() if runs}
        levels = _levels(curves) if findings.reach is None else findings.reach
        if curves and levels:
            epochs = {arm: [_words(_firsts(runs, level)) for level in levels] for arm, runs in curves.items()}
            unit = unit_of(r.history for arm in curves for r in table.cells[arm, freeze, downstream].results)
            result.append(FirstEpochs(downstream, freeze, unit, levels, epochs))
    return result


def catching_up(pairs: Sequence[tuple[Result, Result]], column: str) -> tuple[int, int, int] | None:
    """The first epochs in which an arm, and its baseline, have the baseline's final score; and the last epoch.

    In runs of steps, these are numbers of steps.

    Args:
        pairs: results of the arm and of its baseline, a pair a seed; their scores are averaged over seeds.
        column: of the histories, with the score after each epoch.

    Returns:
        None where curves are missing or of different epochs, or where the arm does not reach that score.
    """
    moments = {tuple(when(row) for row in result.history) for pair in pairs for result in pair}
    sides = [[[row.get(column) for row in result.history] for result in side] for side in zip(*pairs, strict=True)]
    if len(moments) != 1 or () in moments or any(None in run for side in sides for run in side):
        return None
    numbers = [number for _, number in moments.pop()]
    ours, theirs = (np.array(side, float).mean(axis=0) for side in sides)
    first, own = (np.flatnonzero(curve >= theirs[-1]) for curve in (ours, theirs))
    return (numbers[first[0]], numbers[own[0]], numbers[-1]) if len(first) else None


def _scores(result: Result, column: str) -> ScoreByEpoch:
    return [(when(row)[1], row.get(column)) for row in result.history]


def _curves(cell: Cell, column: str) -> list[ScoreByEpoch]:
    """Scores by epoch, a curve a seed."""
    runs = [_scores(result, column) for result in cell.results]
    return [run for run in runs if any(score is not None for _, score in run)]


def _levels(curves: Mapping[str, Sequence[ScoreByEpoch]]) -> list[float]:
    levels: list[float] = []
    for step in _STEPS:
        levels = [percent / 100 for percent in range(step, 101, step) if _distinguishes(curves, percent / 100)]
        if len(levels) >= _ENOUGH:
            break
    return levels


def _distinguishes(curves: Mapping[str, Sequence[ScoreByEpoch]], level: float) -> bool:
    """Whether at least two arms, if there are two, reach a level, and not all of them in their first epoch."""
    firsts = [_firsts(runs, level) for runs in curves.values()]
    reaching = sum(any(epoch is not None for epoch in epochs) for epochs in firsts)
    at_once = firsts == [[run[0][0] for run in runs] for runs in curves.values()]
    return reaching >= min(2, len(curves)) > 0 and not at_once


def _firsts(runs: Sequence[ScoreByEpoch], level: float) -> list[int | None]:
    """First epoch of each run, counted from 1, whose score is at least ``level``; None if there is none."""
    reaching = ((number for number, score in run if (score or 0) >= level) for run in runs)
    return [next(epochs, None) for epochs in reaching]


def _words(epochs: Sequence[int | None]) -> str:
    """Mean over the seeds that reach a level, and how many they are if not all do."""
    reached = [epoch for epoch in epochs if epoch is not None]
    if not reached:
        return "never"
    text = f"{fmean(reached):.1f}".removesuffix(".0")
    return text if len(reached) == len(epochs) else f"{text} ({len(reached)} of {len(epochs)} seeds)"
