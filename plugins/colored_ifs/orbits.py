"""Points of a system, of the published program and our own, as counts of the pixels of an image."""

from __future__ import annotations

import numpy as np
from formulavision_plugins.ifs.orbits import CHAINS, eight_steps
from jaxtyping import Float, Float32, Float64, Int32, UInt32
from numba import uint32, uint64

from formulavision.rendering import kernel
from formulavision.rendering.random import philox_blocks

from .pixels import Region, count_points, windowed

__all__ = ["box_of", "count_independent", "published_points"]

_BLOCK = 8 * CHAINS
_BURN_IN = 8
"""Number of blocks of eight steps that do not count."""


@kernel
def published_points(
    system: Float64[np.ndarray, "n 7"], draws: Float64[np.ndarray, " points"], points: Float64[np.ndarray, "2 points"]
) -> None:
    """The orbit of a system from the fixed point of its first map, which is not among the points.

    Args:
        system: a draw selects the first map whose cumulative probability is above it, else the last.
        draws: random numbers.
        points: x and y, are filled.
    """
    count = len(system)
    cumulative = np.cumsum(system[:, 6])
    a, b, c, d, e, f, _ = system[0]
    # In this order of operations the published points come out to the last bit.
    scale = 1 / (((a * d - b * c) + 1 - a) - d)
    x, y = (e * (1 - d) + b * f) * scale, (f * (1 - a) + c * e) * scale
    xs, ys = points[0], points[1]
    for i in range(len(draws)):
        draw, selected = draws[i], 0
        for k in range(count - 1):
            selected += draw >= cumulative[k]
        w = system[uint64(selected)]
        x, y = x * w[0] + y * w[1] + w[4], x * w[2] + y * w[3] + w[5]
        xs[i], ys[i] = x, y


@kernel
def _widen(
    values: Float[np.ndarray, " values"], low: Float[np.ndarray, " chains"], high: Float[np.ndarray, " chains"]
) -> None:
    """Running bounds of many lanes, which the compiler turns into vector instructions; NaN is in no bounds."""
    for start in range(0, len(values), CHAINS):
        for i in range(min(CHAINS, len(values) - start)):
            value = values[start + i]
            low[i] = value if value < low[i] else low[i]
            high[i] = value if value > high[i] else high[i]


@kernel
def box_of(points: Float64[np.ndarray, "2 points"]) -> Region:
    """The bounding box of points."""
    lows, highs = np.full((2, CHAINS), np.inf), np.full((2, CHAINS), -np.inf)
    for axis in range(2):
        _widen(points[axis], lows[axis], highs[axis])
    return lows[0].min(), lows[1].min(), highs[0].max(), highs[1].max()


@kernel
def count_independent(
    system: Float32[np.ndarray, "fours 4 6"],
    least: UInt32[np.ndarray, "fours 4"],
    counter: tuple[int, int, int],
    key: tuple[int, int],
    points: int,
    window: Float64[np.ndarray, "2 2"],
    counts: Int32[np.ndarray, "bordered bordered"],
) -> None:
    """The independent orbit of the generator ``ifs``, without the origin, as counts of pixels.

    Args:
        system, least: from ``ifs.orbits.in_fours``.
        counter, key: of the random numbers, taken modulo 2^32.
        points: number of points.
        window: what the image shows, see ``windowed``.
        counts: zeros, are filled as by ``count_points``.
    """
    blocks = (points + _BLOCK - 1) // _BLOCK
    words, draws = np.empty((4, CHAINS), np.uint32), np.empty(CHAINS, np.uint32)
    new_x, new_y = np.empty(CHAINS, np.float32), np.empty(CHAINS, np.float32)
    block_x, block_y = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    lows, highs = np.full((2, CHAINS), np.float32(np.inf)), np.full((2, CHAINS), np.float32(-np.inf))
    region = (0.0, 0.0, 0.0, 0.0)
    for drawing in (False, True):
        x, y = np.zeros(CHAINS, np.float32), np.zeros(CHAINS, np.float32)
        for block in range(-_BURN_IN, blocks):
            first = CHAINS * (block + _BURN_IN)
            philox_blocks(
                first, uint32(counter[0]), uint32(counter[1]), uint32(counter[2]), uint32(key[0]), uint32(key[1]), words
            )
            eight_steps(system, least, words, draws, x, y, new_x, new_y, block_x, block_y)
            if block < 0:
                continue
            length = min(_BLOCK, points - block * _BLOCK)
            if drawing:
                count_points(block_x[:length], block_y[:length], region, counts)
            else:
                _widen(block_x[:length], lows[0], highs[0])
                _widen(block_y[:length], lows[1], highs[1])
        box = float(lows[0].min()), float(lows[1].min()), float(highs[0].max()), float(highs[1].max())
        region = windowed(box, window)
