"""Clouds of points on a GPU, the twin of ``cloud`` in ``clouds``: each lane computes one cloud, step after step."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Float64

from formulavision.rendering.triton_support import EXACT

__all__ = ["draw_clouds"]

_LANES, _BLOCK = 32, 1024


@triton.jit
def _widened(low, high, value):
    """Bounds so far; NaN is in no bounds."""
    return tl.where(value < low, value, low), tl.where(value > high, value, high)


@triton.jit
def _scaled(value, low, spread):
    return ((value - low) / spread) * 2 - 1


@triton.jit(do_not_specialize=["clouds", "count", "rows"])
def _orbits(systems, cumulatives, draws, orbits, bounds, clouds, count, rows, LANES: tl.constexpr):
    """Orbits, and the lowest value of each cloud and its spread: NaN where the orbit diverges."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    there = lane < clouds
    zero = tl.zeros([LANES], tl.float64)
    infinity = zero + float("inf")
    x, y, z, low, high = zero, zero, zero, infinity, -infinity
    for step in range(count):
        draw = tl.load(draws + step * clouds + lane, mask=there, other=0.0)
        row = tl.zeros([LANES], tl.int32)
        for r in range(rows):
            row += (draw > tl.load(cumulatives + r * clouds + lane, mask=there, other=0.0)).to(tl.int32)
        w = systems + (lane * (rows + 1) + row) * 12
        w0, w1, w2 = tl.load(w, there, 0.0), tl.load(w + 1, there, 0.0), tl.load(w + 2, there, 0.0)
        w3, w4, w5 = tl.load(w + 3, there, 0.0), tl.load(w + 4, there, 0.0), tl.load(w + 5, there, 0.0)
        w6, w7, w8 = tl.load(w + 6, there, 0.0), tl.load(w + 7, there, 0.0), tl.load(w + 8, there, 0.0)
        w9, w10, w11 = tl.load(w + 9, there, 0.0), tl.load(w + 10, there, 0.0), tl.load(w + 11, there, 0.0)
        x, y, z = x * w0 + y * w1 + z * w2 + w9, x * w3 + y * w4 + z * w5 + w10, x * w6 + y * w7 + z * w8 + w11
        low, high = _widened(low, high, x)
        low, high = _widened(low, high, y)
        low, high = _widened(low, high, z)
        target = orbits + step * 3 * clouds + lane
        tl.store(target, x, mask=there)
        tl.store(target + clouds, y, mask=there)
        tl.store(target + 2 * clouds, z, mask=there)
    spread = high - low
    last = x + y + z
    finite = (spread > 0.0) & (spread < float("inf")) & (last == last)
    tl.store(bounds + lane, low, mask=there)
    tl.store(bounds + clouds + lane, tl.where(finite, spread, float("nan")), mask=there)


@triton.jit(do_not_specialize=["clouds", "count"])
def _means(orbits, bounds, means, clouds, count, LANES: tl.constexpr):
    """The mean of the scaled points of each cloud along each axis: added one after the other, divided by 10,000."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    there = lane < clouds
    low = tl.load(bounds + lane, mask=there, other=0.0)
    spread = tl.load(bounds + clouds + lane, mask=there, other=1.0)
    x = tl.zeros([LANES], tl.float64)
    y, z = x, x
    for step in range(count):
        values = orbits + step * 3 * clouds + lane
        x += _scaled(tl.load(values, mask=there, other=0.0), low, spread)
        y += _scaled(tl.load(values + clouds, mask=there, other=0.0), low, spread)
        z += _scaled(tl.load(values + 2 * clouds, mask=there, other=0.0), low, spread)
    tl.store(means + lane, x / 10000, mask=there)
    tl.store(means + clouds + lane, y / 10000, mask=there)
    tl.store(means + 2 * clouds + lane, z / 10000, mask=there)


@triton.jit(do_not_specialize=["clouds", "count"])
def _centred(orbits, bounds, means, points, clouds, count, BLOCK: tl.constexpr):
    """The points of a cloud along an axis, scaled and centred."""
    cloud, axis = tl.program_id(0), tl.program_id(1)
    step = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    there = step < count
    value = tl.load(orbits + (step * 3 + axis) * clouds + cloud, mask=there, other=0.0)
    scaled = _scaled(value, tl.load(bounds + cloud), tl.load(bounds + clouds + cloud))
    target = points + (cloud * 3 + axis).to(tl.int64) * count + step
    tl.store(target, (scaled - tl.load(means + axis * clouds + cloud)).to(tl.float32), mask=there)


def draw_clouds(
    systems: Float64[torch.Tensor, "clouds rows_with_identity 12"],
    cumulatives: Float64[torch.Tensor, "rows clouds"],
    draws: Float64[torch.Tensor, "points clouds"],
) -> Float32[torch.Tensor, "clouds 3 points"]:
    """The points of clouds, scaled and centred; NaN where an orbit diverges.

    Beside the result it takes 24 bytes a point of scratch memory.

    Args:
        systems: A and b of each cloud, weighted, with the identity behind each system's last row.
        cumulatives: cumulative probabilities; infinite for rows that fill up.
        draws: random numbers, one a step.
    """
    count, clouds = draws.shape
    make = functools.partial(torch.empty, dtype=torch.float64, device=draws.device)
    orbits, bounds, means = make((count, 3, clouds)), make((2, clouds)), make((3, clouds))
    points = torch.empty((clouds, 3, count), dtype=torch.float32, device=draws.device)
    lanes = (triton.cdiv(clouds, _LANES),)
    blocks = (clouds, 3, triton.cdiv(count, _BLOCK))
    _orbits[lanes](
        systems, cumulatives, draws, orbits, bounds, clouds, count, len(cumulatives), LANES=_LANES, num_warps=1, **EXACT
    )
    _means[lanes](orbits, bounds, means, clouds, count, LANES=_LANES, num_warps=1, **EXACT)
    _centred[blocks](orbits, bounds, means, points, clouds, count, BLOCK=_BLOCK, num_warps=4, **EXACT)
    return points
