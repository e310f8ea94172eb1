"""Both orbits on a GPU, the twins of those in ``orbits``; each point is marked on the canvas as it is computed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Float64, Int32, Int64

from formulavision.rendering.random_triton import philox4x32
from formulavision.rendering.triton_support import EXACT, signed

from .orbits import BURN_IN, CHAINS

__all__ = ["mark_orbits", "mark_published_orbits"]

LEAST_ROWS = 8
"""Smallest number of rows of the systems."""
SEGMENTS = 128
"""Number of segments of a published orbit that are computed side by side."""


@triton.jit
def _eight_draws(block, chain, draw, category, key0, key1, CHAINS: tl.constexpr, BURN_IN: tl.constexpr):
    """Four words, whose halves select the chains' transformations in a block's eight steps; burn-in blocks are < 0."""
    counter = (block + BURN_IN // 8) * CHAINS + chain
    return philox4x32(counter, tl.zeros([], tl.uint32), draw, category, key0, key1)


@triton.jit
def _step(w0, w1, w2, w3, turn: tl.constexpr, system, least, l1, l2, l3, l4, l5, l6, l7, x, y, ROWS: tl.constexpr):
    """Equation 2 for all chains, in one of a block's eight steps."""
    if turn < 2:
        word = w0
    elif turn < 4:
        word = w1
    elif turn < 6:
        word = w2
    else:
        word = w3
    draw = ((word >> (16 * (turn % 2))) & 0xFFFF).to(tl.int32)
    row = tl.where(draw >= l1, 1, 0)
    row = tl.where(draw >= l2, 2, row)
    row = tl.where(draw >= l3, 3, row)
    row = tl.where(draw >= l4, 4, row)
    row = tl.where(draw >= l5, 5, row)
    row = tl.where(draw >= l6, 6, row)
    row = tl.where(draw >= l7, 7, row)
    for r in range(8, ROWS):
        row = tl.where(draw >= tl.load(least + r), r, row)
    own = system + 6 * row
    a, b, c = tl.load(own), tl.load(own + 1), tl.load(own + 2)
    d, e, f = tl.load(own + 3), tl.load(own + 4), tl.load(own + 5)
    return x * a + y * b + e, x * c + y * d + f


@triton.jit
def _widened(low, high, value, counts):
    """Lowest and highest values so far, with those that count: the origin always does, NaN never."""
    seen = tl.where(counts, value, 0.0)
    return tl.minimum(low, seen), tl.maximum(high, seen)


@triton.jit
def _pixel(value, low, spread, size, padding):
    """As ``rendering.points.scale_to_canvas``: the quotient in the points' type, the rest in float64; NaN becomes 0."""
    share = tl.div_rn(value - low, spread).to(tl.float64) if value.dtype == tl.float32 else (value - low) / spread
    pixel = share * (size - 2 * padding).to(tl.float64) + padding.to(tl.float64)
    within = tl.where(tl.abs(pixel) < float("inf"), pixel, 0.0)
    return tl.minimum(within.to(tl.int32), size - 1)


@triton.jit
def _mark(marks, number, x, y, box, size, padding, counts):
    """As ``rendering.points.mark``, with points numbered from 1; ``box`` is low x, low y, width, height."""
    column = _pixel(x, box[0], box[2], size, padding)
    row = _pixel(y, box[1], box[3], size, padding)
    tl.atomic_max(marks + row * size + column, number << 4, mask=counts, sem="relaxed")


