"""The kernel of continuous weights, apart from ``weights`` since it imports numba."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from formulavision.rendering import kernel

__all__ = ["fill_weights"]


@kernel
def fill_weights(
    numbers: Float64[np.ndarray, " numbers"],
    sizes: Int64[np.ndarray, " n"],
    perturbation: float,
    weights: Float64[np.ndarray, "n rows 6"],
    flips: Int64[np.ndarray, " n"],
) -> None:
    """Fill the weights and flips of instances from their random numbers.

    Args:
        numbers: from 0 to below 1: of each instance six for each transformation, and one for its flip.
        sizes: number of transformations of each instance's system.
        perturbation: largest magnitude of u.
        weights: ones; the first rows of each instance become 1 + u.
        flips: are filled, 0 to 3.
    """
    place = 0
    for n in range(len(sizes)):
        for row in range(sizes[n]):
            for k in range(6):
                weights[n, row, k] += numbers[place] * (perturbation + perturbation) - perturbation
                place += 1
        # integers(4) takes the two highest of a word's lower 32 bits; a number consists of the word's upper 53.
        flips[n] = (np.int64(numbers[place] * 2.0**53) >> 19) & 3
        place += 1
