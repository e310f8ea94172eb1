"""Orbits of iterated function systems by the random iteration algorithm (paper, section 3.1; Barnsley 1988).

A transformation is a row a to f: x' = a x + b y + e, y' = c x + d y + f (paper, equation 2).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16, UInt32
from numba import uint32, uint64

from formulavision.rendering import kernel
from formulavision.rendering.points import bounding_box, scale_to_canvas
from formulavision.rendering.random import philox_blocks

CHAINS = 128
"""Number of chains of an independent orbit. Point i is step i div CHAINS of chain i mod CHAINS."""
BURN_IN = 64
"""Number of steps of each chain of an independent orbit before its points count."""
_BLOCK = 8 * CHAINS
_BURN_IN_BLOCKS = BURN_IN // 8


# The published orbit -------------------------------------------------------------------------------------------------


@kernel
def select(
    draws: Float64[np.ndarray, " steps"],
    cumulative: Float64[np.ndarray, " transformations"],
    selection: UInt8[np.ndarray, " steps"],
) -> None:
    """Select a transformation for each step: the first j for which ``draws[i] <= cumulative[j]``.

    Counting the sums below a draw has no branch to mispredict; blocks of it stay in the processor's cache.

    Args:
        draws: random numbers.
        cumulative: cumulative probabilities of the transformations.
        selection: is filled; with the number of transformations where a draw is above all sums.
    """
    for start in range(0, len(selection), 4096):
        block = selection[start : start + 4096]
        values = draws[start : start + 4096]
        block[:] = 0
        for total in cumulative:
            for i in range(len(block)):
                block[i] += np.uint8(values[i] > total)


@kernel
def published_orbit(
    system: Float64[np.ndarray, "rows 6"],
    selection: UInt8[np.ndarray, " steps"],
    x: Float64[np.ndarray, " points"],
    y: Float64[np.ndarray, " points"],
) -> None:
    """The published orbit: from (0, 0), in float64, in the order x a + y b + e, without fused multiply-add.

    Its steps wait for each other. So its four quarters are computed side by side, each from (0, 0), and then corrected:
    from the true start of a quarter the orbit is followed until it meets the computed one; from there on both are the
    same. Where a system contracts, that takes about 150 steps, until rounding makes them equal; where it expands, it
    takes the whole quarter.

    Args:
        system: a to f; the last row is the identity, for a draw above all cumulative probabilities.
        selection: row of each step, from ``select``; at least len(x) - 1.
        x, y: the points, are filled.
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
    x[4 * quarter + 1 :] = np.nan  # steps behind the quarters: NaN is equal to no computed point
    for start in (quarter, 2 * quarter, 3 * quarter, 4 * quarter):
        for i in range(start, steps):
            px, py = _moved(system, selection[i], x[i], y[i])
            if px == x[i + 1] and py == y[i + 1]:
                break
            x[i + 1] = px
            y[i + 1] = py


@kernel(inline="always")
def _moved(system: Float64[np.ndarray, "rows 6"], row: np.uint8, x: float, y: float) -> tuple[float, float]:
    """Equation 2."""
    w = system[uint64(row)]
    return x * w[0] + y * w[1] + w[4], x * w[2] + y * w[3] + w[5]


# The independent orbit -----------------------------------------------------------------------------------------------


