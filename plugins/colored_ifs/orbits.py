"""Points of a system, of the published program and our own, as counts of the pixels of an image."""

from __future__ import annotations

import numpy as np
from formulavision_plugins.ifs.orbits import (
    BLOCK,
    BURN_IN_BLOCKS,
    CHAINS,
    eight_steps,
    orbit_from_first,
    select,
    select_rows,
)
from jaxtyping import Float32, Float64, Int32, UInt16

from formulavision.rendering import kernel
from formulavision.rendering.points import widen

from .pixels import Region, count_points, windowed

__all__ = ["box_of", "count_independent", "published_points"]


@kernel
def published_points(
    system: Float64[np.ndarray, "n 7"],
    draws: Float64[np.ndarray, " points"],
    x: Float64[np.ndarray, " points+1"],
    y: Float64[np.ndarray, " points+1"],
) -> None:
    """The orbit of a system from the fixed point of its first map, which the program does not count to the points.

    Args:
        system: a draw selects the first map whose cumulative probability is above it, else the last.
        draws: random numbers.
        x, y: the fixed point and the points, are filled.
    """
    a, b, c, d, e, f, _ = system[0]
    # In this order of operations the published points come out to the last bit.
    scale = 1 / (((a * d - b * c) + 1 - a) - d)
    x[0], y[0] = (e * (1 - d) + b * f) * scale, (f * (1 - a) + c * e) * scale
    cumulative = np.cumsum(system[:, 6])[:-1]
    for k in range(len(cumulative)):
        cumulative[k] = np.nextafter(cumulative[k], -np.inf)  # ``select`` takes draws above it
    selection = np.empty(len(draws), np.uint8)
    select(draws, cumulative, selection)
    orbit_from_first(system[:, :6].copy(), selection, x, y)


@kernel
def box_of(x: Float64[np.ndarray, " points"], y: Float64[np.ndarray, " points"]) -> Region:
    """The bounding box of points."""
    lows, highs = np.full((2, CHAINS), np.inf), np.full((2, CHAINS), -np.inf)
    widen(x, lows[0], highs[0])
    widen(y, lows[1], highs[1])
    return lows[0].min(), lows[1].min(), highs[0].max(), highs[1].max()


@kernel
def count_independent(
    tables: Float32[np.ndarray, "tables 6 rows"],
    least: UInt16[np.ndarray, " least"],
    counter: tuple[int, int, int],
    key: tuple[int, int],
    points: int,
    window: Float64[np.ndarray, "2 2"],
    counts: Int32[np.ndarray, "bordered bordered"],
) -> None:
    """The independent orbit of the generator ``ifs``, without the origin, as counts of pixels.

    Args:
        tables, least: from ``ifs.orbits.lookup_tables``.
        counter, key: of the random numbers: words 1 to 3 of the counter, taken modulo 2^32.
        points: number of points.
        window: what the image shows, see ``windowed``.
        counts: zeros, are filled as by ``count_points``.
    """
    selected = np.empty((BURN_IN_BLOCKS + (points + BLOCK - 1) // BLOCK, 8, CHAINS), np.uint8)
    select_rows(least, counter, key, selected)
    x, y = np.zeros(CHAINS + BLOCK, np.float32), np.zeros(CHAINS + BLOCK, np.float32)
    lows, highs = np.full((2, CHAINS), np.float32(np.inf)), np.full((2, CHAINS), np.float32(-np.inf))
    for block in range(len(selected)):
        eight_steps(tables, selected[block], x, y)
        if block >= BURN_IN_BLOCKS:
            stop = CHAINS + min(BLOCK, points - (block - BURN_IN_BLOCKS) * BLOCK)
            widen(x[CHAINS:stop], lows[0], highs[0])
            widen(y[CHAINS:stop], lows[1], highs[1])
    box = float(lows[0].min()), float(lows[1].min()), float(highs[0].max()), float(highs[1].max())
    region = windowed(box, window)
    x[:] = 0
    y[:] = 0
    for block in range(len(selected)):
        eight_steps(tables, selected[block], x, y)
        if block >= BURN_IN_BLOCKS:
            stop = CHAINS + min(BLOCK, points - (block - BURN_IN_BLOCKS) * BLOCK)
            count_points(x[CHAINS:stop], y[CHAINS:stop], region, counts)
