"""Points and 3x3 patches: orbits to pixels, pixels to images.

An image is drawn in three passes, none of which pastes anything: ``mark`` notes for each pixel the last point that fell
on it, ``patch_owners`` finds for each pixel the last point whose patch covers it, and ``shade`` looks up what that
point's patch says there. "Last" is the highest number of a point, so the order in which points are drawn does not
matter, and the first two passes are the same for all patch draws of an orbit.
"""

from __future__ import annotations

import numpy as np
from numba import int32, uint8, uint16, uint32, uint64

from formulavision.rendering.kernels import kernel
from formulavision.rendering.random import philox_blocks

__all__ = [
    "bounding_box",
    "count_lit",
    "mark",
    "mirror",
    "patch_masks",
    "patch_owners",
    "place",
    "shade",
    "shade_in_colors",
    "to_pixels",
    "valid_length",
]

_BLOCK = 1024


@kernel
def valid_length(values, length):  # type: ignore[no-untyped-def]
    """How many of the first ``length`` points the published renderer keeps: all before 100 before the first NaN."""
    # A NaN makes all points after it NaN.
    if length == 0 or not np.isnan(values[length - 1]):
        return length
    for i in range(length):
        if np.isnan(values[i]):
            return max(0, i - 100)
    return length


@kernel
def _bounds(values, length):  # type: ignore[no-untyped-def]
    """Smallest and largest value and zero; 32 running pairs let the compiler use vector instructions."""
    low = np.zeros(32, values.dtype)
    high = np.zeros(32, values.dtype)
    whole = length // 32 * 32
    for i in range(0, whole, 32):
        for k in range(32):
            value = values[i + k]
            low[k] = value if value < low[k] else low[k]
            high[k] = value if value > high[k] else high[k]
    for i in range(whole, length):
        low[0] = min(low[0], values[i])
        high[0] = max(high[0], values[i])
    for k in range(1, 32):
        low[0] = min(low[0], low[k])
        high[0] = max(high[0], high[k])
    return low[0], high[0]


@kernel
def bounding_box(x, y, length):  # type: ignore[no-untyped-def]
    """(low x, high x, low y, high y) of the first points and the origin, where the published orbit starts."""
    low_x, high_x = _bounds(x, length)
    low_y, high_y = _bounds(y, length)
    return low_x, high_x, low_y, high_y


@kernel(error_model="numpy")
def _place(values, length, low, high, size, padding, pixels):  # type: ignore[no-untyped-def]
    extent = float(size - 2 * padding)
    border = float(padding)
    last = int32(size - 1)
    spread = high - low
    if np.isfinite(spread) and spread > 0.0:
        for i in range(length):
            pixels[i] = uint16(min(int32((values[i] - low) / spread * extent + border), last))
    else:
        # An orbit that overflowed, or a single point: what is no number becomes 0, as its cast to uint16 does.
        for i in range(length):
            pixel = (values[i] - low) / spread * extent + border
            pixels[i] = uint16(int32(pixel)) if np.isfinite(pixel) else uint16(0)


@kernel
def place(x, y, length, box, size, padding, columns, rows):  # type: ignore[no-untyped-def]
    """Scale points to the canvas as the published renderer does, in its order of operations.

    Args:
        x, y: float32 or float64 [>= length]; an orbit that diverged may hold infinities.
        box: low x, high x, low y, high y of the points and the origin.
        size, padding: of the canvas, in pixels.
        columns, rows: uint16 [>= length], are filled; row 0 is the lowest y.
    """
    _place(x, length, box[0], box[1], size, padding, columns)
    _place(y, length, box[2], box[3], size, padding, rows)


@kernel
def to_pixels(x, y, size, padding, columns, rows):  # type: ignore[no-untyped-def]
    """``place`` an orbit that may hold NaN, in its own bounding box.

    Returns:
        The number of points that there are: those from 100 before the first NaN on are dropped.
    """
    length = valid_length(y, valid_length(x, len(x)))
    place(x, y, length, bounding_box(x, y, length), size, padding, columns, rows)
    return length


@kernel
def mark(columns, rows, length, latest):  # type: ignore[no-untyped-def]
    """Note for each pixel the last point on it.

    Args:
        columns, rows: uint16 [>= length].
        latest: uint32 [h, w], is filled: 16 times the point's number, counted from 1, or 0.
    """
    latest[:] = 0
    pixels = latest.reshape(-1)
    width = uint32(latest.shape[1])
    block = np.empty(_BLOCK, np.uint32)
    for start in range(0, length, _BLOCK):
        size = min(_BLOCK, length - start)
        block_rows, block_columns = rows[start : start + size], columns[start : start + size]
        for i in range(size):
            block[i] = uint32(block_rows[i]) * width + uint32(block_columns[i])
        for i in range(size):
            pixels[uint64(block[i])] = uint32((start + i + 1) << 4)


