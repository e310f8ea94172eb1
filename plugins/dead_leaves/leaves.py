"""Leaves with counter-based random numbers, drawn from the top one down: a pixel keeps the first leaf that covers it.

Leaf n of an image takes eight random words, of the counters 2n and 2n + 1. All shapes but the circle are convex
polygons with their corners on a circle, in directions that are multiples of 1/4096 of a turn. A pixel is a leaf's where
its row is within those of the corners, and its column between the sides' crossings with the row, in float32.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32, UInt8
from numba import int64, uint64

from formulavision.rendering import kernel
from formulavision.rendering.random import philox4x32

from .parameters import SHAPES, DeadLeavesParams, radius_distribution

__all__ = [
    "DIRECTIONS",
    "MIX",
    "PALETTE",
    "STEP",
    "TABLE",
    "category_table",
    "directions",
    "draw_leaves",
    "paint",
    "radii_in_pixels",
]

DIRECTIONS = 4096
"""Number of directions of corners."""
MIX, PALETTE, TABLE = 256, 264, 272
"""In a category's table: index of the first number of shapes and colours, and length. Before them is that of radii."""
_ONE = 1 << 30
"""A probability of 1 in a table."""
_QUARTER = DIRECTIONS // 4
STEP = 16
"""Number of rows, and of pixels, that are computed at once: what lies behind an end is computed, and not used."""
_BETWEEN = 64
"""Number of leaves from a search for free pixels to the next."""

F32 = np.float32


# Tables --------------------------------------------------------------------------------------------------------------


@lru_cache
def directions() -> Float32[np.ndarray, "2 directions"]:
    """Cosines and sines."""
    turns = [2 * math.pi * n / DIRECTIONS for n in range(DIRECTIONS)]
    return np.array([[math.cos(turn) for turn in turns], [math.sin(turn) for turn in turns]], np.float32)


def radii_in_pixels(params: DeadLeavesParams, size: int) -> Float32[np.ndarray, " 256"]:
    """The radii on a canvas, 1 pixel at least."""
    radii, _ = radius_distribution(params, params.sigma)
    return np.resize(np.maximum(radii * size, 1), 256).astype(np.float32)


def category_table(params: DeadLeavesParams, parameters: Float64[np.ndarray, " columns"]) -> Int32[np.ndarray, " 272"]:
    """The numbers of a category for the kernels.

    Args:
        params: the recipe's.
        parameters: exponent, probabilities of the shapes, least and greatest levels of the colours.

    Returns:
        Probabilities in units of 2^-30: of radii below each but the first, at the middle between those of a radius and
        the next, since a leaf takes the radius whose cumulative probability is nearest; from ``MIX`` on of each shape
        and all before it; from ``PALETTE`` on the least level of each colour and the number of its levels.
    """
    table = np.full(TABLE, _ONE, np.int32)
    _, cumulative = radius_distribution(params, float(parameters[0]))
    table[: len(cumulative) - 1] = (cumulative[1:] + cumulative[:-1]) / 2 * _ONE
    shapes = np.cumsum(parameters[1 : 1 + len(SHAPES)])
    table[MIX : MIX + len(SHAPES)] = shapes / shapes[-1] * _ONE
    low, high = parameters[1 + len(SHAPES) :].reshape(3, 2).T
    table[PALETTE : PALETTE + 3], table[PALETTE + 3 : PALETTE + 6] = low, high - low + 1
    return table


# Kernels -------------------------------------------------------------------------------------------------------------


@kernel(inline="always")
def _ordered(a: int, b: int) -> tuple[int, int]:
    return min(a, b), max(a, b)