def in_fours(
    transformations: Float64[np.ndarray, "n 6"], thresholds: UInt32[np.ndarray, " n-1"]
) -> tuple[Float32[np.ndarray, "fours 4 6"], UInt32[np.ndarray, "fours 4"]]:
    """A system as the independent orbit takes it: rows in groups of four, filled up with rows that are never selected.

    Args:
        transformations: a to f.
        thresholds: from ``systems.thresholds``.

    Returns:
        The rows, and the least draw that selects a row or one behind it.
    """
    fours = -(-len(transformations) // 4)
    rows = np.zeros((4 * fours, 6), np.float32)
    rows[: len(transformations)] = transformations
    least = np.full(4 * fours, 65536, np.uint32)
    least[0] = 0
    least[1 : len(transformations)] = thresholds
    return rows.reshape(fours, 4, 6), least.reshape(fours, 4)


@kernel(inline="always")
def _row(
    system: Float32[np.ndarray, "fours 4 6"], four: int, row: int
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]:
    """a to f."""
    return (
        system[four, row, 0],
        system[four, row, 1],
        system[four, row, 2],
        system[four, row, 3],
        system[four, row, 4],
        system[four, row, 5],
    )


@kernel
def _step(
    system: Float32[np.ndarray, "fours 4 6"],
    least: UInt32[np.ndarray, "fours 4"],
    four: int,
    draws: UInt32[np.ndarray, " chains"],
    x: Float32[np.ndarray, " chains"],
    y: Float32[np.ndarray, " chains"],
    new_x: Float32[np.ndarray, " chains"],
    new_y: Float32[np.ndarray, " chains"],
) -> None:
    """Equation 2 for the chains whose draw selects one of four rows.

    Comparing and blending four rows in registers is several times as fast as looking up each chain's row. Whole
    arrays are passed, since taking a part of one costs as much as the step.
    """
    a0, b0, c0, d0, e0, f0 = _row(system, four, 0)
    a1, b1, c1, d1, e1, f1 = _row(system, four, 1)
    a2, b2, c2, d2, e2, f2 = _row(system, four, 2)
    a3, b3, c3, d3, e3, f3 = _row(system, four, 3)
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
def eight_steps(
    system: Float32[np.ndarray, "fours 4 6"],
    least: UInt32[np.ndarray, "fours 4"],
    words: UInt32[np.ndarray, "4 chains"],
    draws: UInt32[np.ndarray, " chains"],
    x: Float32[np.ndarray, " chains"],
    y: Float32[np.ndarray, " chains"],
    new_x: Float32[np.ndarray, " chains"],
    new_y: Float32[np.ndarray, " chains"],
    block_x: Float32[np.ndarray, " block"],
    block_y: Float32[np.ndarray, " block"],
) -> None:
    """Move ``x`` and ``y`` by eight steps, which the halves of ``words`` select; the block gets all positions."""
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
def independent_orbit(
    system: Float32[np.ndarray, "fours 4 6"],
    least: UInt32[np.ndarray, "fours 4"],
    counter2: int,
    counter3: int,
    key0: int,
    key1: int,
    size: int,
    padding: int,
    columns: UInt16[np.ndarray, " points"],
    rows: UInt16[np.ndarray, " points"],
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """CHAINS orbits side by side, in float32, each from (0, 0) with BURN_IN steps that do not count, on the canvas.

    Eight steps of a chain take the 16-bit halves of a block of Philox4x32-10, the lower half of word 0 first, for the
    counter (CHAINS (step div 8) + chain, 0, counter2, counter3), and compare them with the cumulative probabilities in
    units of 2^-16. The orbit is computed twice, first for its bounding box: that is faster than storing it.

    Args:
        system, least: from ``in_fours``.
        counter2, counter3, key0, key1: counter and key of the random numbers, taken modulo 2^32.
        size, padding: of the canvas, in pixels.
        columns, rows: pixels of the points, are filled; row 0 is the lowest y.

    Returns:
        The bounding box of the points and the origin: low x, high x, low y, high y.
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
            eight_steps(system, least, words, draws, x, y, new_x, new_y, block_x, block_y)
            if block < 0:
                continue
            start = block * _BLOCK
            count = min(_BLOCK, points - start)
            if drawing:
                scale_to_canvas(block_x, block_y, count, box, size, padding, columns[start:], rows[start:])
            else:
                low_x, high_x, low_y, high_y = bounding_box(block_x, block_y, count)
                box = min(box[0], low_x), max(box[1], high_x), min(box[2], low_y), max(box[3], high_y)
    return box