@kernel
def patch_owners(latest, owners):  # type: ignore[no-untyped-def]
    """Find for each pixel the last point whose 3x3 patch covers it.

    A patch's top left corner lies at (row + 1, column + 1) of its point, as in the published renderer.

    Args:
        latest: uint32 [h, w] from ``mark``, at least 4 x 4.
        owners: uint32 [h, w], is filled: 16 times the point's number, and the bit of its mask: 8 for the top left
            to 0. Below 16 where no patch is.
    """
    height, width = latest.shape
    # The greatest of three columns, kept for three rows; then of three rows. The numbers of points differ, so that the
    # bits added to them decide nothing.
    recent = np.zeros((3, width), np.uint32)
    owners[0] = 0
    for row in range(height - 1):
        source = latest[row]
        line = recent[row % 3]
        line[1] = source[0] + uint32(2)
        line[2] = max(source[1] + uint32(2), source[0] + uint32(1))
        for column in range(3, width):
            line[column] = max(max(source[column - 1] + uint32(2), source[column - 2] + uint32(1)), source[column - 3])
        middle, bottom = recent[(row + 2) % 3], recent[(row + 1) % 3]
        target = owners[row + 1]
        for column in range(width):
            target[column] = max(max(line[column] + uint32(6), middle[column] + uint32(3)), bottom[column])


@kernel
def shade(owners, masks, value, image):  # type: ignore[no-untyped-def]
    """Draw an image from its pixels' owners.

    Args:
        owners: uint32 [h, w], from ``patch_owners``, or for bare points from ``mark`` (with the masks [0, 1]).
        masks: uint16 [m], 9 bits each, bit 8 is the patch's top left, row by row. The first is 0; point i has mask
            i + 1, or the last one where there are fewer.
        value: of lit pixels.
        image: uint8 [h, w], is filled.
    """
    last = uint32(len(masks) - 1)
    lit = uint8(value)
    line = np.empty(owners.shape[1], np.uint32)
    for row in range(owners.shape[0]):
        source = owners[row]
        target = image[row]
        # Looked up first, so that the rest runs on vector registers.
        for column in range(len(source)):
            line[column] = masks[uint64(min(source[column] >> uint32(4), last))]
        for column in range(len(source)):
            target[column] = lit * uint8((line[column] >> (source[column] & uint32(15))) & uint32(1))


@kernel
def shade_in_colors(owners, masks, period, image):  # type: ignore[no-untyped-def]
    """As ``shade``; a lit pixel of point i gets the number of its colour, 1 + i mod ``period``."""
    shade(owners, masks, 1, image)
    for row in range(owners.shape[0]):
        for column in range(owners.shape[1]):
            if image[row, column]:
                image[row, column] = 1 + ((owners[row, column] >> uint32(4)) - uint32(1)) % uint32(period)


@kernel
def mirror(image, target):  # type: ignore[no-untyped-def]
    """Copy an image, uint8 [h, w], flipped left-right: nine times as fast as a copy of numpy's reversed view."""
    # Unsigned, since numba looks for negative indices otherwise.
    last = uint64(image.shape[1] - 1)
    for row in range(uint64(image.shape[0])):
        for column in range(uint64(image.shape[1])):
            target[row, column] = image[row, last - column]


@kernel
def patch_masks(masks, counter2, counter3, key0, key1):  # type: ignore[no-untyped-def]
    """Fill ``masks``, uint16 [n], with 9-bit masks from 1 to 511.

    Mask 1024 c + 128 h + b is half h (the lower half of word 0, its upper half, the lower half of word 1, ...) of block
    128 c + b of Philox4x32-10: an order that vector registers fill.
    """
    words = np.empty((4, 128), np.uint32)
    for start in range(0, len(masks), 1024):
        philox_blocks(start // 8, uint32(0), uint32(counter2), uint32(counter3), uint32(key0), uint32(key1), words)
        for half in range(8):
            word = words[half >> 1]
            shift = uint32(16) * uint32(half & 1)
            target = masks[start + 128 * half : start + 128 * half + 128]
            for b in range(len(target)):
                target[b] = 1 + ((int32((word[b] >> shift) & uint32(0xFFFF)) * int32(511)) >> int32(16))


@kernel
def count_lit(columns, rows, length, grid):  # type: ignore[no-untyped-def]
    """Number of different pixels that points fall on; ``grid``, uint8 [h, w], is scratch space."""
    grid[:] = 0
    lit = 0
    for i in range(length):
        if grid[rows[i], columns[i]] == 0:
            grid[rows[i], columns[i]] = 1
            lit += 1
    return lit