@triton.jit(
    do_not_specialize=["points", "size", "padding", "key0", "key1"],
    do_not_specialize_on_alignment=["categories", "draws"],
)
def _mark_orbits(
    systems,
    least,
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
    own_least = least + image * ROWS
    l1, l2, l3 = tl.load(own_least + 1), tl.load(own_least + 2), tl.load(own_least + 3)
    l4, l5, l6, l7 = tl.load(own_least + 4), tl.load(own_least + 5), tl.load(own_least + 6), tl.load(own_least + 7)
    blocks = (points + 8 * CHAINS - 1) // (8 * CHAINS)
    number = points.to(tl.uint32)  # as uint32, the negative numbers of points in the burn-in are far above it

    # The orbit is computed twice, first for its bounding box: that is faster than storing it.
    zero = tl.zeros([CHAINS], tl.float32)
    x, y, low_x, high_x, low_y, high_y = zero, zero, zero, zero, zero, zero
    for block in range(-(BURN_IN // 8), blocks):
        w0, w1, w2, w3 = _eight_draws(block, chain, draw, category, key0, key1, CHAINS, BURN_IN)
        for turn in tl.static_range(8):
            x, y = _step(w0, w1, w2, w3, turn, system, own_least, l1, l2, l3, l4, l5, l6, l7, x, y, ROWS)
            counts = ((block * 8 + turn) * CHAINS + chain).to(tl.uint32) < number
            low_x, high_x = _widened(low_x, high_x, x, counts)
            low_y, high_y = _widened(low_y, high_y, y, counts)
    left, top = tl.min(low_x, 0), tl.min(low_y, 0)
    box = left, top, tl.max(high_x, 0) - left, tl.max(high_y, 0) - top

    marks = latest + image.to(tl.int64) * size * size
    x, y = zero, zero
    for block in range(-(BURN_IN // 8), blocks):
        w0, w1, w2, w3 = _eight_draws(block, chain, draw, category, key0, key1, CHAINS, BURN_IN)
        for turn in tl.static_range(8):
            x, y = _step(w0, w1, w2, w3, turn, system, own_least, l1, l2, l3, l4, l5, l6, l7, x, y, ROWS)
            point = (block * 8 + turn) * CHAINS + chain
            _mark(marks, point + 1, x, y, box, size, padding, point.to(tl.uint32) < number)


# The published orbit -------------------------------------------------------------------------------------------------


@triton.jit
def _published_step(draws, step, steps, system, cumulative, x, y, ROWS: tl.constexpr):
    """Equation 2 for one step of each segment, and whether the segment has such a step."""
    there = step < steps
    draw = tl.load(draws + step, mask=there, other=0.0)
    row = tl.zeros(draw.shape, tl.int32)
    for r in tl.static_range(ROWS):
        row += (draw > tl.load(cumulative + r)).to(tl.int32)
    own = system + 6 * row
    a, b, c = tl.load(own), tl.load(own + 1), tl.load(own + 2)
    d, e, f = tl.load(own + 3), tl.load(own + 4), tl.load(own + 5)
    return tl.where(there, x * a + y * b + e, x), tl.where(there, x * c + y * d + f, y), there


@triton.jit(do_not_specialize=["points", "size", "padding"])
def _mark_published_orbits(
    systems,
    cumulatives,
    draws,
    latest,
    points,
    size,
    padding,
    ROWS: tl.constexpr,
    SEGMENTS: tl.constexpr,
):
    image = tl.program_id(0)
    system = systems + image * (ROWS + 1) * 6
    cumulative = cumulatives + image * ROWS
    segment = tl.arange(0, SEGMENTS)
    steps = points - 1
    length = (steps + SEGMENTS - 1) // SEGMENTS
    zero = tl.zeros([SEGMENTS], tl.float64)
    # A segment starts where the one before it ends. All start at the origin first, and then at the ends found so far,
    # until no end changes: that is after the second time, where rounding makes orbits of different starts equal.
    none = tl.zeros([SEGMENTS], tl.int32) + points
    start_x, start_y, first_x, first_y = zero, zero, none, none
    wrong = 1
    while wrong > 0:
        x, y = start_x, start_y
        first_x, first_y = none, none
        for n in range(length):
            step = segment * length + n
            x, y, there = _published_step(draws, step, steps, system, cumulative, x, y, ROWS)
            first_x = tl.where(there & (x != x), tl.minimum(first_x, step + 1), first_x)
            first_y = tl.where(there & (y != y), tl.minimum(first_y, step + 1), first_y)
        before = tl.maximum(segment - 1, 0)
        end_x = tl.where(segment > 0, tl.gather(x, before, 0), 0.0)
        end_y = tl.where(segment > 0, tl.gather(y, before, 0), 0.0)
        right_x = (end_x == start_x) | ((end_x != end_x) & (start_x != start_x))
        right_y = (end_y == start_y) | ((end_y != end_y) & (start_y != start_y))
        wrong = tl.sum(tl.where(right_x & right_y, 0, 1), 0)
        start_x, start_y = end_x, end_y

    # As rendering.points.valid_length, along x and then along y: points from 100 before the first NaN on are dropped.
    without_x, without_y = tl.min(first_x, 0), tl.min(first_y, 0)
    number = tl.where(without_x < points, tl.maximum(without_x - 100, 0), points)
    number = tl.where(without_y < number, tl.maximum(without_y - 100, 0), number)

    low_x, high_x, low_y, high_y = zero, zero, zero, zero
    x, y = start_x, start_y
    for n in range(length):
        step = segment * length + n
        x, y, there = _published_step(draws, step, steps, system, cumulative, x, y, ROWS)
        counts = there & (step + 1 < number)
        low_x, high_x = _widened(low_x, high_x, x, counts)
        low_y, high_y = _widened(low_y, high_y, y, counts)
    left, top = tl.min(low_x, 0), tl.min(low_y, 0)
    box = left, top, tl.max(high_x, 0) - left, tl.max(high_y, 0) - top

    marks = latest + image.to(tl.int64) * size * size
    # The origin is the first point; each step leads to the next one.
    _mark(marks, segment + 1, zero, zero, box, size, padding, (segment == 0) & (number > 0))
    x, y = start_x, start_y
    for n in range(length):
        step = segment * length + n
        x, y, there = _published_step(draws, step, steps, system, cumulative, x, y, ROWS)
        counts = there & (step + 1 < number)
        _mark(marks, step + 2, x, y, box, size, padding, counts)


# Launches -----------------------------------------------------------------------------------------------------------


def mark_published_orbits(
    systems: Float64[torch.Tensor, "n rows_with_identity 6"],
    cumulatives: Float64[torch.Tensor, "n rows"],
    draws: Float64[torch.Tensor, " points"],
    latest: Int32[torch.Tensor, "n size size"],
    *,
    padding: int,
) -> None:
    """Published orbits of many images, marked as by ``rendering.points.mark``.

    The single chain of an orbit is computed in 128 segments side by side. Where a system contracts, they are right
    after two rounds; where it expands, it may take as many rounds as there are segments.

    Args:
        systems: a to f of each image, with the identity behind each system's last row.
        cumulatives: cumulative probabilities, infinite for rows that fill up.
        draws: random numbers, one a step.
        latest: zeros; is filled as ``rendering.points.mark`` fills it.
        padding: of the canvas, in pixels.
    """
    _mark_published_orbits[(len(systems),)](
        systems,
        cumulatives,
        draws,
        latest,
        len(draws),
        latest.shape[1],
        padding,
        ROWS=cumulatives.shape[1],
        SEGMENTS=SEGMENTS,
        num_warps=4,
        **EXACT,
    )


def mark_orbits(
    systems: Float32[torch.Tensor, "n rows 6"],
    least: Int32[torch.Tensor, "n rows"],
    categories: Int64[torch.Tensor, " n"],
    draws: Int64[torch.Tensor, " n"],
    latest: Int32[torch.Tensor, "n size size"],
    *,
    points: int,
    padding: int,
    key: tuple[int, int],
) -> None:
    """Independent orbits of many images, marked as by ``rendering.points.mark``.

    One Triton program computes the 128 chains of an image. Where two points fall on a pixel, an atomic maximum keeps
    the higher point number, so the order in which points are computed does not matter.

    Args:
        systems: a to f of each image; rows that fill up are never selected.
        least: the least draw that selects a row or one behind it, 65536 for rows that fill up.
        categories, draws: words 3 and 2 of the counters of the random numbers.
        latest: zeros; is filled as ``rendering.points.mark`` fills it.
        points: number of points of an orbit.
        padding: of the canvas, in pixels.
        key: of the random numbers.
    """
    _mark_orbits[(len(systems),)](
        systems,
        least,
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
