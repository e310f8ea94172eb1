"""Random systems whose maps have given singular values (Anderson and Farrell, "Improving Fractal Pre-training", WACV
2022), in the order of operations and with the random numbers of their program and that of 1p-frac.

A map is A = U diag(s1, s2) V with U and V rotations, or reflections, and 1 >= s1 >= s2 >= 0, so that no map expands
distances. The sum of s1 + 2 s2 over all maps, the sigma-factor, decides how much of the canvas a system fills.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

__all__ = ["probabilities_by_elimination", "random_transformations"]


def random_transformations(stream: np.random.Generator, n: int, low: float, high: float) -> Float64[np.ndarray, "n 6"]:
    """Draw the maps of a system.

    Args:
        stream: of random numbers, is moved on.
        n: number of maps.
        low, high: range of the sigma-factor, from 0 to 3 n; where they are equal, no number is drawn for it.

    Returns:
        a to f of each map, e and f from -1 to 1.
    """
    signs = np.sign(stream.random((2 * n, 2)) - 0.5).tolist()
    turns = [
        ((math.cos(angle) * x, -math.sin(angle) * y), (math.sin(angle) * x, math.cos(angle) * y))
        for angle, (x, y) in zip(stream.uniform(-math.pi, math.pi, 2 * n).tolist(), signs, strict=True)
    ]
    values = _singular_values(stream, n, stream.uniform(low, high) if low < high else low)
    offsets = stream.uniform(-1, 1, (n, 2)).tolist()
    maps = []
    for (s1, s2), u, v, offset in zip(values, turns[:n], turns[n:], offsets, strict=True):
        matrix = [_fused(row[1] * s2, v[1][k], (row[0] * s1) * v[0][k]) for row in u for k in (0, 1)]
        maps.append([*matrix, *offset])
    return np.array(maps)


def _singular_values(stream: np.random.Generator, n: int, factor: float) -> list[tuple[float, float]]:
    """Pairs s1, s2 of random numbers for which the sum of s1 + 2 s2 is ``factor``."""
    # Between ``least`` and ``most`` is what the pair takes of the factor, if those behind it take up to 3 each.
    pairs, most, least = [], factor, factor - 3 * n + 3
    for _ in range(n - 1):
        s1 = stream.uniform(max(0, least / 3), min(1, most))
        least, most = least - s1, most - s1
        s2 = stream.uniform(max(0, least / 2), min(s1, most / 2))
        least, most = least - 2 * s2 + 3, most - 2 * s2
        pairs.append((s1, s2))
    s2 = stream.uniform(max(0, (most - 1) / 2), most / 3)
    return [*pairs, (most - 2 * s2, s2)]


def _fused(x: float, y: float, z: float) -> float:
    """x y + z, rounded once: the programs' matrix products are fused on processors of today."""
    return float(Fraction(x) * Fraction(y) + Fraction(z))


def probabilities_by_elimination(transformations: Float64[np.ndarray, "n 6"]) -> Float64[np.ndarray, "n 7"]:
    """A system from its transformations, as ``systems.with_probabilities``, with the last bits of 1p-frac's program.

    Its determinants, numpy's, come from an elimination with pivots and from the sum of two logarithms.
    """
    magnitudes = []
    for a, b, c, d in transformations[:, :4].tolist():
        if abs(c) > abs(a):
            a, b, c, d = c, d, a, b
        rest = d - (c * (1 / a)) * b if a else 0.0
        magnitudes.append(math.exp(math.log(abs(a)) + math.log(abs(rest))) if rest else 0.0)
    return np.column_stack([transformations, np.array(magnitudes) / sum(magnitudes)])