@kernel
def _corner_directions(shape: int, a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    """Directions of four corners in turn, from four random ones; a triangle has one of them twice."""
    if shape == 1 or shape == 2:
        first = _QUARTER // 2 + (a if shape == 2 else 0)
        return first, first + _QUARTER, first + 2 * _QUARTER, first + 3 * _QUARTER
    if shape == 3:
        a //= 4
        return a, 2 * _QUARTER - a, 2 * _QUARTER + a, 4 * _QUARTER - a
    a, b = _ordered(a, b)
    c, d = _ordered(c, c if shape == 4 else d)
    a, c = _ordered(a, c)
    b, d = _ordered(b, d)
    b, c = _ordered(b, c)
    return a, b, c, d


@kernel(inline="always")
def _corner(
    x: F32, y: F32, radius: F32, around: Float32[np.ndarray, "2 directions"], direction: int
) -> tuple[F32, F32]:
    which = uint64(direction % DIRECTIONS)
    return x + radius * around[0, which], y + radius * around[1, which]


@kernel
def _bound_circle(
    x: F32,
    y: F32,
    radius: F32,
    top: int,
    bottom: int,
    left: Float32[np.ndarray, " rows"],
    right: Float32[np.ndarray, " rows"],
) -> None:
    """Narrow the columns of rows ``top`` to ``bottom`` to those of a circle; some rows behind, too."""
    for start in range(top, bottom + 1, STEP):
        for row in range(uint64(start), uint64(start + STEP)):
            dy = F32(row) - y
            half = np.sqrt(max(radius * radius - dy * dy, F32(0)))
            left[row], right[row] = max(left[row], x - half), min(right[row], x + half)


@kernel(error_model="numpy")
def _bound_side(
    x0: F32,
    y0: F32,
    x1: F32,
    y1: F32,
    top: int,
    bottom: int,
    left: Float32[np.ndarray, " rows"],
    right: Float32[np.ndarray, " rows"],
) -> None:
    """Narrow the columns of rows to those on a polygon's side of the line through two corners, as above."""
    if y0 == y1:
        return
    slope = (x1 - x0) / (y1 - y0)
    for start in range(top, bottom + 1, STEP):
        if y1 < y0:
            for row in range(uint64(start), uint64(start + STEP)):
                left[row] = max(left[row], x0 + (F32(row) - y0) * slope)
        else:
            for row in range(uint64(start), uint64(start + STEP)):
                right[row] = min(right[row], x0 + (F32(row) - y0) * slope)


@kernel
def _find_free(owners: Int16[np.ndarray, " pixels"], size: int, free: Float32[np.ndarray, "2 size"]) -> bool:
    """Move to the first and the last column of each row that no leaf covers yet, and tell whether there is any.

    Of a full row the first is behind the last.
    """
    found = False
    for row in range(size):
        first, last = int64(free[0, row]), int64(free[1, row])
        while first <= last and owners[uint64(row * size + first)] != 0:
            first += 1
        while first < last and owners[uint64(row * size + last)] != 0:
            last -= 1
        free[0, row], free[1, row] = first, last
        found |= first <= last
    return found


@kernel
def _covers_free(free: Float32[np.ndarray, "2 size"], x: F32, radius: F32, top: int, bottom: int) -> bool:
    """Whether there may be free pixels within a radius of a column, in rows."""
    for row in range(uint64(top), uint64(bottom + 1)):
        if max(free[0, row], x - radius) <= min(free[1, row], x + radius):
            return True
    return False


@kernel
def draw_leaves(
    counter: tuple[int, int, int],
    key: tuple[int, int],
    table: Int32[np.ndarray, " 272"],
    radii: Float32[np.ndarray, " 256"],
    around: Float32[np.ndarray, "2 directions"],
    owners: Int16[np.ndarray, " pixels"],
    colors: UInt8[np.ndarray, "colors 3"],
    size: int,
) -> None:
    """Draw leaves below each other until they cover the canvas.

    Args:
        counter: of the random numbers: the last three words.
        key: of the random numbers.
        table: of the category.
        radii: in pixels.
        around: cosines and sines of the directions.
        owners: zeros, ``STEP`` more than the canvas has pixels; gets the number of the leaf at each pixel, from 1 on; 0
            where there is none.
        colors: gets the colours of leaves; one more than the largest number of leaves.
        size: of the canvas.
    """
    left, right = np.empty(size + STEP, np.float32), np.empty(size + STEP, np.float32)
    free = np.empty((2, size), np.float32)
    free[0], free[1] = F32(0), F32(size - 1)
    scale = F32(size) * F32(2.0**-24)
    for n in range(len(colors) - 1):
        if n % _BETWEEN == 0 and not _find_free(owners, size, free):
            return
        w0, w1, w2, w3 = philox4x32(2 * n, counter[0], counter[1], counter[2], key[0], key[1])
        x, y = F32(w0 >> 8) * scale - F32(0.5), F32(w1 >> 8) * scale - F32(0.5)
        of_radius, of_shape = int64(w2 >> 2), int64(w3 >> 2)
        k = 0
        for bit in range(7, -1, -1):
            k += (1 << bit) if table[uint64(k + (1 << bit) - 1)] <= of_radius else 0
        radius = radii[k]
        low, high = y - radius, y + radius
        top, bottom = max(int(np.ceil(low)), 0), min(int(np.floor(high)), size - 1)
        # Most leaves lie on covered pixels alone: what follows is left out for them.
        if not _covers_free(free, x, radius + F32(1), top, bottom):
            continue
        shape = 0
        for s in range(5):
            shape += 1 if table[MIX + s] <= of_shape else 0
        w0, w1, w2, w3 = philox4x32(2 * n + 1, counter[0], counter[1], counter[2], key[0], key[1])
        for channel, word in enumerate((w0, w1, w2)):
            level = (int64(word >> 16) * int64(table[PALETTE + 3 + channel])) >> 16
            colors[n + 1, channel] = table[PALETTE + channel] + level
        left[top : bottom + 1], right[top : bottom + 1] = F32(0), F32(size - 1)
        if shape == 0:
            _bound_circle(x, y, radius, top, bottom, left, right)
        else:
            corners = _corner_directions(
                shape,
                int64(w0 & 0xFFFF) >> 4,
                int64(w1 & 0xFFFF) >> 4,
                int64(w2 & 0xFFFF) >> 4,
                int64(w3 & 0xFFFF) >> 4,
            )
            d0, d1, d2, d3 = corners
            x0, y0 = _corner(x, y, radius, around, d0)
            x1, y1 = _corner(x, y, radius, around, d1)
            x2, y2 = _corner(x, y, radius, around, d2)
            x3, y3 = _corner(x, y, radius, around, d3)
            top = max(int(np.ceil(min(min(y0, y1), min(y2, y3)))), 0)
            bottom = min(int(np.floor(max(max(y0, y1), max(y2, y3)))), size - 1)
            _bound_side(x0, y0, x1, y1, top, bottom, left, right)
            _bound_side(x1, y1, x2, y2, top, bottom, left, right)
            _bound_side(x2, y2, x3, y3, top, bottom, left, right)
            _bound_side(x3, y3, x0, y0, top, bottom, left, right)
        owner = np.int16(n + 1)
        for row in range(top, bottom + 1):
            first, last = int(np.ceil(left[row])), int(np.floor(right[row]))
            for start in range(row * size + first, row * size + last + 1, STEP):
                rest = np.int16(min(row * size + last - start, STEP))
                for step in range(STEP):
                    pixel = uint64(start + step)
                    before = owners[pixel]
                    owners[pixel] = owner if before == 0 and np.int16(step) <= rest else before


@kernel
def paint(
    owners: Int16[np.ndarray, " pixels"],
    colors: UInt8[np.ndarray, "colors 3"],
    image: UInt8[np.ndarray, "size size channels"],
) -> None:
    """Fill an image with the colours of the leaves at its pixels; a gray one with the first channel."""
    levels = image.reshape(-1, image.shape[2])
    for pixel in range(uint64(levels.shape[0])):
        owner = uint64(owners[pixel])
        for channel in range(uint64(levels.shape[1])):
            levels[pixel, channel] = colors[owner, channel]
