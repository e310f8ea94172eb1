"""Leaves on a GPU: the twin of ``draw_leaves`` and ``paint`` of ``leaves``.

A program draws a block of pixels of an image: leaf after leaf from the top one down, until all pixels have one. Blocks
of the same image compute the same leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from jaxtyping import Int64, UInt8

from formulavision import Category
from formulavision.rendering.random_triton import philox4x32
from formulavision.rendering.triton_support import EXACT, keep, signed

from .leaves import DIRECTIONS, MIX, PALETTE, TABLE, category_table, directions, radii_in_pixels
from .parameters import DeadLeavesParams

__all__ = ["LeafTables", "draw_leaves"]

_BLOCK = 1024


@triton.jit
def _side(x0, y0, x1, y1, row, left, right):
    """As ``leaves._bound_side``."""
    slope = tl.div_rn(x1 - x0, tl.where(y0 == y1, 1.0, y1 - y0))
    crossing = x0 + (row - y0) * slope
    return tl.where(y1 < y0, tl.maximum(left, crossing), left), tl.where(y1 > y0, tl.minimum(right, crossing), right)


@triton.jit(do_not_specialize=["size", "leaves", "key0", "key1"], do_not_specialize_on_alignment=["out"])
def _draw_leaves(
    images,
    tables,
    radii,
    around,
    out,
    size,
    leaves,
    key0,
    key1,
    DIRECTIONS: tl.constexpr,
    MIX: tl.constexpr,
    PALETTE: tl.constexpr,
    TABLE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    about = images + 4 * image
    table = tables + TABLE * tl.load(about)
    word1, word2, word3 = tl.load(about + 1), tl.load(about + 2), tl.load(about + 3)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < size * size
    row, column = (pixel // size).to(tl.float32), (pixel % size).to(tl.float32)
    first_row, last_row = tl.min(row, 0), tl.max(row, 0)
    scale = size.to(tl.float32) * 5.9604644775390625e-08
    quarter: tl.constexpr = DIRECTIONS // 4
    free = there
    color = tl.zeros([BLOCK], tl.int32)
    n = tl.zeros([], tl.int32)
    uncovered = tl.full([], 1, tl.int32)
    goes_on = leaves > 0
    while goes_on:
        w0, w1, w2, w3 = philox4x32(2 * n, word1, word2, word3, key0, key1)
        x = (w0 >> 8).to(tl.int32).to(tl.float32) * scale - 0.5
        y = (w1 >> 8).to(tl.int32).to(tl.float32) * scale - 0.5
        of_radius, of_shape = (w2 >> 2).to(tl.int32), (w3 >> 2).to(tl.int32)
        k = tl.zeros([], tl.int32)
        for bit in tl.static_range(7, -1, -1):
            k += tl.where(tl.load(table + k + ((1 << bit) - 1)) <= of_radius, 1 << bit, 0)
        shape = tl.zeros([], tl.int32)
        for s in tl.static_range(5):
            shape += (tl.load(table + MIX + s) <= of_shape).to(tl.int32)
        radius = tl.load(radii + k)
        w0, w1, w2, w3 = philox4x32(2 * n + 1, word1, word2, word3, key0, key1)
        red = tl.load(table + PALETTE) + (((w0 >> 16).to(tl.int32) * tl.load(table + PALETTE + 3)) >> 16)
        green = tl.load(table + PALETTE + 1) + (((w1 >> 16).to(tl.int32) * tl.load(table + PALETTE + 4)) >> 16)
        blue = tl.load(table + PALETTE + 2) + (((w2 >> 16).to(tl.int32) * tl.load(table + PALETTE + 5)) >> 16)
        a, b = ((w0 & 0xFFFF) >> 4).to(tl.int32), ((w1 & 0xFFFF) >> 4).to(tl.int32)
        c, d = ((w2 & 0xFFFF) >> 4).to(tl.int32), ((w3 & 0xFFFF) >> 4).to(tl.int32)
        # The corners' directions, as ``leaves._corner_directions``.
        d = tl.where(shape == 4, c, d)
        s0, s1, s2, s3 = tl.minimum(a, b), tl.maximum(a, b), tl.minimum(c, d), tl.maximum(c, d)
        t0, t2, t1, t3 = tl.minimum(s0, s2), tl.maximum(s0, s2), tl.minimum(s1, s3), tl.maximum(s1, s3)
        t1, t2 = tl.minimum(t1, t2), tl.maximum(t1, t2)
        first, angle = quarter // 2 + tl.where(shape == 2, a, 0), a // 4
        d0 = tl.where(shape > 3, t0, tl.where(shape == 3, angle, first)) % DIRECTIONS
        d1 = tl.where(shape > 3, t1, tl.where(shape == 3, 2 * quarter - angle, first + quarter)) % DIRECTIONS
        d2 = tl.where(shape > 3, t2, tl.where(shape == 3, 2 * quarter + angle, first + 2 * quarter)) % DIRECTIONS
        d3 = tl.where(shape > 3, t3, tl.where(shape == 3, 4 * quarter - angle, first + 3 * quarter)) % DIRECTIONS
        x0, y0 = x + radius * tl.load(around + d0), y + radius * tl.load(around + DIRECTIONS + d0)
        x1, y1 = x + radius * tl.load(around + d1), y + radius * tl.load(around + DIRECTIONS + d1)
        x2, y2 = x + radius * tl.load(around + d2), y + radius * tl.load(around + DIRECTIONS + d2)
        x3, y3 = x + radius * tl.load(around + d3), y + radius * tl.load(around + DIRECTIONS + d3)
        low = tl.minimum(tl.minimum(y0, y1), tl.minimum(y2, y3))
        high = tl.maximum(tl.maximum(y0, y1), tl.maximum(y2, y3))
        low, high = tl.where(shape == 0, y - radius, low), tl.where(shape == 0, y + radius, high)
        # Most leaves are small: they leave out most blocks.
        if (low <= last_row) & (high >= first_row):
            left, right = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32) + size
            left, right = _side(x3, y3, x0, y0, row, left, right)
            left, right = _side(x0, y0, x1, y1, row, left, right)
            left, right = _side(x1, y1, x2, y2, row, left, right)
            left, right = _side(x2, y2, x3, y3, row, left, right)
            dy = row - y
            half = tl.sqrt_rn(tl.maximum(radius * radius - dy * dy, 0.0))
            left, right = tl.where(shape == 0, x - half, left), tl.where(shape == 0, x + half, right)
            covered = free & (row >= low) & (row <= high) & (column >= left) & (column <= right)
            color = tl.where(covered, red | (green << 8) | (blue << 16), color)
            free = free & ~covered
            uncovered = tl.max(free.to(tl.int32), 0)
        n += 1
        goes_on = (uncovered > 0) & (n < leaves)
    target = out + (image * size * size + pixel) * CHANNELS
    for channel in tl.static_range(CHANNELS):
        tl.store(target + channel, ((color >> (8 * channel)) & 255).to(tl.uint8), mask=there)


class LeafTables:
    """The numbers of a list of categories, on a device."""

    def __init__(
        self, params: DeadLeavesParams, size: int, categories: Sequence[Category], device: torch.device
    ) -> None:
        tables = [category_table(params, np.array(category.parameters[0])) for category in categories]
        self.categories = keep(np.concatenate(tables), device)
        self.radii = keep(radii_in_pixels(params, size), device)
        self.around = keep(directions(), device)


def draw_leaves(
    images: Int64[torch.Tensor, "n 4"],
    tables: LeafTables,
    key: tuple[int, int],
    leaves: int,
    out: UInt8[torch.Tensor, "n size size channels"],
) -> None:
    """Draw images of leaves.

    Args:
        images: of each: position of its category in the tables, and the last three words of its counter.
        tables: of the categories.
        key: of the random numbers.
        leaves: largest number of leaves of an image.
        out: is filled.
    """
    n, size, _, channels = out.shape
    _draw_leaves[(n, triton.cdiv(size * size, _BLOCK))](
        images,
        tables.categories,
        tables.radii,
        tables.around,
        out,
        size,
        leaves,
        signed(key[0]),
        signed(key[1]),
        DIRECTIONS=DIRECTIONS,
        MIX=MIX,
        PALETTE=PALETTE,
        TABLE=TABLE,
        CHANNELS=channels,
        BLOCK=_BLOCK,
        num_warps=4,
        **EXACT,
    )
