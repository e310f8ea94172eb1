"""Points and 3x3 patches: orbits to pixels, pixels to images."""

from __future__ import annotations

import numpy as np
from numba import int32, njit, uint8, uint16, uint32, uint64

from formulavision.rendering.random import philox4x32

__all__ = [
    "count_lit",
    "paste_patches",
    "paste_patches_in_colors",
    "patch_masks",
    "plot_points",
    "to_pixels",
    "valid_length",
]


@njit(cache=True, nogil=True)
def valid_length(values, length):  # type: ignore[no-untyped-def]
    """How many of the first ``length`` points the published renderer keeps: all before 100 before the first NaN."""
    # A NaN makes all points after it NaN.
    if length == 0 or not np.isnan(values[length - 1]):
        return length
    for i in range(length):
        if np.isnan(values[i]):
            return max(0, i - 100)
    return length


@njit(cache=True, nogil=True)
def _bounds(values, length):  # type: ignore[no-untyped-def]
    """Smallest and largest value; eight running pairs let the compiler use vector instructions."""
    low = np.full(8, values[0])
    high = np.full(8, values[0])
    whole = length // 8 * 8
    for i in range(0, whole, 8):
        for k in range(8):
            value = values[i + k]
            low[k] = value if value < low[k] else low[k]
            high[k] = value if value > high[k] else high[k]
    for i in range(whole, length):
        low[0] = min(low[0], values[i])
        high[0] = max(high[0], values[i])
    return low.min(), high.max()


@njit(cache=True, nogil=True)
def _place(values, length, extent, padding, last, pixels):  # type: ignore[no-untyped-def]
    low, high = _bounds(values, length)
    # The origin, where the published orbit starts, lies within the bounds of every orbit.
    shift = min(low, 0.0)
    spread = max(high, 0.0) - shift
    if np.isfinite(spread) and spread > 0.0:
        for i in range(length):
            pixels[i] = uint16(min(int32((values[i] - shift) / spread * extent + padding), last))
    else:
        # An orbit that overflowed, or a single point: what is no number becomes 0, as its cast to uint16 does.
        for i in range(length):
            place = (values[i] - shift) / spread * extent + padding
            pixels[i] = uint16(int32(place)) if np.isfinite(place) else uint16(0)


@njit(cache=True, nogil=True)
def to_pixels(x, y, size, padding, columns, rows):  # type: ignore[no-untyped-def]
    """Scale an orbit to the canvas as the published renderer does, in its order of operations.

    Args:
        x, y: float32 or float64 [n], the orbit; one that diverged may hold infinities and NaN. The origin counts as
            one of its points, as in the published orbit, which starts there.
        size, padding: of the canvas, in pixels.
        columns, rows: uint16 [n], are filled; row 0 is the lowest y.

    Returns:
        The number of points that there are: those from 100 before the first NaN on are dropped.
    """
    length = valid_length(y, valid_length(x, len(x)))
    if length > 0:
        extent = float(size - 2 * padding)
        _place(x, length, extent, float(padding), int32(size - 1), columns)
        _place(y, length, extent, float(padding), int32(size - 1), rows)
    return length


@njit(cache=True, nogil=True)
def plot_points(image, columns, rows, length, values):  # type: ignore[no-untyped-def]
    """Set one pixel a point: point i to ``values[i mod len(values)]``; later points win.

    Args:
        image: uint8 [h, w]; row 0 is row 0 of the points.
        columns, rows: uint16 [>= length].
        values: uint8 [period].
    """
    period = len(values)
    phase = 0
    for i in range(length):
        image[rows[i], columns[i]] = values[phase]
        phase += 1
        if phase == period:
            phase = 0


