"""Scenes from images of single objects on a GPU: the twin of ``compositing``."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from jaxtyping import Int32, Int64, UInt8

from formulavision.rendering.compositing import BY_MASK, WHOLE
from formulavision.rendering.triton_support import EXACT, upload

__all__ = ["compose"]

_BLOCK = 256


@triton.jit(do_not_specialize=["size"])
def _compose(
    pixels,
    masks,
    objects,
    colors,
    firsts,
    images,
    object_maps,
    size,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
    MASK: tl.constexpr,
    EVERYWHERE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    scene = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    on_canvas = pixel < size * size
    row, column = pixel // size, pixel % size
    owner = tl.full([BLOCK], -1, tl.int32)
    source = tl.full([BLOCK], 0, tl.int64)
    first, end = tl.load(firsts + scene), tl.load(firsts + scene + 1)
    for n in range(first, end):
        about = objects + tl.cast(n, tl.int64) * 10
        start, mask_start = tl.load(about + 2), tl.load(about + 3)
        side = tl.load(about + 4).to(tl.int32)
        r = row - tl.load(about + 5).to(tl.int32)
        c = column - tl.load(about + 6).to(tl.int32)
        turn, where = tl.load(about + 7).to(tl.int32), tl.load(about + 8).to(tl.int32)
        background = (tl.load(about + 9) >> 1).to(tl.int32)
        inside = on_canvas & (r >= 0) & (r < side) & (c >= 0) & (c < side)
        exchanged = (turn & 4) != 0
        y, x = tl.where(exchanged, c, r), tl.where(exchanged, r, c)
        y = tl.where((turn & 2) != 0, side - 1 - y, y)
        x = tl.where((turn & 1) != 0, side - 1 - x, x)
        place = (y * side + x).to(tl.int64)
        place = tl.where(inside, place, 0)
        covered = inside & (where == EVERYWHERE)
        by_mask = inside & (where == MASK)
        covered = covered | (by_mask & (tl.load(masks + mask_start + place, mask=by_mask, other=0) != 0))
        by_background = inside & (where != MASK) & (where != EVERYWHERE)
        for channel in tl.static_range(DEPTH):
            level = tl.load(pixels + start + place * DEPTH + channel, mask=by_background, other=0).to(tl.int32)
            covered = covered | (by_background & (level != background))
        owner = tl.where(covered, n, owner)
        source = tl.where(covered, start + place * DEPTH, source)
    owned = owner >= 0
    at = scene * size * size + pixel
    number = tl.load(objects + tl.where(owned, owner, 0).to(tl.int64) * 10 + 1, mask=owned, other=0)
    tl.store(object_maps + at, number.to(tl.int32), mask=owned)
    for channel in tl.static_range(CHANNELS):
        level = tl.load(pixels + source + (channel if DEPTH > 1 else 0), mask=owned, other=0).to(tl.int32)
        factor = tl.load(colors + tl.where(owned, owner, 0) * CHANNELS + channel, mask=owned, other=0).to(tl.int32)
        tl.store(images + at * CHANNELS + channel, ((level * factor + 127) // 255).to(tl.uint8), mask=owned)


def compose(
    pixels: UInt8[torch.Tensor, " bytes"],
    masks: UInt8[torch.Tensor, " mask_bytes"],
    objects: Int64[np.ndarray, "objects 10"],
    colors: UInt8[np.ndarray, "objects channels"],
    images: UInt8[torch.Tensor, "n size size channels"],
    object_maps: Int32[torch.Tensor, "n size size"],
) -> None:
    """Draw objects over scenes, as ``rendering.compositing.compose`` does; one Triton program draws 256 pixels.

    Args:
        pixels, masks: on the device.
        objects, colors: of each object, on the host; the objects of a scene are neighbours.
        images, object_maps: the scenes, on the device, changed where an object is.
    """
    n, size, _, channels = images.shape
    depth = channels if objects[0, 9] & 1 else 1
    firsts = np.searchsorted(objects[:, 0], np.arange(n + 1)).astype(np.int32)
    device = images.device
    _compose[(n, triton.cdiv(size * size, _BLOCK))](
        pixels,
        masks if len(masks) else pixels,
        upload(objects, device),
        upload(colors, device),
        upload(firsts, device),
        images,
        object_maps,
        size,
        CHANNELS=channels,
        DEPTH=depth,
        MASK=BY_MASK,
        EVERYWHERE=WHOLE,
        BLOCK=_BLOCK,
        **EXACT,
    )
