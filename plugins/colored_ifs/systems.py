"""Systems of affine maps from random singular values, and their jitter (Anderson and Farrell, section 3).

A system is float64 [n, 7]: a row is a transformation a to f, x' = a x + b y + e, y' = c x + d y + f, and its
probability.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from formulavision_plugins.ifs.singular_values import random_transformations
from formulavision_plugins.ifs.systems import with_probabilities
from jaxtyping import Float64

__all__ = ["Jitter", "determinants", "jittered", "sampled_system"]

Jitter = Literal["default", "fractaldb-1", "fractaldb-2", "fractaldb-3", "fractaldb-4", "none"]
_ATTEMPTS = 4
_LEAST, _MOST = 0.8, 1.1
"""Range of the factor of the default jitter."""


def sampled_system(
    random: np.random.Generator, fewest: int, most: int, sigma_factor: float | None
) -> Float64[np.ndarray, "n 7"]:
    """A system of ``fewest`` to ``most`` maps, of which none expands: all singular values are at most 1.

    Args:
        random: the source of all numbers.
        fewest, most: numbers of maps.
        sigma_factor: sum over the maps of s1 + 2 s2, for singular values s1 >= s2; None: uniform from (5 + n) / 2 to
            (6 + n) / 2 for n maps, as the paper recommends.
    """
    count = int(random.integers(fewest, most + 1))
    low, high = ((5 + count) / 2, (6 + count) / 2) if sigma_factor is None else (sigma_factor, sigma_factor)
    return with_probabilities(random_transformations(random, count, low, high))


def jittered(
    random: np.random.Generator, system: Float64[np.ndarray, "n 7"], jitter: Jitter
) -> Float64[np.ndarray, "n 7"]:
    """A system with changed numbers, of which no map expands; the system itself where four attempts fail.

    Probabilities follow from the changed determinants. Where these are all 0, the result is the system itself, too.

    Args:
        random: the source of all numbers.
        system: is left as it is.
        jitter: default: one map is multiplied by a factor from 0.8 to 1.1; fractaldb-k: one number of each map is
            multiplied by a factor that all share, 1 - k / 5, 1 - k / 10, 1, 1 + k / 10 or 1 + k / 5; none.
    """
    for _ in range(_ATTEMPTS if jitter != "none" else 0):
        changed = system[:, :6].copy()
        if jitter == "default":
            changed[random.integers(0, len(changed))] *= random.uniform(_LEAST, _MOST)
        else:
            # The published order of a map's numbers is a, b, e, c, d, f.
            entries = np.array([0, 1, 4, 2, 3, 5])[random.integers(0, 6, len(changed))]
            reach = int(jitter[-1]) / 5
            changed[np.arange(len(changed)), entries] *= random.choice(np.linspace(1 - reach, 1 + reach, 5))
        if not _expands(changed):
            return with_probabilities(changed) if determinants(changed).any() else system
    return system


def determinants(system: Float64[np.ndarray, "n columns"]) -> Float64[np.ndarray, " n"]:
    """a d - b c of each map."""
    a, b, c, d = system[:, :4].T
    return a * d - b * c


def _expands(transformations: Float64[np.ndarray, "n 6"]) -> bool:
    """Whether a map has a singular value above 1: both are at most 1 where (1 - s1^2) (1 - s2^2) >= 0 and s1 s2 <= 1.

    The sums and products are the same on every machine, unlike LAPACK's singular values.
    """
    a, b, c, d = transformations[:, :4].T
    squares, products = a * a + b * b + c * c + d * d, determinants(transformations)
    return bool(((1 - squares + products * products < 0) | (np.abs(products) > 1)).any())
