"""Weights: the factors by which an instance multiplies a to f of its category's system (paper, section 3.3).

The number of an instance determines its weights, its draw of patches and its flip, in one of two ways: by a table of
weights (:class:`TableVariation`), or by continuous random weights (:class:`ContinuousVariation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["ContinuousVariation", "InstanceDraws", "TableVariation", "Variation", "weight_table"]

FLIPS = 4


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


@dataclass(frozen=True)
class InstanceDraws:
    """What differs among instances.

    Attributes:
        weights: factors of a to f; one row for all transformations of an instance's system, or one for each, and rows
            of ones behind its last.
        orbits: numbers of the orbits; instances of a category with equal numbers have the same orbit.
        patches: numbers of the draws of patches; instances of a category with equal numbers have the same image up to
            its flip.
        flips: 0 none, 1 top-bottom, 2 left-right, 3 both.
    """

    weights: Float64[np.ndarray, "n rows 6"]
    orbits: Int64[np.ndarray, " n"]
    patches: Int64[np.ndarray, " n"]
    flips: Int64[np.ndarray, " n"]


@runtime_checkable  # the tests check arguments against signatures
class Variation(Protocol):
    def draws(
        self, categories: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, " n"], instances: Int64[np.ndarray, " n"]
    ) -> InstanceDraws:
        """Weights, orbits, patches and flips of instances.

        Args:
            categories: index of each instance's category.
            sizes: number of transformations of each instance's category.
            instances: number of each instance in its category.
        """


class TableVariation:
    """Instance = weight + 25 x (flip + 4 x patch draw), where weight is a row of the table.

    So the first instances, which have different weights, differ most; flips share a drawing, and patch draws an orbit.

    Args:
        table: the weights.
        flips: whether images are flipped.
    """

    def __init__(self, table: Float64[np.ndarray, "rows 6"], flips: bool) -> None:
        self.table = table
        self.flips = FLIPS if flips else 1

    def decompose(
        self, instances: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Row of the table, patch draw and flip of instances."""
        rest, rows = np.divmod(instances, len(self.table))
        patches, flips = np.divmod(rest, self.flips)
        return rows, patches, flips

    def draws(
        self, categories: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, " n"], instances: Int64[np.ndarray, " n"]
    ) -> InstanceDraws:
        rows, patches, flips = self.decompose(instances)
        return InstanceDraws(self.table[rows][:, None], rows, rows + len(self.table) * patches, flips)


class ContinuousVariation:
    """Weights 1 + u, each with its own u, and a flip, from the random stream of an instance.

    The values of u are those of numpy's ``uniform(-perturbation, perturbation, (size, 6))``, and the flip is that of
    ``integers(4)`` after it.

    Args:
        uniforms: draws numbers from instances' streams: ``Generator.uniforms``.
        perturbation: largest magnitude of u.
        flips: whether images are flipped.
    """

    def __init__(
        self, uniforms: Callable[..., Float64[np.ndarray, " numbers"]], perturbation: float, flips: bool
    ) -> None:
        self.uniforms = uniforms
        self.perturbation = perturbation
        self.flips = flips

    def draws(
        self, categories: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, " n"], instances: Int64[np.ndarray, " n"]
    ) -> InstanceDraws:
        from .random_weights import fill_weights  # imports numba

        numbers = self.uniforms(categories, instances, 6 * sizes + 1)
        weights, flips = np.ones((len(sizes), sizes.max(initial=0), 6)), np.empty(len(sizes), np.int64)
        fill_weights(numbers, sizes, self.perturbation, weights, flips)
        return InstanceDraws(weights, instances, instances, flips if self.flips else np.zeros_like(flips))
