"""Scenes from images of single objects: the last object that covers a pixel owns it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from formulavision.rendering.kernels import kernel

__all__ = ["BY_BACKGROUND", "BY_MASK", "WHOLE", "compose"]

BY_BACKGROUND, BY_MASK, WHOLE = 0, 1, 2
"""Where an object is in its image: where a channel differs from the background, where a mask is not 0, everywhere."""


@kernel
def compose(
    pixels: UInt8[np.ndarray, " bytes"],
    masks: UInt8[np.ndarray, " mask_bytes"],
    objects: Int64[np.ndarray, "objects 10"],
    colors: UInt8[np.ndarray, "objects channels"],
    images: UInt8[np.ndarray, "n size size channels"],
    object_maps: UInt16[np.ndarray, "n size size"],
) -> None:
    """Draw objects over scenes, one after the other.

    Args:
        pixels: the images of all objects, [side, side, 1] or [side, side, channels] each, one after the other.
        masks: the masks of those objects that have one, [side, side] each.
        objects: of each object: its scene, its number in the object map, the start of its image in ``pixels``, of its
            mask in ``masks``, its side, the row and the column of its corner in the scene, its turn (0 to 7: 1 mirrors
            columns, 2 mirrors rows, then 4 exchanges rows and columns), where it is (``BY_BACKGROUND``, ``BY_MASK``,
            ``WHOLE``), and the background of its image times 2, plus 1 where the image has as many channels as the
            scene has.
        colors: factors of the levels in 255ths.
        images, object_maps: the scenes, changed where an object is.
    """
    size, channels = images.shape[1], images.shape[3]
    for n in range(objects.shape[0]):
        scene, number, start, mask_start, side, top, left, turn, where, kind = objects[n]
        background, depth = kind >> 1, channels if kind & 1 else 1
        # Steps in the object's image for a row and a column of the scene.
        row_step = column_step = origin = 0
        if turn & 4:
            row_step, column_step = 1, side
        else:
            row_step, column_step = side, 1
        if turn & 1:  # mirrors columns of the object's image
            if turn & 4:
                row_step, origin = -1, origin + side - 1
            else:
                column_step, origin = -1, origin + side - 1
        if turn & 2:
            if turn & 4:
                column_step, origin = -side, origin + side * (side - 1)
            else:
                row_step, origin = -side, origin + side * (side - 1)
        image, object_map = images[scene], object_maps[scene]
        for row in range(max(top, 0), min(top + side, size)):
            place = origin + (row - top) * row_step + (max(left, 0) - left) * column_step
            for column in range(max(left, 0), min(left + side, size)):
                first = start + place * depth
                if where == BY_MASK:
                    covered = masks[mask_start + place] != 0
                else:
                    covered = where == WHOLE
                    if not covered:
                        for channel in range(depth):
                            covered |= pixels[first + channel] != background
                if covered:
                    for channel in range(channels):
                        level = np.int64(pixels[first + (channel if depth > 1 else 0)])
                        image[row, column, channel] = (level * colors[n, channel] + 127) // 255
                    object_map[row, column] = number
                place += column_step
