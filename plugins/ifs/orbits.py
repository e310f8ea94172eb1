"""Orbits of iterated function systems by the random iteration algorithm (paper, section 3.1; Barnsley 1988).

A system is float64 [n, 6]; a row is a transformation a to f: x' = a x + b y + e, y' = c x + d y + f (equation 2).
"""

from __future__ import annotations

import numpy as np
from numba import uint32, uint64
from numpy.typing import NDArray

from formulavision.rendering import kernel
from formulavision.rendering.points import bounding_box, place
from formulavision.rendering.random import philox_blocks

CHAINS = 128
"""Chains of an independent orbit. Point i is step i div CHAINS of chain i mod CHAINS."""
BURN_IN = 64
"""Steps that a chain of an independent orbit makes before its points count."""
_BLOCK = 8 * CHAINS
_BURN_IN_BLOCKS = BURN_IN // 8


# The published orbit -------------------------------------------------------------------------------------------------


@kernel
def select(draws, cumulative, selection):  # type: ignore[no-untyped-def]
    """Fill ``selection``, uint8 [n], with the first j for which ``draws[i] <= cumulative[j]``, or their number if none.

    Counting the borders below a draw has no branch to mispredict; blocks of it stay in the cache.
    """
    for start in range(0, len(selection), 4096):
        block = selection[start : start + 4096]
        values = draws[start : start + 4096]
        block[:] = 0
        for border in cumulative:
            for i in range(len(block)):
                block[i] += np.uint8(values[i] > border)


@kernel
def published_orbit(system, selection, x, y):  # type: ignore[no-untyped-def]
    """The published orbit: from (0, 0), in float64, in the order x a + y b + e, without fused multiply-add.

    Its steps wait for each other. So its four quarters are computed side by side, each from (0, 0), and then set right:
    from where a quarter truly starts the orbit is followed until it meets the one that was computed, and from there on
    they are the same. Where a system contracts that takes about 150 steps, until rounding makes them equal; where it
    expands, the whole quarter.

    Args:
        system: float64 [n + 1, 6]; the last row is the identity, for a draw above all cumulated probabilities.
        selection: uint8 [at least len(x) - 1].
        x, y: float64 [points], are filled.
    """
    steps = len(x) - 1
    quarter = steps // 4
    # Unsigned, since numba looks for negative indices otherwise.
    second, third, fourth = uint64(quarter), uint64(2 * quarter), uint64(3 * quarter)
    x0 = y0 = x1 = y1 = x2 = y2 = x3 = y3 = 0.0
    x[0] = x0
    y[0] = y0
    for i in range(uint64(quarter)):
        x0, y0 = _moved(system, selection[i], x0, y0)
        x1, y1 = _moved(system, selection[i + second], x1, y1)
        x2, y2 = _moved(system, selection[i + third], x2, y2)
        x3, y3 = _moved(system, selection[i + fourth], x3, y3)
        after = i + uint64(1)
        x[after], x[after + second], x[after + third], x[after + fourth] = x0, x1, x2, x3
        y[after], y[after + second], y[after + third], y[after + fourth] = y0, y1, y2, y3
    x[4 * quarter + 1 :] = np.nan  # what the quarters leave: equal to nothing
    for start in (quarter, 2 * quarter, 3 * quarter, 4 * quarter):
        for i in range(start, steps):
            px, py = _moved(system, selection[i], x[i], y[i])
            if px == x[i + 1] and py == y[i + 1]:
                break
            x[i + 1] = px
            y[i + 1] = py


@kernel(inline="always")
def _moved(system, row, x, y):  # type: ignore[no-untyped-def]
    w = system[uint64(row)]
    return x * w[0] + y * w[1] + w[4], x * w[2] + y * w[3] + w[5]


# The independent orbit -----------------------------------------------------------------------------------------------


