"""Kernels on pixels: counts of points to colours, fields to backgrounds, blur and enlargement.

All give the pixels of the published program: its numpy, numba and OpenCV 5.0.0.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64, UInt8, UInt16
from numba import int32, uint8, uint16, uint32

from formulavision.rendering import kernel
from formulavision.rendering.color import hsv_to_rgb

__all__ = ["Region", "blur", "color_field", "count_points", "enlarge", "paint", "spread", "windowed"]

Region = tuple[float, float, float, float]
"""Least x, least y, greatest x, greatest y."""
_BLOCK = 1024
_ROUNDED = 32
"""The last columns of an image, its width modulo this number, have other levels in OpenCV: see ``hsv_to_rgb``."""


@kernel
def windowed(box: Region, window: Float64[np.ndarray, "2 2"]) -> Region:
    """The region that an image shows.

    Args:
        box: bounding box of the points.
        window: shift of the centre along x and y, and factors of the extent, as shares of the extents.
    """
    least_x, least_y, most_x, most_y = box
    extent_x, extent_y = most_x - least_x, most_y - least_y
    x, y = (least_x + most_x) / 2 + extent_x * window[0, 0], (least_y + most_y) / 2 + extent_y * window[0, 1]
    half_x, half_y = extent_x * window[1, 0] / 2, extent_y * window[1, 1] / 2
    return x - half_x, y - half_y, x + half_x, y + half_y


@kernel
def count_points(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    region: Region,
    counts: Int32[np.ndarray, "bordered bordered"],
) -> None:
    """Add points to the counts of their pixels: the row follows from x, the column from y.

    Args:
        x, y: the points; those that are not finite are left out.
        region: what the image shows.
        counts: numbers of points of the image and of a border of one pixel around it, are added to.
    """
    width = counts.shape[0]
    zero = x.dtype.type(0)
    least_x, least_y = x.dtype.type(region[0]), x.dtype.type(region[1])
    extent_x, extent_y = region[2] - region[0], region[3] - region[1]
    scale_x = x.dtype.type((width - 3) / extent_x) if extent_x > 0 else zero
    scale_y = x.dtype.type((width - 3) / extent_y) if extent_y > 0 else zero
    low, high = x.dtype.type(-2), x.dtype.type(width - 1)
    places, flat = np.empty(_BLOCK, np.int32), counts.reshape(-1)
    for start in range(0, len(x), _BLOCK):
        length = min(_BLOCK, len(x) - start)
        some_x, some_y = x[start : start + length], y[start : start + length]
        for i in range(length):
            row, column = (some_x[i] - least_x) * scale_x, (some_y[i] - least_y) * scale_y
            inside = (row > low) & (row < high) & (column > low) & (column < high)
            row, column = row if inside else zero, column if inside else zero
            place = (int32(row) + int32(1)) * int32(width) + int32(column) + int32(1)
            places[i] = place if inside else int32(-1)
        for i in range(length):
            if places[i] >= 0:
                flat[np.uint64(places[i])] += 1


@kernel
def spread(
    counts: Int32[np.ndarray, "bordered bordered"],
    pattern: UInt8[np.ndarray, "3 3"],
    image: Int32[np.ndarray, "size size"],
) -> None:
    """Count the chosen pixels of the 3 x 3 patches around all points.

    Args:
        counts: numbers of points, from ``count_points``.
        pattern: 1 for each chosen pixel, the same patch for all points.
        image: is filled.
    """
    size = image.shape[0]
    image[:] = 0
    for down in range(3):
        for right in range(3):
            if pattern[down, right]:
                for row in range(size):
                    source, target = counts[row + 2 - down, 2 - right : 2 - right + size], image[row]
                    for column in range(size):
                        target[column] += source[column]


@kernel
def paint(
    counts: Int32[np.ndarray, "height width"],
    binary: bool,
    color: UInt8[np.ndarray, " 2"],
    shift: float,
    image: UInt8[np.ndarray, "height width channels"],
    mask: UInt8[np.ndarray, "height width"],
) -> None:
    """Draw pixels with points over an image: hues by density, or gray levels.

    Args:
        counts: number of points of each pixel; the density is their share of the largest.
        binary: every pixel with points has the density 1.
        color: saturation and value.
        shift: of the hue, in 255ths: the hue is the whole part of 255 density + shift, modulo 256.
        image: pixels with points are set: on one channel to the whole part of 255 density, and at least 1.
        mask: is set to 1 there.
    """
    # Levels of the first columns, and of the others.
    palettes, cut = np.empty((2, 256, 3), np.uint8), counts.shape[1] - counts.shape[1] % _ROUNDED
    hues = np.arange(256).astype(np.uint8)
    saturations, values = np.full(256, color[0], np.uint8), np.full(256, color[1], np.uint8)
    hsv_to_rgb(hues, saturations, values, 256, palettes[0])
    hsv_to_rgb(hues, saturations, values, 0, palettes[1])
    largest = float(counts.max())
    for row in range(counts.shape[0]):
        for column in range(counts.shape[1]):
            count = counts[row, column]
            if count == 0:
                continue
            mask[row, column] = 1
            density = 1.0 if binary else count / largest
            if image.shape[2] == 1:
                image[row, column, 0] = max(1, int(density * 255))
            else:
                hue = int(density * 255 + shift) & 255
                palette = palettes[0 if column < cut else 1]
                for channel in range(3):
                    image[row, column, channel] = palette[hue, channel]


@kernel
def color_field(
    field: Float[np.ndarray, "side side"],
    colors: Float64[np.ndarray, "3 2"],
    image: UInt8[np.ndarray, "size size channels"],
) -> None:
    """Draw a background: hue, saturation and value follow from a field x as x scale + shift.

    Args:
        field: at least as large as the image.
        colors: scale and shift of the hue, of the saturation and of the value, from 0 to 255.
        image: is filled; one channel is the value.
    """
    size = image.shape[0]
    hues, saturations, values = np.empty(size, np.uint8), np.empty(size, np.uint8), np.empty(size, np.uint8)
    for row in range(size):
        line = field[row]
        for column in range(size):
            x = line[column]
            hues[column] = uint8(int32(x * colors[0, 0] + colors[0, 1]) & 255)
            saturations[column] = uint8(int32(min(x * colors[1, 0] + colors[1, 1], 255.0)) & 255)
            values[column] = uint8(int32(min(x * colors[2, 0] + colors[2, 1], 255.0)) & 255)
        if image.shape[2] == 1:
            image[row, :, 0] = values
        else:
            hsv_to_rgb(hues, saturations, values, size - size % _ROUNDED, image[row])


@kernel
def _blur(image: UInt8[np.ndarray, "height width channels"], outer: int, middle: int) -> None:
    height, width, channels = image.shape
    rows = image.reshape(height, width * channels)
    # Sums along a row, of the row above, of this one and of the one below; those of each row are needed once more.
    above, line, below = np.empty((3, width * channels), np.uint16)
    _sum_row(rows[0], channels, outer, middle, line)
    _sum_row(rows[1], channels, outer, middle, below)
    above[:] = below
    for row in range(height):
        target = rows[row]
        for i in range(len(target)):
            total = uint32((above[i] + below[i]) * outer + line[i] * middle + 32768)
            target[i] = uint8(total >> uint32(16))
        above, line, below = line, below, above
        if row + 2 < height:
            _sum_row(rows[row + 2], channels, outer, middle, below)
        else:
            below[:] = above


@kernel
def _sum_row(
    row: UInt8[np.ndarray, " length"], channels: int, outer: int, middle: int, sums: UInt16[np.ndarray, " length"]
) -> None:
    """Weighted sums of each pixel and its neighbours; at the ends, the neighbour inside counts twice."""
    end = len(row) - channels
    left, inner, right, target = row[: end - channels], row[channels:end], row[2 * channels :], sums[channels:end]
    for i in range(len(target)):
        target[i] = uint16((left[i] + right[i]) * outer + inner[i] * middle)
    for i in range(channels):
        sums[i] = 2 * row[channels + i] * outer + row[i] * middle
        sums[end + i] = 2 * row[end - channels + i] * outer + row[end + i] * middle


def blur(image: UInt8[np.ndarray, "height width channels"], sigma: float) -> None:
    """Blur an image in place by a 3 x 3 Gaussian, as OpenCV blurs bytes; beyond its border it is mirrored."""
    weight = math.exp(-1 / (2 * sigma * sigma))
    outer = round(weight / (1 + 2 * weight) * 256)
    _blur(image, outer, 256 - 2 * outer)


@kernel
def _weights(size: int, target: int) -> tuple[Int64[np.ndarray, " target"], Int64[np.ndarray, "target 2"]]:
    """For each pixel of an enlarged line the first of the two pixels that it lies between, and their weights."""
    first, weights = np.empty(target, np.int64), np.empty((target, 2), np.int64)
    for i in range(target):
        position = np.float32((i + 0.5) * (size / target) - 0.5)
        first[i] = math.floor(position)
        share = position - np.float32(first[i])
        weights[i, 0] = round((np.float32(1) - share) * np.float32(2048))
        weights[i, 1] = round(share * np.float32(2048))
    return first, weights


@kernel
def enlarge(image: UInt8[np.ndarray, "size size channels"], out: UInt8[np.ndarray, "target target channels"]) -> None:
    """Resize an image by bilinear interpolation, as OpenCV does for bytes."""
    size, target, channels = image.shape[0], out.shape[0], image.shape[2]
    last = size - 1
    first, weights = _weights(size, target)
    for row in range(target):
        upper, lower = min(max(first[row], 0), last), min(max(first[row] + 1, 0), last)
        for column in range(target):
            left, w0, w1 = first[column], weights[column, 0], weights[column, 1]
            if left < 0 or left >= last:  # beyond the border along a row the border's pixel counts alone
                left, w0, w1 = min(max(left, 0), last), 2048, 0
            right = min(left + 1, last)
            for channel in range(channels):
                above = image[upper, left, channel] * w0 + image[upper, right, channel] * w1
                below = image[lower, left, channel] * w0 + image[lower, right, channel] * w1
                total = ((weights[row, 0] * (above >> 4)) >> 16) + ((weights[row, 1] * (below >> 4)) >> 16)
                out[row, column, channel] = (total + 2) >> 2
