"""The search that finds each category from a random stream of its own, without the categories before it.

Its criterion is the published one (paper, section 3.2): the image fills enough of the canvas. In addition, systems that
diverge are refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, UInt8, UInt16

from formulavision import ConfigError, random_stream
from formulavision.rendering import kernel, points

from .orbits import independent_orbit, lookup_tables, select
from .search_published import SEARCH_PADDING, SEARCH_POINTS, SEARCH_SIZE, needed_pixels
from .singular_values import random_transformations
from .systems import cumulative_probabilities, thresholds, with_probabilities

__all__ = ["category_stream", "contracting_system", "independent_search", "uniform_system"]

_STREAM = int.from_bytes(b"ifs/find", "little")
_LYAPUNOV_STEPS = 4096
_MOST_TRIALS = 20_000
"""Largest number of trials for a category; the default parameters need about 50."""
_FIRST_LOOK = 16_384
"""Number of points after which a system must light its share of the needed pixels. Later points light ever fewer new
pixels, so systems that are refused here would, but for chance, be refused in the end."""
_BLOCK = 1000


def category_stream(seed: int, index: int) -> np.random.Generator:
    """The random stream in which category ``index`` is searched."""
    return random_stream(seed, _STREAM, index)


def uniform_system(stream: np.random.Generator, max_transformations: int) -> Float64[np.ndarray, "n 7"]:
    """Draw a system of 2 to ``max_transformations`` maps, with a to f from -1 to 1 (paper, section 3.2)."""
    n = int(stream.integers(2, max_transformations, endpoint=True))
    return with_probabilities(stream.uniform(-1, 1, (n, 6)))


def contracting_system(stream: np.random.Generator, max_transformations: int) -> Float64[np.ndarray, "n 7"]:
    """Draw a system of 2 to ``max_transformations`` maps by their singular values, with the range of sigma-factors of
    Anderson and Farrell, WACV 2022; their programs draw 2 to 4 maps."""
    n = int(stream.integers(2, max_transformations, endpoint=True))
    return with_probabilities(random_transformations(stream, n, (5 + n) / 2, (6 + n) / 2))


def independent_search(
    stream: np.random.Generator,
    draw: Callable[[np.random.Generator], Float64[np.ndarray, "n 7"]],
    fill_rate: float,
    weights: Float64[np.ndarray, "rows 6"],
) -> Float64[np.ndarray, "n 7"]:
    """The first system of a stream that fills enough of the canvas and does not diverge.

    Args:
        stream: of random numbers, is moved on.
        draw: draws a random system from the stream.
        fill_rate: smallest share of lit pixels.
        weights: factors of a to f; a system that diverges under any of the rows is refused.

    Raises:
        ConfigError: there is no such system among 20,000.
    """
    columns, rows = np.empty(SEARCH_POINTS, np.uint16), np.empty(SEARCH_POINTS, np.uint16)
    lit = np.empty((SEARCH_SIZE, SEARCH_SIZE), np.uint8)
    needed = needed_pixels(fill_rate)
    selection = np.empty(_LYAPUNOV_STEPS, np.uint8)
    for _ in range(_MOST_TRIALS):
        system = draw(stream)
        counter_and_key = stream.integers(0, 2**32, 4).tolist()
        select(stream.random(_LYAPUNOV_STEPS), cumulative_probabilities(system), selection)
        np.minimum(selection, len(system) - 1, out=selection)
        if not _contracts(system, np.ones((1, 6)), selection):
            continue
        tables = lookup_tables(system[:, :6], thresholds(system))
        for count in (_FIRST_LOOK, SEARCH_POINTS):
            independent_orbit(*tables, *counter_and_key, SEARCH_SIZE, SEARCH_PADDING, columns[:count], rows[:count])
            if not _fills(columns[:count], rows[:count], needed * count / SEARCH_POINTS, lit):
                break
        else:
            if _contracts(system, weights, selection):
                return system
    raise ConfigError(
        f"generator: none of {_MOST_TRIALS:,} random systems fills {fill_rate:g} of the canvas and contracts under all "
        "weights: lower fill_rate, or perturbation or weight_interval, or raise max_transformations, or take another "
        "base or base_seed"
    )


@kernel
def _contracts(
    system: Float64[np.ndarray, "n 7"],
    weights: Float64[np.ndarray, "rows 6"],
    selection: UInt8[np.ndarray, " steps"],
) -> bool:
    """Whether the system contracts on average under every row of weights, so that its orbits stay bounded.

    That is the case where its Lyapunov exponent is negative (Barnsley and Elton 1988). The exponent is estimated by the
    growth of a vector that is multiplied by the selected transformations' matrices.
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
def _fills(
    columns: UInt16[np.ndarray, " points"],
    rows: UInt16[np.ndarray, " points"],
    needed: float,
    lit: UInt8[np.ndarray, "size size"],
) -> bool:
    """Whether the points light ``needed`` pixels; looks at no more points than that takes.

    Args:
        columns, rows: pixels of the points.
        needed: number of pixels.
        lit: scratch memory.
    """
    lit[:] = 0
    total = 0
    for start in range(0, len(columns), _BLOCK):
        stop = min(start + _BLOCK, len(columns))
        total += points.light(columns[start:stop], rows[start:stop], stop - start, lit)
        if total >= needed:
            return True
        if total + len(columns) - stop < needed:
            return False
    return False
