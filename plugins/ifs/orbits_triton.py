"""The independent orbit on a GPU: ``orbits.independent_orbit``, with its points marked as they come."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from formulavision.rendering.random_triton import philox4x32
from formulavision.rendering.triton_support import EXACT, signed

from .orbits import BURN_IN, CHAINS

__all__ = ["mark_orbits"]

LEAST_ROWS = 8
"""Rows that a table of systems has at least."""


@triton.jit
def _eight_draws(block, chain, draw, category, key0, key1, CHAINS: tl.constexpr, BURN_IN: tl.constexpr):  # type: ignore[no-untyped-def]
    """Four words, whose halves choose what the chains do in the eight steps of a block; burn-in is below 0."""
    counter = (block + BURN_IN // 8) * CHAINS + chain
    return philox4x32(counter, tl.zeros([], tl.uint32), draw, category, key0, key1)


@triton.jit
def _step(  # type: ignore[no-untyped-def]
    w0, w1, w2, w3, turn: tl.constexpr, system, borders, b1, b2, b3, b4, b5, b6, b7, x, y, ROWS: tl.constexpr
):
    """Where the chains go in one of a block's eight steps."""
    if turn < 2:
        word = w0
    elif turn < 4:
        word = w1
    elif turn < 6:
        word = w2
    else:
        word = w3
    draw = ((word >> (16 * (turn % 2))) & 0xFFFF).to(tl.int32)
    row = tl.where(draw >= b1, 1, 0)
    row = tl.where(draw >= b2, 2, row)
    row = tl.where(draw >= b3, 3, row)
    row = tl.where(draw >= b4, 4, row)
    row = tl.where(draw >= b5, 5, row)
    row = tl.where(draw >= b6, 6, row)
    row = tl.where(draw >= b7, 7, row)
    for r in range(8, ROWS):
        row = tl.where(draw >= tl.load(borders + r), r, row)
    place = system + 6 * row
    a, b, c = tl.load(place), tl.load(place + 1), tl.load(place + 2)
    d, e, f = tl.load(place + 3), tl.load(place + 4), tl.load(place + 5)
    return x * a + y * b + e, x * c + y * d + f


@triton.jit
def _pixel(value, low, spread, extent, padding, last):  # type: ignore[no-untyped-def]
    """As ``rendering.points.place``: the quotient in float32, the rest in float64; 0 for what is no number."""
    pixel = tl.div_rn(value - low, spread).to(tl.float64) * extent + padding
    within = tl.where(tl.abs(pixel) < float("inf"), pixel, 0.0)
    return tl.minimum(within.to(tl.int32), last)


@triton.jit(do_not_specialize=["points", "size", "padding", "key0", "key1"])
def _mark_orbits(  # type: ignore[no-untyped-def]
    systems,
    borders,
    categories,
    draws,
    latest,
    points,
    size,
    padding,
    key0,
    key1,
    ROWS: tl.constexpr,
    CHAINS: tl.constexpr,
    BURN_IN: tl.constexpr,
):
    image = tl.program_id(0)
    chain = tl.arange(0, CHAINS)
    category, draw = tl.load(categories + image), tl.load(draws + image)
    system = systems + image * ROWS * 6
    border = borders + image * ROWS
    b1, b2, b3 = tl.load(border + 1), tl.load(border + 2), tl.load(border + 3)
    b4, b5, b6, b7 = tl.load(border + 4), tl.load(border + 5), tl.load(border + 6), tl.load(border + 7)
    blocks = (points + 8 * CHAINS - 1) // (8 * CHAINS)
    number = points.to(tl.uint32)  # the numbers of burn-in's points are far above it

    # The orbit is computed twice, first for its bounding box: that is less than writing it down.
    zero = tl.zeros([CHAINS], tl.float32)
    x, y, low_x, high_x, low_y, high_y = zero, zero, zero, zero, zero, zero
    for block in range(-(BURN_IN // 8), blocks):
        w0, w1, w2, w3 = _eight_draws(block, chain, draw, category, key0, key1, CHAINS, BURN_IN)
        for turn in tl.static_range(8):
            x, y = _step(w0, w1, w2, w3, turn, system, border, b1, b2, b3, b4, b5, b6, b7, x, y, ROWS)
            counts = ((block * 8 + turn) * CHAINS + chain).to(tl.uint32) < number
            # The origin is in the box. What is no number is not: the other one of two is their minimum.
            seen_x, seen_y = tl.where(counts, x, 0.0), tl.where(counts, y, 0.0)
            low_x, high_x = tl.minimum(low_x, seen_x), tl.maximum(high_x, seen_x)
            low_y, high_y = tl.minimum(low_y, seen_y), tl.maximum(high_y, seen_y)
    left, top = tl.min(low_x, 0), tl.min(low_y, 0)
    width, height = tl.max(high_x, 0) - left, tl.max(high_y, 0) - top

    extent = (size - 2 * padding).to(tl.float64)
    border_pixels = padding.to(tl.float64)
    pixels = latest + image.to(tl.int64) * size * size
    x, y = zero, zero
    for block in range(-(BURN_IN // 8), blocks):
        w0, w1, w2, w3 = _eight_draws(block, chain, draw, category, key0, key1, CHAINS, BURN_IN)
        for turn in tl.static_range(8):
            x, y = _step(w0, w1, w2, w3, turn, system, border, b1, b2, b3, b4, b5, b6, b7, x, y, ROWS)
            point = (block * 8 + turn) * CHAINS + chain
            column = _pixel(x, left, width, extent, border_pixels, size - 1)
            row = _pixel(y, top, height, extent, border_pixels, size - 1)
            counts = point.to(tl.uint32) < number
            tl.atomic_max(pixels + row * size + column, (point + 1) << 4, mask=counts, sem="relaxed")


def mark_orbits(
    systems: torch.Tensor,
    borders: torch.Tensor,
    categories: torch.Tensor,
    draws: torch.Tensor,
    latest: torch.Tensor,
    *,
    points: int,
    padding: int,
    key: tuple[int, int],
) -> None:
    """Orbits of many systems, each noted pixel by pixel as ``rendering.points.mark`` does.

    A program follows the 128 chains of an image. That two points meet in a pixel is settled by their numbers, with an
    atomic maximum, and so the order in which they are drawn does not matter.

    Args:
        systems: float32 [n, rows, 6], of the images; rows that are added are never selected.
        borders: int32 [n, rows]: the least draw that selects a row or one after it, 65536 for added rows.
        categories, draws: int64 [n]: words 3 and 2 of the counters of the random numbers.
        latest: int32 [n, size, size] of zeros, is filled as ``rendering.points.mark`` fills it.
        points: of an orbit.
        padding: of the canvas, in pixels.
        key: of the random numbers.
    """
    _mark_orbits[(len(systems),)](
        systems,
        borders,
        categories,
        draws,
        latest,
        points,
        latest.shape[1],
        padding,
        signed(key[0]),
        signed(key[1]),
        ROWS=systems.shape[1],
        CHAINS=CHAINS,
        BURN_IN=BURN_IN,
        num_warps=4,
        **EXACT,
    )
