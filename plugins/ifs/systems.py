"""Iterated function systems as arrays.

A system is float64 [n, 7]: a row is a transformation a to f, x' = a x + b y + e, y' = c x + d y + f (paper, equation
2), and its probability p. At each step of an orbit a random number, the draw, selects a transformation by the
cumulative probabilities.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, UInt32

__all__ = [
    "add_identities",
    "add_identity",
    "check_system",
    "cumulative_probabilities",
    "thresholds",
    "with_probabilities",
]

MAX_TRANSFORMATIONS = 254
"""Largest number of transformations of a system from a file: a selection is one byte."""
MAX_COEFFICIENT = 1_000_000
"""Largest magnitude of a to f in a system from a file, far beyond systems that converge."""
ROUNDING_ERROR = 0.02
"""Largest difference of the sum of a file's probabilities from 1: files may have rounded ones, such as 0.33 three
times."""
_IDENTITY = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]


def with_probabilities(transformations: Float64[np.ndarray, "n 6"]) -> Float64[np.ndarray, "n 7"]:
    """A system from its transformations: p is proportional to |det A| = |a d - b c|.

    The paper (section 3.2) writes det A, which may be negative; the published search takes its magnitude.
    """
    a, b, c, d = transformations[:, :4].T
    magnitude = np.abs(a * d - b * c)
    # cumsum adds one by one, as the published search does; the pairwise sum() may differ in the last bit.
    return np.column_stack([transformations, magnitude / np.cumsum(magnitude)[-1]])


def check_system(parameters: Float64[np.ndarray, "n 7"]) -> None:
    """Refuse what is no system, in a file of a user.

    Raises:
        ValueError: the message says why.
    """
    if len(parameters) > MAX_TRANSFORMATIONS:
        raise ValueError(f"have {len(parameters)} transformations, not {MAX_TRANSFORMATIONS} at most")
    if np.abs(parameters[:, :6]).max() > MAX_COEFFICIENT:
        raise ValueError(f"a to f must be from -{MAX_COEFFICIENT:,} to {MAX_COEFFICIENT:,}")
    p = parameters[:, 6]
    if p.min() < 0 or abs(p.sum() - 1) > ROUNDING_ERROR:
        raise ValueError(f"p must be probabilities: not negative, and 1 in sum, which is {p.sum():g}")


def cumulative_probabilities(system: Float64[np.ndarray, "n 7"]) -> Float64[np.ndarray, " n"]:
    """Cumulative sums of p, which the published orbit compares with its random numbers."""
    return np.cumsum(system[:, 6])


def thresholds(system: Float64[np.ndarray, "n 7"]) -> UInt32[np.ndarray, " n-1"]:
    """Cumulative sums of p without the last, in units of 2^-16, which the independent orbit compares with its draws."""
    # A system from a user's file may have sums outside of 0 to 1.
    sums = np.rint(cumulative_probabilities(system)[:-1] * 65536)
    return np.minimum(np.maximum(sums, 0), 65536).astype(np.uint32)


def add_identity(transformations: Float64[np.ndarray, "n columns"]) -> Float64[np.ndarray, "n+1 6"]:
    """a to f, and below them the identity: a draw above all cumulative probabilities selects it."""
    return np.vstack([transformations[:, :6], _IDENTITY])


def add_identities(
    transformations: Float64[np.ndarray, "systems rows 6"], sizes: Int64[np.ndarray, " systems"]
) -> Float64[np.ndarray, "systems rows+1 6"]:
    """a to f of many systems, each with the identity behind its last transformation.

    Args:
        transformations: the systems, filled up with any rows to the same number.
        sizes: number of transformations of each system.
    """
    longer = np.concatenate([transformations, np.zeros((len(transformations), 1, 6))], axis=1)
    longer[np.arange(len(longer)), sizes] = _IDENTITY
    return longer