@njit(cache=True, nogil=True)
def paste_patches(image, columns, rows, length, masks, value):  # type: ignore[no-untyped-def]
    """Paste a 3x3 patch a point, its top left corner at (column + 1, row + 1); later patches win, with their zeros too.

    The image is kept as bits while it is drawn, 64 pixels of a row in a word, so that a patch is three words and not
    nine bytes.

    Args:
        image: uint8 [h, w], is set to 0 and ``value``; what reaches beyond it is cut off.
        columns, rows: uint16 [>= length].
        masks: uint16 [m], point i has mask i mod m: 9 bits, bit 8 is the top left, row by row.
        value: of the lit pixels.
    """
    height, width = image.shape
    number_of_masks = len(masks)
    # Room for the patches of the last row and column, and for the word after a patch that straddles two.
    bits = np.zeros((height + 4, (width + 4) // 64 + 2), np.uint64)
    # The leftmost pixel is the highest of a mask's three bits and the lowest bit in a word.
    mirrored = np.array([0, 4, 2, 6, 1, 5, 3, 7], np.uint64)
    seven = uint64(7)
    turn = 0
    for i in range(length):
        # Unsigned, since numba looks for negative indices otherwise.
        row = uint64(rows[i]) + uint64(1)
        column = uint64(columns[i]) + uint64(1)
        word = column >> uint64(6)
        place = column & uint64(63)
        mask = uint64(masks[turn])
        top = mirrored[(mask >> uint64(6)) & seven]
        middle = mirrored[(mask >> uint64(3)) & seven]
        bottom = mirrored[mask & seven]
        keep = ~(seven << place)
        bits[row, word] = (bits[row, word] & keep) | (top << place)
        bits[row + uint64(1), word] = (bits[row + uint64(1), word] & keep) | (middle << place)
        bits[row + uint64(2), word] = (bits[row + uint64(2), word] & keep) | (bottom << place)
        if place > uint64(61):
            rest = uint64(64) - place
            keep = ~(seven >> rest)
            word += uint64(1)
            bits[row, word] = (bits[row, word] & keep) | (top >> rest)
            bits[row + uint64(1), word] = (bits[row + uint64(1), word] & keep) | (middle >> rest)
            bits[row + uint64(2), word] = (bits[row + uint64(2), word] & keep) | (bottom >> rest)
        turn += 1
        if turn == number_of_masks:
            turn = 0
    lit = uint8(value)
    for row in range(height):
        for column in range(width):
            image[row, column] = lit * uint8((bits[row, column >> 6] >> uint64(column & 63)) & uint64(1))


@njit(cache=True, nogil=True)
def paste_patches_in_colors(image, columns, rows, length, masks, values):  # type: ignore[no-untyped-def]
    """As ``paste_patches``, where the lit pixels of point i get ``values[i mod len(values)]``, uint8 [period]."""
    height, width = image.shape
    period = len(values)
    number_of_masks = len(masks)
    phase = 0
    turn = 0
    image[:] = 0
    for i in range(length):
        row = int(rows[i]) + 1
        column = int(columns[i]) + 1
        mask = masks[turn]
        value = values[phase]
        for k in range(min(3, height - row)):
            for m in range(min(3, width - column)):
                image[row + k, column + m] = value * uint8((mask >> (8 - 3 * k - m)) & 1)
        phase += 1
        if phase == period:
            phase = 0
        turn += 1
        if turn == number_of_masks:
            turn = 0


@njit(cache=True, nogil=True)
def patch_masks(masks, counter2, counter3, key0, key1):  # type: ignore[no-untyped-def]
    """Fill ``masks``, uint16 [n], with 9-bit masks from 1 to 511: mask i is 16 bits of block i div 8 of Philox4x32."""
    n = len(masks)
    for block in range((n + 7) // 8):
        words = philox4x32(uint32(block), uint32(0), uint32(counter2), uint32(counter3), uint32(key0), uint32(key1))
        for k in range(4):
            i = 8 * block + 2 * k
            if i < n:
                masks[i] = uint16(uint32(1) + ((words[k] & uint32(0xFFFF)) * uint32(511) >> uint32(16)))
            if i + 1 < n:
                masks[i + 1] = uint16(uint32(1) + ((words[k] >> uint32(16)) * uint32(511) >> uint32(16)))


@njit(cache=True, nogil=True)
def count_lit(columns, rows, length, grid):  # type: ignore[no-untyped-def]
    """Number of different pixels that points fall on; ``grid``, uint8 [h, w], is scratch space."""
    grid[:] = 0
    lit = 0
    for i in range(length):
        if grid[rows[i], columns[i]] == 0:
            grid[rows[i], columns[i]] = 1
            lit += 1
    return lit
