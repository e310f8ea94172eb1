"""Whether arms differ by more than chance, and whether their order is the paper's; on scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA", "holm", "mcnemar", "paired_t", "rank_correlation"]

ALPHA = 0.05
"""Level of significance."""

_ALIKE = 1e-12
"""Differences of scores (0..1) that differ by less are equal but for rounding."""


def paired_t(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired t-test.

    None where it says nothing: fewer than two pairs, or differences that are all the same, and not zero.
    """
    from scipy.stats import ttest_rel

    differences = np.subtract(first, second)
    if len(differences) < 2:
        return None
    if np.ptp(differences) < _ALIKE:
        return 1.0 if abs(differences[0]) < _ALIKE else None
    return float(ttest_rel(first, second).pvalue)


def mcnemar(first: Sequence[bool] | NDArray[np.bool_], second: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test of two models on the same images.

    Among the images that one of them alone gets right, either would be the one in half of the cases (McNemar, 1947;
    Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms", 1998).

    Args:
        first, second: image by image, whether the model's class is right.

    Raises:
        ValueError: they are not of the same images.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise ValueError(f"results of {len(first)} images and {len(second)} cannot be paired")
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    alone, other_alone = int((one & ~other).sum()), int((other & ~one).sum())
    if alone + other_alone == 0:
        return 1.0
    return float(binomtest(alone, alone + other_alone, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs, or where one side has no order."""
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(spearmanr(first, second).statistic)
