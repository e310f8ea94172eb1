"""Points on Bezier curves on a GPU: ``curves.curve_points`` and ``curves.place`` in one."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from formulavision.rendering.triton_support import EXACT

__all__ = ["curve_points"]


@triton.jit(do_not_specialize=["most_points"])
def _curve_points(  # type: ignore[no-untyped-def]
    bases, control, sizes, frames, square, points, most_points, POINTS: tl.constexpr
):
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
    bases: torch.Tensor,
    control: torch.Tensor,
    sizes: torch.Tensor,
    frames: torch.Tensor,
    square: torch.Tensor,
    most_points: int,
) -> torch.Tensor:
    """Points on curves of any degrees, each curve scaled and moved to its place.

    Args:
        bases: float64, the Bernstein polynomials of the degrees one after the other, each [control points, points].
        control: float64, the curves' control points one after the other, x and y in turn.
        sizes: int64 [curves, 4]: control points, points, and where the curve's polynomials and control points begin.
        frames: float64 [curves, 3]: a curve's extent, and its place along x and y, as in ``curves.place``.
        square: float64 [2], low and high, as there.
        most_points: of a curve.

    Returns:
        float32 [curves, most points, 2], in pixels; anything beyond a curve's points.
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
