"""Anti-aliased polylines with thickness.

Coordinates are in pixels, x to the right and y down; pixel (row, column) has its centre at (column + 1/2, row + 1/2).
A line of width w covers a pixel whose centre is d away from it by

    c = min(1, max(0, (w + 1) / 2 - d))

so its edge is a ramp one pixel wide. Where lines meet the highest value stays: the order in which they are drawn does
not matter, and a curve that crosses itself is no brighter there.
"""

from __future__ import annotations

import math

import numpy as np

from formulavision.rendering.kernels import kernel

__all__ = ["draw_polylines"]

_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
# Further away float32 is too coarse to tell neighbouring pixels apart.
_FAR = np.float32(1e6)


@kernel
def _first_pixel(edge, size):  # type: ignore[no-untyped-def]
    """The first pixel whose centre is at ``edge`` or beyond it, from 0 to ``size``."""
    return int(min(max(np.ceil(edge - _HALF), _ZERO), np.float32(size)))


@kernel
def _draw_segment(image, ax, ay, bx, by, width, color):  # type: ignore[no-untyped-def]
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
            # How far along the segment the pixel's nearest point lies, 0 to 1.
            t = min(max((x * dx + y * dy) * scale, _ZERO), _ONE)
            u = x - t * dx
            v = y - t * dy
            coverage = min(max(reach - math.sqrt(u * u + v * v), _ZERO), _ONE)
            for channel in range(channels):
                level = np.uint8(coverage * color[channel] + _HALF)
                image[row, column, channel] = max(image[row, column, channel], level)


@kernel
def draw_polylines(image, points, widths, colors):  # type: ignore[no-untyped-def]
    """Draw polylines over an image: each channel becomes max(what it is, floor(c color + 1/2)), in float32.

    Segments with an end beyond a million pixels, or not finite, are left out. Distances lose precision far outside the
    image: for gray levels right to 1, points must lie within about ten times its size.

    Args:
        image: uint8 [height, width, channels], drawn on.
        points: float32 [lines, points, 2], x and y in pixels. A line needs two points.
        widths: float32 [lines], in pixels.
        colors: uint8 [lines, channels], at full coverage.
    """
    for line in range(points.shape[0]):
        color = colors[line].astype(np.float32)
        for n in range(points.shape[1] - 1):
            ax, ay = points[line, n]
            bx, by = points[line, n + 1]
            if abs(ax) <= _FAR and abs(ay) <= _FAR and abs(bx) <= _FAR and abs(by) <= _FAR:
                _draw_segment(image, ax, ay, bx, by, widths[line], color)
