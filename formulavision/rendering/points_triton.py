"""Patches on a GPU: ``patch_owners``, ``patch_masks``, ``shade`` and ``mirror`` of ``points`` in one kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Int32, Int64, UInt8

from formulavision.rendering.random_triton import philox4x32
from formulavision.rendering.triton_support import EXACT, signed

__all__ = ["shade"]

_BLOCK = 1024


@triton.jit(
    do_not_specialize=["size", "period", "key0", "key1"],
    do_not_specialize_on_alignment=["categories", "draws", "flips", "out"],
)
def _shade(
    latest,
    categories,
    draws,
    flips,
    palette,
    out,
    size,
    period,
    key0,
    key1,
    PATCH: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = pixel < size * size
    row, column = pixel // size, pixel % size
    marks = latest + image.to(tl.int64) * size * size
    if PATCH == "point":
        point = tl.load(marks + pixel, mask=there, other=0) >> 4
        lit = point > 0
    else:
        owner = tl.zeros([BLOCK], tl.int32)
        for i in tl.static_range(3):
            for j in tl.static_range(3):
                covered = there & (row > i) & (column > j)
                mark = tl.load(marks + (row - 1 - i) * size + column - 1 - j, mask=covered, other=0)
                owner = tl.maximum(owner, mark + (8 - 3 * i - j))
        point = owner >> 4
        lit = point > 0
        if PATCH != "full":
            # Mask 1024 c + 128 h + b is half h of block 128 c + b; fixed patches are all mask 0.
            number = tl.where(point > 0, point - 1, 0) if PATCH == "random" else tl.zeros([BLOCK], tl.int32)
            half = number % 1024 // 128
            draw, category = tl.load(draws + image), tl.load(categories + image)
            block = number // 1024 * 128 + number % 128
            w0, w1, w2, w3 = philox4x32(block, tl.zeros([], tl.uint32), draw, category, key0, key1)
            word = tl.where(half < 4, tl.where(half < 2, w0, w1), tl.where(half < 6, w2, w3))
            bits = ((word >> (16 * (half % 2)).to(tl.uint32)) & 0xFFFF).to(tl.int32)
            mask = 1 + ((bits * 511) >> 16)
            lit = (point > 0) & (((mask >> (owner & 15)) & 1) == 1)
    color = tl.where(lit, 1 + (point - 1) % period, 0)
    # Row 0 of the points is the lowest y; flips: none, top-bottom, left-right, both.
    flip = tl.load(flips + image)
    down = tl.where(flip % 2 == 0, size - 1 - row, row)
    right = tl.where(flip >= 2, size - 1 - column, column)
    target = out + (image.to(tl.int64) * size * size + down * size + right) * CHANNELS
    for channel in tl.static_range(CHANNELS):
        value = tl.load(palette + color * CHANNELS + channel, mask=there, other=0)
        tl.store(target + channel, value, mask=there)


def shade(
    latest: Int32[torch.Tensor, "n size size"],
    categories: Int64[torch.Tensor, " n"],
    draws: Int64[torch.Tensor, " n"],
    flips: Int64[torch.Tensor, " n"],
    palette: UInt8[torch.Tensor, "colors channels"],
    out: UInt8[torch.Tensor, "n size size channels"],
    *,
    patch: str,
    key: tuple[int, int],
) -> None:
    """Draw images from the last point on each pixel.

    Args:
        latest: as from ``rendering.points.mark``; row 0 is the lowest y.
        categories, draws: words 3 and 2 of the counters of the random masks.
        flips: 0 none, 1 top-bottom, 2 left-right, 3 both.
        palette: the colour of pixels that are not lit, then those of lit pixels, which points take in turn.
        out: is filled.
        patch: "random" (a mask for each point), "fixed" (one mask for all points of an image), "full"
            (all of a patch is lit) or "point" (no patches).
        key: key of the random numbers.
    """
    n, size = latest.shape[:2]
    _shade[(n, triton.cdiv(size * size, _BLOCK))](
        latest,
        categories,
        draws,
        flips,
        palette,
        out,
        size,
        len(palette) - 1,
        signed(key[0]),
        signed(key[1]),
        PATCH=patch,
        CHANNELS=out.shape[3],
        BLOCK=_BLOCK,
        num_warps=4,
        **EXACT,
    )
