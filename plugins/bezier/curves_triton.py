"""Points on Bezier curves on a GPU: ``curve_points`` and ``scale_and_move`` of its twin ``curves`` in one kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Float64, Int64

from formulavision.rendering.triton_support import EXACT

__all__ = ["curve_points"]


@triton.jit(do_not_specialize=["most_points"])
def _curve_points(bases, control, sizes, frames, square, points, most_points, POINTS: tl.constexpr):
    curve = tl.program_id(0).to(tl.int64)
    control_points, count = tl.load(sizes + 4 * curve), tl.load(sizes + 4 * curve + 1)
    basis, own = bases + tl.load(sizes + 4 * curve + 2), control + tl.load(sizes + 4 * curve + 3)
    n = tl.arange(0, POINTS)
    there = n < count
    x, y = tl.zeros([POINTS], tl.float64), tl.zeros([POINTS], tl.float64)
    for i in range(control_points):
        weight = tl.load(basis + i * count + n, mask=there, other=0.0)
        x += weight * tl.load(own + 2 * i)
        y += weight * tl.load(own + 2 * i + 1)
    left, right = tl.min(tl.where(there, x, float("inf")), 0), tl.max(tl.where(there, x, float("-inf")), 0)
    top, bottom = tl.min(tl.where(there, y, float("inf")), 0), tl.max(tl.where(there, y, float("-inf")), 0)
    side = tl.maximum(right - left, bottom - top)
    scale = tl.where(side > 0.0, tl.load(frames + 3 * curve) / tl.where(side > 0.0, side, 1.0), 0.0)
    low = tl.load(square)
    room = tl.load(square + 1) - low
    start_x = low + tl.load(frames + 3 * curve + 1) * (room - scale * (right - left))
    start_y = low + tl.load(frames + 3 * curve + 2) * (room - scale * (bottom - top))
    target = points + (curve * most_points + n) * 2
    tl.store(target, (start_x + scale * (x - left)).to(tl.float32), mask=there)
    tl.store(target + 1, (start_y + scale * (y - top)).to(tl.float32), mask=there)


def curve_points(
    bases: Float64[torch.Tensor, " bases"],
    control: Float64[torch.Tensor, " numbers"],
    sizes: Int64[torch.Tensor, "curves 4"],
    frames: Float64[torch.Tensor, "curves 3"],
    square: Float64[torch.Tensor, " 2"],
    most_points: int,
) -> Float32[torch.Tensor, "curves {most_points} 2"]:
    """Points on curves of any degrees, each curve scaled and moved.

    Args:
        bases: the Bernstein polynomials of the degrees one after the other, each [control points, points].
        control: the curves' control points, x and y in turn, among other numbers.
        sizes: of each curve: number of control points, number of points, index of its polynomials in ``bases``, index
            of its control points in ``control``.
        frames: of each curve: its extent, and its positions along x and y, as in ``curves.scale_and_move``.
        square: low and high, as there.
        most_points: largest number of points of a curve.

    Returns:
        The points, in pixels; behind a curve's last point the values are undefined.
    """
    points = torch.empty((len(sizes), most_points, 2), dtype=torch.float32, device=control.device)
    _curve_points[(len(sizes),)](
        bases,
        control,
        sizes,
        frames,
        square,
        points,
        most_points,
        POINTS=triton.next_power_of_2(most_points),
        num_warps=4,
        **EXACT,
    )
    return points
