"""Statistics of a comparison, by scipy: tests of differences between arms, and rank correlation with the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["ALPHA", "confidence_interval", "holm", "paired_t", "rank_correlation"]

ALPHA = 0.05
"""Level of significance."""

_EQUAL = 1e-12
"""Scores (0 to 1) that differ by less are taken to be equal: the difference is rounding."""


def paired_t(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired t-test.

    Returns:
        None if the test is undefined: for fewer than two pairs, or if all differences are equal and not zero.
    """
    from scipy.stats import ttest_rel

    differences = np.subtract(first, second)
    if len(differences) < 2:
        return None
    if np.ptp(differences) < _EQUAL:
        return 1.0 if abs(differences[0]) < _EQUAL else None
    return float(ttest_rel(first, second).pvalue)


def confidence_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean difference of pairs (Student's t); None where all differences are equal."""
    from scipy.stats import ttest_rel

    if len(first) < 2 or np.ptp(np.subtract(first, second)) < _EQUAL:
        return None
    low, high = ttest_rel(first, second).confidence_interval(1 - ALPHA)
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979)."""
    values = np.asarray(p_values, float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    return [float(p) for p in np.minimum(corrected, 1)]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs, or if all values of one side are equal."""
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(spearmanr(first, second).statistic)
