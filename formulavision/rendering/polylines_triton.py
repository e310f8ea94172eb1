"""Anti-aliased polylines on a GPU: the twin of ``polylines``, for many lines of many images in one call."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Int32, Int64, UInt8

from formulavision.rendering.triton_support import EXACT

__all__ = ["draw_polylines"]

_TILE = 8


@triton.jit
def _first_pixel(edge, size):
    """The first pixel whose centre is at ``edge`` or beyond it, from 0 to ``size``."""
    return tl.minimum(tl.maximum(tl.ceil(edge - 0.5), 0.0), size.to(tl.float32)).to(tl.int32)


@triton.jit(do_not_specialize=["size", "most_points"])
def _draw_polylines(
    points,
    counts,
    images,
    widths,
    colors,
    levels,
    size,
    most_points,
    CHANNELS: tl.constexpr,
    TILE: tl.constexpr,
):
    line = tl.program_id(0).to(tl.int64)
    ends = points + line * most_points * 2
    canvas = levels + tl.load(images + line) * size * size * CHANNELS
    reach = (tl.load(widths + line) + 1.0) * 0.5
    across = tl.arange(0, TILE)
    for n in range(tl.load(counts + line) - 1):
        ax, ay = tl.load(ends + 2 * n), tl.load(ends + 2 * n + 1)
        bx, by = tl.load(ends + 2 * n + 2), tl.load(ends + 2 * n + 3)
        # Further away float32 is too coarse to tell neighbouring pixels apart.
        near = (tl.abs(ax) <= 1e6) & (tl.abs(ay) <= 1e6) & (tl.abs(bx) <= 1e6) & (tl.abs(by) <= 1e6)
        left = _first_pixel(tl.minimum(ax, bx) - reach, size)
        right = tl.where(near, _first_pixel(tl.maximum(ax, bx) + reach, size), 0)
        top = _first_pixel(tl.minimum(ay, by) - reach, size)
        bottom = tl.where(near, _first_pixel(tl.maximum(ay, by) + reach, size), 0)
        dx, dy = bx - ax, by - ay
        squared_length = dx * dx + dy * dy
        # A segment without length is a dot: every pixel is nearest to its first end.
        long = squared_length > 0.0
        scale = tl.where(long, tl.div_rn(1.0, tl.where(long, squared_length, 1.0)), 0.0)
        for first_row in range(top, bottom, TILE):
            for first_column in range(left, right, TILE):
                row, column = (first_row + across)[:, None], (first_column + across)[None, :]
                y = row.to(tl.float32) + 0.5 - ay
                x = column.to(tl.float32) + 0.5 - ax
                # Position along the segment, 0 to 1, of the point that is nearest to the pixel.
                t = tl.minimum(tl.maximum((x * dx + y * dy) * scale, 0.0), 1.0)
                u, v = x - t * dx, y - t * dy
                coverage = tl.minimum(tl.maximum(reach - tl.sqrt_rn(u * u + v * v), 0.0), 1.0)
                target = canvas + (row * size + column) * CHANNELS
                for channel in tl.static_range(CHANNELS):
                    color = tl.load(colors + line * CHANNELS + channel).to(tl.float32)
                    level = (coverage * color + 0.5).to(tl.int32)
                    drawn = (row < bottom) & (column < right) & (level > 0)
                    tl.atomic_max(target + channel, level, mask=drawn, sem="relaxed")


def draw_polylines(
    points: Float32[torch.Tensor, "lines most_points 2"],
    counts: Int32[torch.Tensor, " lines"],
    images: Int64[torch.Tensor, " lines"],
    widths: Float32[torch.Tensor, " lines"],
    colors: UInt8[torch.Tensor, "lines channels"],
    levels: Int32[torch.Tensor, "n size size channels"],
) -> None:
    """Draw polylines over images, as ``rendering.polylines.draw_polylines`` does; one Triton program draws one line.

    Args:
        points: x and y in pixels.
        counts: number of points of each line.
        images: index of the image that each line is drawn on.
        widths: in pixels.
        colors: levels at full coverage.
        levels: 0 to 255, is drawn on; int32, because there is no atomic maximum of bytes.
    """
    _draw_polylines[(len(points),)](
        points,
        counts,
        images,
        widths,
        colors,
        levels,
        levels.shape[1],
        points.shape[1],
        CHANNELS=levels.shape[3],
        TILE=_TILE,
        num_warps=1,
        **EXACT,
    )
