"""Points in space on a GPU: the twin of ``draw_points`` of ``points_3d``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Int64, UInt8

from formulavision.rendering.triton_support import EXACT

__all__ = ["draw_points"]

_BLOCK = 1024


@triton.jit
def _cell(place, side):
    """The pixel of a place along an axis, and whether the image has it; positions are rounded to 1/256 first."""
    shifted = place * 256.0
    near = tl.abs(shifted) < 4194304.0  # beyond it, no image has the pixel; NaN is not near
    # Adding 1.5 x 2^23 rounds to whole numbers, halves to even ones, as rint does.
    rounded = tl.where(near, shifted, 0.0) + 12582912.0 - 12582912.0
    cell = tl.floor(rounded * 0.00390625)
    return cell.to(tl.int32), near & (cell >= 0) & (cell < side)


@triton.jit(do_not_specialize=["count", "size"])
def _mark_points(points, clouds, matrices, marks, count, size, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    cloud = points + tl.load(clouds + image) * 3 * count
    m = matrices + 16 * image
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = p < count
    x = tl.load(cloud + p, mask=there, other=0.0)
    y = tl.load(cloud + count + p, mask=there, other=0.0)
    z = tl.load(cloud + 2 * count + p, mask=there, other=0.0)
    depth = tl.load(m + 12) * x + tl.load(m + 13) * y + tl.load(m + 14) * z + tl.load(m + 15)
    inverse = tl.div_rn(tl.full([BLOCK], 1.0, tl.float32), depth)
    side = size.to(tl.float32)
    half = side * 0.5
    across = (tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2) * z + tl.load(m + 3)) * inverse * half + half
    up = (tl.load(m + 4) * x + tl.load(m + 5) * y + tl.load(m + 6) * z + tl.load(m + 7)) * inverse * half + half
    column, in_columns = _cell(across, side)
    row, in_rows = _cell(up, side)
    seen = there & in_columns & in_rows & (depth > 0)
    # Several points may fall on a pixel.
    tl.atomic_max(marks + image * size * size + row * size + column, 1, mask=seen, sem="relaxed")


def draw_points(
    points: Float32[torch.Tensor, "clouds 3 points"],
    clouds: Int64[torch.Tensor, " n"],
    matrices: Float32[torch.Tensor, "n 4 4"],
    value: int,
    out: UInt8[torch.Tensor, "n size size channels"],
) -> None:
    """Draw a dot of one pixel for each point of a cloud; points outside of the image, and NaN, are left out.

    Beside the images it takes 4 bytes a pixel of scratch memory.

    Args:
        points: x, y and z of each cloud.
        clouds: the cloud of each image.
        matrices: from ``points_3d.combined``.
        value: of the dots' pixels; others become 0.
        out: is filled; the first row of an image is the bottom of its view.
    """
    count, size = points.shape[2], out.shape[1]
    marks = torch.zeros(out.shape[:3], dtype=torch.int32, device=out.device)
    blocks = (len(out), triton.cdiv(count, _BLOCK))
    _mark_points[blocks](points, clouds, matrices, marks, count, size, BLOCK=_BLOCK, num_warps=4, **EXACT)
    out.copy_((marks * value)[..., None])
