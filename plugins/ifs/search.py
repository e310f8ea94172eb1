"""Search for categories: random systems whose image fills enough of the canvas (paper, section 3.2).

Here is what both searches share, and the one that finds each category alone; the published one is in
``published_search``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from formulavision import ConfigError
from formulavision.generators.streams import random_stream
from formulavision.rendering import kernel

from .orbits import in_fours, independent_orbit, select

SEARCH_SIZE = 512
SEARCH_PADDING = 6
SEARCH_POINTS = 100_000
"""The published search looks at a system in 100,000 points on 512 x 512 pixels with a padding of 6."""

_STREAM = int.from_bytes(b"ifs/find", "little")
_LYAPUNOV_STEPS = 4096
_MOST_TRIALS = 20_000
"""Trials for a category, of which about 50 are needed by default."""
_FIRST_LOOK = 16_384
"""Points after which a system must light its share of the needed pixels, or is given up: later points light ever fewer
new ones, so that none is lost that would pass, but for chance."""


def with_probabilities(transformations: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [n, 7]: a to f and p, proportional to |det A| = |a d - b c|.

    The paper (section 3.2) writes det A; a determinant may be negative, and the published search takes its magnitude.
    """
    a, b, c, d = transformations[:, :4].T
    magnitude = np.abs(a * d - b * c)
    total = 0.0
    for p in magnitude:  # one by one, as published: a pairwise sum may differ in the last bit
        total += p
    return np.column_stack([transformations, magnitude / total])


def cumulated(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulated one by one."""
    return np.cumsum(probabilities)


def borders(system: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Cumulated probabilities but the last, in units of 2^-16."""
    # Those of somebody's file may be no probabilities.
    return np.clip(np.round(cumulated(system[:, 6])[:-1] * 65536), 0, 65536).astype(np.uint32)


def with_identity(system: NDArray[np.float64]) -> NDArray[np.float64]:
    """a to f of the system, and below them the identity, which a draw above all cumulated probabilities selects."""
    return np.vstack([system[:, :6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]])


def needed_pixels(fill_rate: float) -> int:
    """The least number of lit pixels for which ``lit / SEARCH_SIZE**2 >= fill_rate``."""
    needed = math.floor(fill_rate * SEARCH_SIZE**2)
    return needed if needed / SEARCH_SIZE**2 >= fill_rate else needed + 1


def independent_search(
    seed: int,
    index: int,
    max_transformations: int,
    fill_rate: float,
    table: NDArray[np.float64] | None,
    perturbation: float,
) -> NDArray[np.float64]:
    """Category ``index`` from a stream of its own: the first system that fills enough and does not diverge.

    Args:
        table: float64 [rows, 6]; a system that diverges under any of these weights is refused.
        perturbation: without a table, how far weights are from 1 at most. Refused are systems that would diverge if all
            of a to d were greater by this much.

    Returns:
        float64 [n, 7].

    Raises:
        ConfigError: there is no such system among 20,000.
    """
    stream = random_stream(seed, _STREAM, index)
    columns, rows = np.empty(SEARCH_POINTS, np.uint16), np.empty(SEARCH_POINTS, np.uint16)
    lit = np.empty(SEARCH_SIZE**2, np.uint8)
    needed = needed_pixels(fill_rate)
    weights = np.full((1, 6), 1 + perturbation) if table is None else table
    selection = np.empty(_LYAPUNOV_STEPS, np.uint8)
    for _ in range(_MOST_TRIALS):
        n = int(stream.integers(2, max_transformations, endpoint=True))
        system = with_probabilities(stream.uniform(-1, 1, (n, 6)))
        key = stream.integers(0, 2**32, 4).tolist()
        select(stream.random(_LYAPUNOV_STEPS), cumulated(system[:, 6]), selection)
        np.minimum(selection, n - 1, out=selection)
        if not _contracts(system, np.ones((1, 6)), selection):
            continue
        fours = in_fours(system[:, :6], borders(system))
        for points in (_FIRST_LOOK, SEARCH_POINTS):
            independent_orbit(*fours, *key, SEARCH_SIZE, SEARCH_PADDING, columns[:points], rows[:points])
            if not _fills(columns[:points], rows[:points], needed * points / SEARCH_POINTS, lit):
                break
        else:
            if _contracts(system, weights, selection):
                return system
    raise ConfigError(
        f"generator: none of {_MOST_TRIALS:,} random systems fills {fill_rate:g} of the canvas and contracts under all "
        "weights: lower fill_rate, or perturbation or weight_interval, or raise max_transformations"
    )


@kernel
def _contracts(system, weights, selection):  # type: ignore[no-untyped-def]
    """Whether the system contracts on average under every row of weights, so that its orbits stay bounded.

    That is a negative Lyapunov exponent (Barnsley and Elton 1988), estimated by the growth of a vector under the chosen
    matrices.

    Args:
        system: float64 [n, >= 4].
        weights: float64 [rows, >= 4].
        selection: uint8 [steps], rows of the system.
    """
    for row in weights:
        u, v, growth = 1.0, 0.5, 0.0
        for step in range(len(selection)):
            m = system[selection[step]]
            u, v = m[0] * row[0] * u + m[1] * row[1] * v, m[2] * row[2] * u + m[3] * row[3] * v
            if step & 15 == 15:
                size = np.sqrt(u * u + v * v)
                if size < 1e-300:
                    break
                growth += np.log(size)
                u /= size
                v /= size
        else:
            if growth >= 0.0:
                return False
    return True


@kernel
def _fills(columns, rows, needed, lit):  # type: ignore[no-untyped-def]
    """Whether the points light ``needed`` pixels; ``lit``, uint8 [SEARCH_SIZE^2], is scratch space."""
    lit[:] = 0
    total = 0
    for start in range(0, len(columns), 1000):
        for i in range(start, min(start + 1000, len(columns))):
            pixel = np.uint64(rows[i]) * np.uint64(SEARCH_SIZE) + np.uint64(columns[i])
            total += 1 - lit[pixel]
            lit[pixel] = 1
        if total >= needed:
            return True
        if total + len(columns) - start - 1000 < needed:
            return False
    return False
