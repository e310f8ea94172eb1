"""Points and 3x3 patches: orbits to pixels, pixels to images.

Overlapping patches are resolved per pixel: the patch of the last point wins. An image is drawn in three passes:
``mark`` writes for each pixel the last point on it, ``patch_owners`` finds for each pixel the last point whose patch
covers it, and ``shade`` looks up whether that point's patch lights the pixel. "Last" is the highest point number, so
points can be processed in any order, and the first two passes are the same for all patch draws of an orbit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8, UInt16, UInt32
from llvmlite import ir
from numba import float64, int32, uint8, uint16, uint32, uint64
from numba.extending import intrinsic

from formulavision.rendering.kernels import kernel
from formulavision.rendering.random import philox_blocks

__all__ = [
    "bounding_box",
    "light",
    "mark",
    "mirror",
    "patch_masks",
    "patch_owners",
    "scale_to_canvas",
    "shade",
    "shade_in_colors",
    "to_pixels",
    "valid_length",
    "widen",
]

_BLOCK = 1024
_LANES = 128
_SCALED = 512


@kernel
def valid_length(values: Float[np.ndarray, " points"], length: int) -> int:
    """Number of the first ``length`` points that the published renderer keeps: up to 100 before the first NaN."""
    # A NaN makes all points after it NaN.
    if length == 0 or not np.isnan(values[length - 1]):
        return length
    for i in range(length):
        if np.isnan(values[i]):
            return max(0, i - 100)
    return length


@kernel
def widen(
    values: Float[np.ndarray, " values"], lows: Float[np.ndarray, " lanes"], highs: Float[np.ndarray, " lanes"]
) -> None:
    """Running bounds of values in 128 lanes, which the compiler turns into vector instructions; NaN is in no bounds.

    Args:
        values: value i belongs to lane i mod 128.
        lows, highs: bounds of each lane, are widened.
    """
    whole = len(values) // _BLOCK * _BLOCK
    for start in range(0, whole, _BLOCK):
        block = values[start : start + _BLOCK]
        for lane in range(_LANES):
            low, high = lows[lane], highs[lane]
            for k in range(_BLOCK // _LANES):
                value = block[k * _LANES + lane]
                low = value if value < low else low
                high = value if value > high else high
            lows[lane], highs[lane] = low, high
    for i in range(whole, len(values)):
        lane, value = i % _LANES, values[i]
        lows[lane] = value if value < lows[lane] else lows[lane]
        highs[lane] = value if value > highs[lane] else highs[lane]


@kernel
def bounding_box(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], length: int
) -> tuple[float, float, float, float]:
    """Bounding box of the first ``length`` points and the origin, where the published orbit starts.

    Returns:
        low x, high x, low y, high y.
    """
    lows, highs = np.zeros((2, _LANES), x.dtype), np.zeros((2, _LANES), x.dtype)
    widen(x[:length], lows[0], highs[0])
    widen(y[:length], lows[1], highs[1])
    return lows[0].min(), highs[0].max(), lows[1].min(), highs[1].max()


def _bits_of_float(typing: Any, value: Any) -> Any:
    """The bits of a float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return uint64(float64), generate


_bits: Any = intrinsic(_bits_of_float)


@kernel(error_model="numpy")
def _scale_exactly(
    values: Float[np.ndarray, " points"],
    low: float,
    spread: float,
    size: int,
    padding: int,
    pixels: UInt16[np.ndarray, " pixels"],
) -> None:
    extent, border, last = float(size - 2 * padding), float(padding), int32(size - 1)
    for i in range(len(values)):
        pixels[i] = uint16(min(int32((values[i] - low) / spread * extent + border), last))


