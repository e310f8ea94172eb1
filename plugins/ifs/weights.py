"""Weights: the factors by which an instance multiplies a to f of its category's system (paper, section 3.3)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["FLIPS", "continuous_weights", "numbers_per_instance", "weight_table"]

FLIPS = 4
"""Number of flips: 0 none, 1 top-bottom, 2 left-right, 3 both."""


def weight_table(interval: float) -> Float64[np.ndarray, "rows 6"]:
    """The published table of weights of a to f: each row changes one of them, and one row changes none.

    The weights are 1 - 2 i, 1 - i, 1, 1 + i and 1 + 2 i for the interval i, in the order of the published tables. At
    interval 0.5 the lowest weight is 0.01 (paper, section 4.1).

    Args:
        interval: step between two weights; 0 gives one row of ones.

    Returns:
        25 rows, or 1.
    """
    if interval == 0:
        return np.ones((1, 6))
    levels = [round(1 + step * interval, 10) for step in (-2, -1, 0, 1, 2)]
    levels[0] = max(levels[0], 0.01)
    rows = []
    for parameter in range(6):
        for level in levels:
            if level == 1 and parameter > 0:
                continue
            row = np.ones(6)
            row[parameter] = level
            rows.append(row)
    return np.array(rows)


def numbers_per_instance(sizes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Number of uniform numbers that :func:`continuous_weights` takes for systems of ``sizes`` transformations."""
    return 6 * sizes + 1


def continuous_weights(
    uniform: Float64[np.ndarray, " numbers"], sizes: Int64[np.ndarray, " n"], perturbation: float
) -> tuple[Float64[np.ndarray, "n most_transformations 6"], Int64[np.ndarray, " n"]]:
    """Weights 1 + u of instances, and their flips.

    The values of u are those of numpy's ``uniform(-perturbation, perturbation, (size, 6))`` from each instance's random
    stream, and the flip is that of ``integers(4)`` after it.

    Args:
        uniform: numbers from 0 to below 1 of the instances' streams, one stream after the other,
            ``numbers_per_instance(sizes)`` of each.
        sizes: number of transformations of each instance's system.
        perturbation: largest magnitude of u.

    Returns:
        The weights, which are 1 behind an instance's last transformation; and the flips, 0 to 3.
    """
    last_number = np.cumsum(numbers_per_instance(sizes)) - 1
    weights = np.ones((len(sizes), sizes.max(initial=0), 6))
    present = np.arange(weights.shape[1]) < sizes[:, None]
    weights[present] += np.delete(uniform, last_number).reshape(-1, 6) * (perturbation + perturbation) - perturbation
    # integers(4) takes the two highest of a word's lower 32 bits; a uniform number consists of the word's upper 53.
    words = (uniform[last_number] * 2.0**53).astype(np.int64)
    return weights, (words >> 19) % FLIPS