def in_fours(
    system: NDArray[np.float64], borders: NDArray[np.uint32]
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """A system as the independent orbit takes it, in fours of rows; those that are added are never selected.

    Args:
        system: [n, 6].
        borders: uint32 [n - 1], the cumulated probabilities but the last, times 65536, rounded.

    Returns:
        float32 [k, 4, 6], and the least draw that selects a row or one after it, uint32 [k, 4].
    """
    fours = -(-len(system) // 4)
    rows = np.zeros((4 * fours, 6), np.float32)
    rows[: len(system)] = system
    least = np.full(4 * fours, 65536, np.uint32)
    least[0] = 0
    least[1 : len(system)] = borders
    return rows.reshape(fours, 4, 6), least.reshape(fours, 4)


@kernel
def _step(system, least, four, draws, x, y, new_x, new_y):  # type: ignore[no-untyped-def]
    """Move the chains whose draw, uint32 [CHAINS], selects one of four rows.

    Comparing and blending four rows in registers is several times as fast as looking up each chain's row. Whole
    arrays are passed, since taking a part of one costs as much as the step.
    """
    a0, b0, c0, d0, e0, f0 = (
        system[four, 0, 0],
        system[four, 0, 1],
        system[four, 0, 2],
        system[four, 0, 3],
        system[four, 0, 4],
        system[four, 0, 5],
    )
    a1, b1, c1, d1, e1, f1 = (
        system[four, 1, 0],
        system[four, 1, 1],
        system[four, 1, 2],
        system[four, 1, 3],
        system[four, 1, 4],
        system[four, 1, 5],
    )
    a2, b2, c2, d2, e2, f2 = (
        system[four, 2, 0],
        system[four, 2, 1],
        system[four, 2, 2],
        system[four, 2, 3],
        system[four, 2, 4],
        system[four, 2, 5],
    )
    a3, b3, c3, d3, e3, f3 = (
        system[four, 3, 0],
        system[four, 3, 1],
        system[four, 3, 2],
        system[four, 3, 3],
        system[four, 3, 4],
        system[four, 3, 5],
    )
    least0, least1, least2, least3 = least[four, 0], least[four, 1], least[four, 2], least[four, 3]
    for i in range(CHAINS):
        draw = draws[i]
        in1, in2, in3 = draw >= least1, draw >= least2, draw >= least3
        a = a1 if in1 else a0
        a = a2 if in2 else a
        a = a3 if in3 else a
        b = b1 if in1 else b0
        b = b2 if in2 else b
        b = b3 if in3 else b
        c = c1 if in1 else c0
        c = c2 if in2 else c
        c = c3 if in3 else c
        d = d1 if in1 else d0
        d = d2 if in2 else d
        d = d3 if in3 else d
        e = e1 if in1 else e0
        e = e2 if in2 else e
        e = e3 if in3 else e
        f = f1 if in1 else f0
        f = f2 if in2 else f
        f = f3 if in3 else f
        moved_x = x[i] * a + y[i] * b + e
        moved_y = x[i] * c + y[i] * d + f
        old_x, old_y = new_x[i], new_y[i]
        new_x[i] = moved_x if draw >= least0 else old_x
        new_y[i] = moved_y if draw >= least0 else old_y


@kernel
def _eight_steps(system, least, words, draws, x, y, new_x, new_y, block_x, block_y):  # type: ignore[no-untyped-def]
    """Move ``x`` and ``y``, float32 [CHAINS], by the halves of ``words``; the block gets all positions."""
    for turn in range(8):
        shift = uint32(16) * uint32(turn & 1)
        for i in range(CHAINS):
            draws[i] = (words[turn >> 1, i] >> shift) & uint32(0xFFFF)
        for four in range(len(system)):
            _step(system, least, four, draws, x, y, new_x, new_y)
        for i in range(CHAINS):
            x[i] = block_x[turn * CHAINS + i] = new_x[i]
            y[i] = block_y[turn * CHAINS + i] = new_y[i]


@kernel
def independent_orbit(system, least, counter2, counter3, key0, key1, size, padding, columns, rows):  # type: ignore[no-untyped-def]
    """CHAINS orbits side by side on the canvas, in float32, each from (0, 0) with BURN_IN steps that do not count.

    Eight steps of a chain take the 16-bit halves of a block of Philox4x32-10, the lower half of word 0 first, for the
    counter (CHAINS (step div 8) + chain, 0, counter2, counter3), and compare them with the cumulated probabilities in
    units of 2^-16. The orbit is computed twice, first for its bounding box: faster than writing it down.

    Args:
        system, least: from ``in_fours``.
        size, padding: of the canvas, in pixels.
        columns, rows: uint16 [points], are filled; row 0 is the lowest y.

    Returns:
        low x, high x, low y, high y of the points and the origin.
    """
    points = len(columns)
    blocks = (points + _BLOCK - 1) // _BLOCK
    words = np.empty((4, CHAINS), np.uint32)
    draws = np.empty(CHAINS, np.uint32)
    new_x, new_y = np.empty(CHAINS, np.float32), np.empty(CHAINS, np.float32)
    block_x, block_y = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    box = (np.float32(0), np.float32(0), np.float32(0), np.float32(0))
    for drawing in (False, True):
        x, y = np.zeros(CHAINS, np.float32), np.zeros(CHAINS, np.float32)
        for block in range(-_BURN_IN_BLOCKS, blocks):
            first = CHAINS * (block + _BURN_IN_BLOCKS)
            philox_blocks(first, uint32(0), uint32(counter2), uint32(counter3), uint32(key0), uint32(key1), words)
            _eight_steps(system, least, words, draws, x, y, new_x, new_y, block_x, block_y)
            if block < 0:
                continue
            start = block * _BLOCK
            count = min(_BLOCK, points - start)
            if drawing:
                place(block_x, block_y, count, box, size, padding, columns[start:], rows[start:])
            else:
                low_x, high_x, low_y, high_y = bounding_box(block_x, block_y, count)
                box = min(box[0], low_x), max(box[1], high_x), min(box[2], low_y), max(box[3], high_y)
    return box
