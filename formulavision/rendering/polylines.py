"""Anti-aliased polylines with thickness.

Coordinates are in pixels, x to the right and y down; pixel (row, column) has its centre at (column + 1/2, row + 1/2).
A line of width w covers a pixel whose centre is d away from it by

    c = min(1, max(0, (w + 1) / 2 - d))

so its edge is a ramp one pixel wide. Where lines meet, the pixel keeps the highest value: the order in which lines are
drawn does not matter, and a curve that crosses itself is no brighter there.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, UInt8

from formulavision.rendering.kernels import kernel

__all__ = ["draw_polylines"]

_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
# Further away float32 is too coarse to tell neighbouring pixels apart.
_FAR = np.float32(1e6)


@kernel
def _first_pixel(edge: np.float32, size: int) -> int:
    """The first pixel whose centre is at ``edge`` or beyond it, from 0 to ``size``."""
    return int(min(max(np.ceil(edge - _HALF), _ZERO), np.float32(size)))


@kernel
def _draw_segment(
    image: UInt8[np.ndarray, "height width channels"],
    ax: np.float32,
    ay: np.float32,
    bx: np.float32,
    by: np.float32,
    width: np.float32,
    color: Float32[np.ndarray, " channels"],
) -> None:
    height, columns, channels = image.shape
    reach = (width + _ONE) * _HALF
    left = _first_pixel(min(ax, bx) - reach, columns)
    right = _first_pixel(max(ax, bx) + reach, columns)
    top = _first_pixel(min(ay, by) - reach, height)
    bottom = _first_pixel(max(ay, by) + reach, height)
    dx = bx - ax
    dy = by - ay
    squared_length = dx * dx + dy * dy
    # A segment without length is a dot: every pixel is nearest to its first end.
    scale = _ONE / squared_length if squared_length > _ZERO else _ZERO
    for row in range(top, bottom):
        y = np.float32(row) + _HALF - ay
        for column in range(left, right):
            x = np.float32(column) + _HALF - ax
            # Position along the segment, 0 to 1, of the point that is nearest to the pixel.
            t = min(max((x * dx + y * dy) * scale, _ZERO), _ONE)
            u = x - t * dx
            v = y - t * dy
            coverage = min(max(reach - math.sqrt(u * u + v * v), _ZERO), _ONE)  # c, with the distance d
            for channel in range(channels):
                level = np.uint8(coverage * color[channel] + _HALF)
                image[row, column, channel] = max(image[row, column, channel], level)


@kernel
def draw_polylines(
    image: UInt8[np.ndarray, "height width channels"],
    points: Float32[np.ndarray, "lines points 2"],
    widths: Float32[np.ndarray, " lines"],
    colors: UInt8[np.ndarray, "lines channels"],
) -> None:
    """Draw polylines over an image: each level becomes max(level, floor(c color + 1/2)), in float32.

    Segments with an end beyond a million pixels, or not finite, are left out. Distances lose precision far outside the
    image: gray levels are right to 1 where points lie within about ten times the image's size.

    Args:
        image: is drawn on.
        points: x and y in pixels; a line needs two points.
        widths: in pixels.
        colors: levels at full coverage.
    """
    for line in range(points.shape[0]):
        color = colors[line].astype(np.float32)
        for n in range(points.shape[1] - 1):
            ax, ay = points[line, n]
            bx, by = points[line, n + 1]
            if abs(ax) <= _FAR and abs(ay) <= _FAR and abs(bx) <= _FAR and abs(by) <= _FAR:
                _draw_segment(image, ax, ay, bx, by, widths[line], color)
