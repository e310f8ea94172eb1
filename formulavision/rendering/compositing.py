"""Scenes from images of single objects, of which the last that covers a pixel owns it; and the objects of a map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from numba import uint64

from formulavision.rendering.kernels import kernel

__all__ = ["BY_BACKGROUND", "BY_MASK", "WHOLE", "compose", "measure_objects", "visible_pixels"]

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
    line = np.empty((channels, size), np.uint8)
    # All bits where the object is, else 0: bytes are blended by them in vector operations on every processor.
    covered, bits, none = np.empty(size, np.uint8), np.uint8(255), np.uint8(0)
    for n in range(objects.shape[0]):
        scene, number, start, mask_start, side, top, left, turn, where, kind = objects[n]
        background, depth = np.uint8(kind >> 1), channels if kind & 1 else 1
        # Steps in the object's image for a row and a column of the scene.
        along_rows, along_columns, origin = side, 1, 0
        if turn & 1:
            along_columns, origin = -1, side - 1
        if turn & 2:
            along_rows, origin = -side, origin + side * (side - 1)
        row_step, column_step = (along_columns, along_rows) if turn & 4 else (along_rows, along_columns)
        first, end = max(left, 0), min(left + side, size)
        width = end - first
        image, object_map = images[scene], object_maps[scene]
        for row in range(max(top, 0), min(top + side, size)):
            place = origin + (row - top) * row_step + (first - left) * column_step
            # Each step is a loop of its own over neighbours in memory, which the compiler turns into vector operations.
            for channel in range(depth):
                source = start + place * depth + channel
                for k in range(width):
                    line[channel, k] = pixels[source + k * column_step * depth]
            if where == WHOLE:
                covered[:width] = bits
            elif where == BY_MASK:
                for k in range(width):
                    covered[k] = bits if masks[mask_start + place + k * column_step] != 0 else none
            else:
                for k in range(width):
                    covered[k] = bits if line[0, k] != background else none
                for channel in range(1, depth):
                    for k in range(width):
                        covered[k] |= bits if line[channel, k] != background else none
            owner, value = object_map[row, first:end], np.uint16(number)
            for k in range(width):
                mask = np.uint16(covered[k]) * np.uint16(257)
                owner[k] = (value & mask) | (owner[k] & ~mask)
            for channel in range(channels):
                levels, drawn = line[channel if depth > 1 else 0], image[row, first:end, channel]
                factor = np.uint32(colors[n, channel])
                for k in range(width):
                    # A level times the factor over 255, rounded to the nearest.
                    product = np.uint32(levels[k]) * factor + np.uint32(128)
                    level = np.uint8((product + (product >> np.uint32(8))) >> np.uint32(8))
                    drawn[k] = (level & covered[k]) | (drawn[k] & ~covered[k])


@kernel
def visible_pixels(object_map: UInt16[np.ndarray, " pixels"], objects: int) -> Int64[np.ndarray, " objects"]:
    """Number of each object's visible pixels.

    Neighbours are counted in different rows of a table, since a count cannot be read again just after it is written.

    Args:
        object_map: 0 is background, k where object k is visible; what is above ``objects`` does not count.
    """
    counts = np.zeros((4, objects + 2), np.int64)
    for i in range(len(object_map)):
        counts[i & 3, min(uint64(object_map[i]), uint64(objects + 1))] += 1
    return counts.sum(axis=0)[1:-1]


@kernel
def measure_objects(
    object_map: UInt16[np.ndarray, "h w"], objects: int
) -> tuple[Int64[np.ndarray, "objects 4"], Int64[np.ndarray, " objects"]]:
    """The box of each object's visible pixels, and their number.

    Args:
        object_map: 0 is background, k where object k is visible, up to ``objects``.

    Returns:
        Left, top, right and bottom, of which right and bottom are the first that are outside, and which mean nothing
        where no pixel is visible; and the numbers of pixels.
    """
    height, width = object_map.shape
    boxes = np.zeros((objects, 4), np.int64)
    boxes[:, 0] = width
    boxes[:, 1] = height
    pixels = np.zeros(objects, np.int64)
    for row in range(height):
        column = 0
        while column < width:
            start, value = column, object_map[row, column]
            while column < width and object_map[row, column] == value:
                column += 1
            if value > 0:
                k = value - 1
                pixels[k] += column - start
                boxes[k, 0] = min(boxes[k, 0], start)
                boxes[k, 1] = min(boxes[k, 1], row)
                boxes[k, 2] = max(boxes[k, 2], column)
                boxes[k, 3] = row + 1
    return boxes, pixels
