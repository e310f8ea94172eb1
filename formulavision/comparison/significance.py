"""Whether arms differ by more than chance, and whether their order is the paper's; on scipy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["ALPHA", "holm", "paired_t", "rank_correlation"]

ALPHA = 0.05
"""Level of significance."""

_ALIKE = 1e-12
"""Differences of scores (0..1) that differ by less are equal but for rounding."""


def paired_t(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired t-test.

    None where it says nothing: fewer than two pairs, or differences that are all the same, and not zero.
    """
    from scipy.special import stdtr

    differences = np.subtract(first, second)
    if len(differences) < 2:
        return None
    if np.ptp(differences) < _ALIKE:
        return 1.0 if abs(differences[0]) < _ALIKE else None
    # Student's t of the differences' mean: scipy.stats.ttest_rel takes a millisecond, and pairs are thousands.
    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(len(differences)))
    return float(2 * stdtr(len(differences) - 1, -abs(t)))


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