@kernel(error_model="numpy")
def _scale_to_canvas(
    values: Float[np.ndarray, " points"],
    length: int,
    low: float,
    high: float,
    size: int,
    padding: int,
    pixels: UInt16[np.ndarray, " pixels"],
) -> None:
    extent = float(size - 2 * padding)
    border = float(padding)
    spread = high - low
    if np.isfinite(spread) and spread > 0.0:
        # Places in float64 in steps of 2^-16, from a product in place of the quotient: in the lower 32 bits of the sum
        # with 1.5 2^36, whose last bit is 2^-16. They err by a step, and the quotient in float32 by size / 128 steps
        # where the box holds the origin, so that no value is larger than the spread. Places are moved up by more than
        # that; blocks with one that is so near to a whole number are computed exactly.
        margin = uint32(2 if values.itemsize == 8 else 2 + size // 100)
        factor = extent / float64(spread)
        shift = border - float64(low) * factor + margin * 2.0**-16 + 1.5 * 2.0**36
        for start in range(0, length, _SCALED):
            block = values[start : min(start + _SCALED, length)]
            target = pixels[start : start + len(block)]
            nearest = uint32(0xFFFF)
            for i in range(len(block)):
                place = uint32(_bits(float64(block[i]) * factor + shift))
                target[i] = uint16(place >> uint32(16))
                steps = place & uint32(0xFFFF)
                nearest = steps if steps < nearest else nearest
            if nearest < uint32(2) * margin:
                _scale_exactly(block, low, spread, size, padding, target)
    else:
        # An orbit that overflowed, or a single point: NaN and infinity become 0, as in numpy's cast to uint16.
        for i in range(length):
            pixel = (values[i] - low) / spread * extent + border
            pixels[i] = uint16(int32(pixel)) if np.isfinite(pixel) else uint16(0)


@kernel
def scale_to_canvas(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    length: int,
    box: tuple[float, float, float, float],
    size: int,
    padding: int,
    columns: UInt16[np.ndarray, " pixels"],
    rows: UInt16[np.ndarray, " pixels"],
) -> None:
    """Scale points to the canvas as the published renderer does, in its order of operations.

    The pixel of x is floor((x - low x) / (high x - low x) (size - 2 padding) + padding), and that of y likewise.

    Args:
        x, y: the points; where an orbit diverged, they may be infinite.
        length: number of points; the arrays may be longer.
        box: low x, high x, low y, high y of the points and the origin.
        size, padding: of the canvas, in pixels.
        columns, rows: pixels of the points, are filled; row 0 is the lowest y.
    """
    _scale_to_canvas(x, length, box[0], box[1], size, padding, columns)
    _scale_to_canvas(y, length, box[2], box[3], size, padding, rows)


@kernel
def to_pixels(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    size: int,
    padding: int,
    columns: UInt16[np.ndarray, " points"],
    rows: UInt16[np.ndarray, " points"],
) -> int:
    """``scale_to_canvas`` for an orbit that may hold NaN, with its own bounding box.

    Returns:
        Number of points that have a pixel: points from 100 before the first NaN on are dropped.
    """
    length = valid_length(y, valid_length(x, len(x)))
    scale_to_canvas(x, y, length, bounding_box(x, y, length), size, padding, columns, rows)
    return length


@kernel
def mark(
    columns: UInt16[np.ndarray, " points"],
    rows: UInt16[np.ndarray, " points"],
    length: int,
    latest: UInt32[np.ndarray, "height width"],
) -> None:
    """Write for each pixel the last point on it.

    Args:
        columns, rows: pixels of the points.
        length: number of points; the arrays may be longer.
        latest: is filled with 16 times the point's number, counted from 1, or with 0.
    """
    latest[:] = 0
    if length == 0:
        return
    pixels = latest.reshape(-1)
    width = uint32(latest.shape[1])
    last = uint32(uint32(rows[length - 1]) * width + uint32(columns[length - 1]))
    block = np.empty(_BLOCK, np.uint32)
    # From the last block on, so that most pixels are written once: other writes go to the last point's pixel, which is
    # in the processor's nearest cache. A loop that reads and one that writes: no read waits for a write's place.
    for start in range((length - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        size = min(_BLOCK, length - start)
        block_rows, block_columns = rows[start : start + size], columns[start : start + size]
        for i in range(size):
            block[i] = uint32(block_rows[i]) * width + uint32(block_columns[i])
        for i in range(size):
            block[i] = block[i] if pixels[uint64(block[i])] == 0 else last
        for i in range(size):
            pixels[uint64(block[i])] = uint32((start + i + 1) << 4)
    pixels[last] = uint32(length << 4)


@kernel
def patch_owners(latest: UInt32[np.ndarray, "height width"], owners: UInt32[np.ndarray, "height width"]) -> None:
    """Find for each pixel the last point whose 3x3 patch covers it.

    A patch's top left corner lies at (row + 1, column + 1) of its point, as in the published renderer.

    Args:
        latest: from ``mark``, at least 4 x 4.
        owners: is filled with 16 times the point's number plus the pixel's bit in the patch's mask, 8 for the top left
            to 0; it is below 16 where no patch is.
    """
    height, width = latest.shape
    # The maximum over three columns, kept for three rows; then the maximum over these rows. Points have different
    # numbers, so the bits that are added never decide which is greater.
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
def shade(
    owners: UInt32[np.ndarray, "height width"],
    masks: UInt16[np.ndarray, " masks"],
    value: int,
    image: UInt8[np.ndarray, "height width"],
) -> None:
    """Draw an image from the owners of its pixels.

    Args:
        owners: from ``patch_owners``; for points without patches from ``mark``, with the masks [0, 1].
        masks: 9 bits each, bit 8 is the patch's top left pixel, row by row. The first mask is 0; point i has mask
            i + 1, or the last mask where there are fewer.
        value: gray level of lit pixels.
        image: is filled.
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
def shade_in_colors(
    owners: UInt32[np.ndarray, "height width"],
    masks: UInt16[np.ndarray, " masks"],
    period: int,
    image: UInt8[np.ndarray, "height width"],
) -> None:
    """As ``shade``; a lit pixel of point i gets the number of its colour, 1 + i mod ``period``."""
    shade(owners, masks, 1, image)
    for row in range(owners.shape[0]):
        for column in range(owners.shape[1]):
            if image[row, column]:
                image[row, column] = 1 + ((owners[row, column] >> uint32(4)) - uint32(1)) % uint32(period)


@kernel
def mirror(image: UInt8[np.ndarray, "height width"], target: UInt8[np.ndarray, "height width"]) -> None:
    """Copy an image flipped left-right: nine times as fast as a copy of numpy's reversed view."""
    # Unsigned, since numba looks for negative indices otherwise.
    last = np.uint64(image.shape[1] - 1)
    for row in range(np.uint64(image.shape[0])):
        for column in range(np.uint64(image.shape[1])):
            target[row, column] = image[row, last - column]


@kernel
def patch_masks(masks: UInt16[np.ndarray, " masks"], counter2: int, counter3: int, key0: int, key1: int) -> None:
    """Fill ``masks`` with random 9-bit masks from 1 to 511.

    Mask 1024 c + 128 h + b is 1 + (511 v div 2^16), where v is half h (the lower half of word 0, its upper half, the
    lower half of word 1, ...) of block 128 c + b of Philox4x32-10: an order that vector registers fill.

    Args:
        masks: is filled.
        counter2, counter3, key0, key1: counter and key of the random numbers, taken modulo 2^32.
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
def light(
    columns: UInt16[np.ndarray, " points"],
    rows: UInt16[np.ndarray, " points"],
    length: int,
    lit: UInt8[np.ndarray, "height width"],
) -> int:
    """Set the pixels of the first ``length`` points to 1, and count those that were 0.

    Args:
        columns, rows: pixels of the points.
        length: number of points; the arrays may be longer.
        lit: 0 or 1 for each pixel, written to.

    Returns:
        Number of pixels that were 0 before.
    """
    pixels = lit.reshape(-1)
    width = uint64(lit.shape[1])
    count = 0
    for i in range(length):
        pixel = uint64(rows[i]) * width + uint64(columns[i])
        count += 1 - pixels[pixel]
        pixels[pixel] = 1
    return count
