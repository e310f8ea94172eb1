"""One-pixel lines and filled polygons on a GPU: the twin of ``pixel_lines``, for many polygons of many images.

What is drawn later covers what was drawn before, but here all polygons are drawn at once: each has a number, and a
pixel keeps the highest one. ``look_up`` then turns numbers into gray levels or objects.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Int32, Int64, UInt8

from formulavision.rendering.triton_support import EXACT

__all__ = ["draw_polygons", "fill_even_odd", "look_up"]

_SEGMENTS = 32
_ROWS, _COLUMNS = 8, 128
_BLOCK = 1024


@triton.jit(do_not_specialize=["size"])
def _draw_polygons(corners, polygons, owners, size, SEGMENTS: tl.constexpr):
    about = polygons + 4 * tl.program_id(0).to(tl.int64)
    own, count = corners + tl.load(about), tl.load(about + 1).to(tl.int32)
    canvas = owners + tl.load(about + 2) * size * size
    number = tl.full([SEGMENTS], 0, tl.int32) + tl.load(about + 3).to(tl.int32)
    for start in range(0, count, SEGMENTS):
        v = start + tl.arange(0, SEGMENTS)
        there = v < count
        following = tl.where(v + 1 < count, v + 1, 0)
        x0, y0 = tl.load(own + v, mask=there, other=0), tl.load(own + count + v, mask=there, other=0)
        x1, y1 = tl.load(own + following, mask=there, other=0), tl.load(own + count + following, mask=there, other=0)
        dx, dy = tl.abs(x1 - x0), tl.abs(y1 - y0)
        step_x, step_y = tl.where(x1 > x0, 1, -1), tl.where(y1 > y0, 1, -1)
        steep = dx <= dy
        major, minor = tl.where(steep, dy, dx), tl.where(steep, dx, dy)
        # The steps from the first to the last that the canvas holds along the longer side.
        begin, step = tl.where(steep, y0, x0), tl.where(steep, step_y, step_x)
        first = tl.maximum(tl.where(step > 0, -begin, begin - size + 1), 0)
        last = tl.where(there, tl.minimum(tl.where(step > 0, size - 1 - begin, begin), major), -1)
        twice = 2 * minor.to(tl.int64)
        k = ((twice * first + major) // tl.maximum(2 * major.to(tl.int64), 1)).to(tl.int32)
        error = (twice * (first + 1) - major - 2 * major.to(tl.int64) * k).to(tl.int32)
        x = x0 + step_x * tl.where(steep, k, first)
        y = y0 + step_y * tl.where(steep, first, k)
        for n in range(0, tl.max(last - first, 0) + 1):
            inside = (n <= last - first) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
            tl.atomic_max(canvas + y * size + x, number, mask=inside, sem="relaxed")
            turn = error >= 0
            x += tl.where(steep & (error < 0), 0, step_x)
            y += tl.where(steep | turn, step_y, 0)
            error += 2 * minor - tl.where(turn, 2 * major, 0)


def draw_polygons(
    corners: Int32[torch.Tensor, " numbers"],
    polygons: Int64[torch.Tensor, "polygons 4"],
    owners: Int32[torch.Tensor, "n size size"],
) -> None:
    """Draw the lines of closed polygons, as ``rendering.pixel_lines.draw_polygon`` does.

    Args:
        corners: of each polygon x of all corners, then y of all.
        polygons: of each: index of its first number in ``corners``, number of corners, index of its image, its number.
        owners: the highest number at each pixel, 0 at first; is drawn on.
    """
    _draw_polygons[(len(polygons),)](
        corners, polygons, owners, owners.shape[1], SEGMENTS=_SEGMENTS, num_warps=1, **EXACT
    )


@triton.jit(do_not_specialize=["size"])
def _fill_even_odd(corners, polygons, owners, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    about = polygons + 4 * tl.program_id(0).to(tl.int64)
    own, count = corners + tl.load(about), tl.load(about + 1).to(tl.int32)
    canvas = owners + tl.load(about + 2) * size * size
    tiles = tl.cdiv(size, COLUMNS)
    row = (tl.program_id(1) // tiles * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(1) % tiles * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    odd = tl.zeros([ROWS, COLUMNS], tl.int32)
    x0, y0 = tl.load(own + count - 1), tl.load(own + 2 * count - 1)
    for n in range(0, count):
        x1, y1 = tl.load(own + n), tl.load(own + count + n)
        top, bottom = tl.minimum(y0, y1), tl.maximum(y0, y1)
        upper, lower = tl.where(y0 < y1, x0, x1), tl.where(y0 < y1, x1, x0)
        height, across = tl.maximum(bottom - top, 1).to(tl.int64), (lower - upper).to(tl.int64)
        covers = (row >= top) & (row < bottom)
        down = tl.where(covers, row - top, 0).to(tl.int64)
        # Rounded up, by divisions of numbers that are not negative.
        moved = tl.where(across < 0, -((-across * down) // height), (across * down + height - 1) // height)
        odd = odd ^ (covers & (column >= upper + moved)).to(tl.int32)
        x0, y0 = x1, y1
    number = tl.zeros([ROWS, COLUMNS], tl.int32) + tl.load(about + 3).to(tl.int32)
    inside = (odd != 0) & (row < size) & (column < size)
    tl.atomic_max(canvas + row * size + column, number, mask=inside, sem="relaxed")


def fill_even_odd(
    corners: Int32[torch.Tensor, " numbers"],
    polygons: Int64[torch.Tensor, "polygons 4"],
    owners: Int32[torch.Tensor, "n size size"],
) -> None:
    """Fill polygons, as ``rendering.pixel_lines.fill_even_odd`` does; the arguments are those of ``draw_polygons``."""
    size = owners.shape[1]
    tiles = triton.cdiv(size, _ROWS) * triton.cdiv(size, _COLUMNS)
    _fill_even_odd[(len(polygons), tiles)](
        corners, polygons, owners, size, ROWS=_ROWS, COLUMNS=_COLUMNS, num_warps=4, **EXACT
    )


@triton.jit(do_not_specialize=["pixels"], do_not_specialize_on_alignment=["out"])
def _look_up(owners, tables, starts, out, pixels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < pixels
    owner = tl.load(owners + image * pixels + pixel, mask=there, other=0)
    value = tl.load(tables + tl.load(starts + image) + owner, mask=there, other=0)
    for channel in tl.static_range(CHANNELS):
        tl.store(out + (image * pixels + pixel) * CHANNELS + channel, value, mask=there)


def look_up(
    owners: Int32[torch.Tensor, "n size size"],
    tables: UInt8[torch.Tensor, " values"] | Int32[torch.Tensor, " values"],
    starts: Int64[torch.Tensor, " n"],
    out: UInt8[torch.Tensor, "n size size channels"] | Int32[torch.Tensor, "n size size channels"],
) -> None:
    """Fill images with the value of the number of each pixel.

    Args:
        owners: a number at each pixel.
        tables: the values of the numbers 0, 1, ... of one image after the other.
        starts: index of each image's first value.
        out: is filled, all channels alike.
    """
    pixels = owners.shape[1] * owners.shape[2]
    _look_up[(len(owners), triton.cdiv(pixels, _BLOCK))](
        owners, tables, starts, out, pixels, CHANNELS=out.shape[3], BLOCK=_BLOCK, num_warps=4, **EXACT
    )
