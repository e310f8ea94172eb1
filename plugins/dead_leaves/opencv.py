"""Filled polygons and circles with the pixels of OpenCV 4.5.3, which the published program draws with.

Corners are whole numbers: x is the column and y, downwards, the row; they may lie outside of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int32, Integer

from formulavision.rendering import kernel

__all__ = ["fill_circle", "fill_polygon"]

_LEFT, _RIGHT, _ABOVE, _BELOW = 1, 2, 4, 8
"""Sides of the image on which a point lies."""
_SHIFT = 16
"""Crossings are whole numbers of units of 2^-16 pixels."""


@kernel
def _fill_row(image: Integer[np.ndarray, "height width"], row: int, left: int, right: int, value: Any) -> None:
    if 0 <= row < image.shape[0]:
        image[row, max(left, 0) : max(min(right, image.shape[1] - 1) + 1, 0)] = value


@kernel
def fill_circle(image: Integer[np.ndarray, "height width"], x: int, y: int, radius: int, value: Any) -> None:
    """Fill a circle as ``cv2.circle`` does: a midpoint circle, whose rows are filled from side to side.

    Args:
        image: is drawn on.
        x, y: the centre.
        radius: in pixels.
        value: of the pixels.
    """
    error, dx, dy, plus, minus = 0, radius, 0, 1, 2 * radius - 1
    while dx >= dy:
        for side in (-1, 1):
            _fill_row(image, y + side * dy, x - dx, x + dx, value)
            _fill_row(image, y + side * dx, x - dy, x + dy, value)
        dy += 1
        error += plus
        plus += 2
        if error > 0:
            error -= minus
            dx -= 1
            minus -= 2


@kernel
def _sides(x: int, y: int, width: int, height: int) -> int:
    """The sides of the image on which a point lies; 0 inside of it."""
    across = _LEFT if x < 0 else _RIGHT if x >= width else 0
    return across + (_ABOVE if y < 0 else _BELOW if y >= height else 0)


@kernel
def _move_to_edge(fixed: int, moved: int, edge: int, along: int, across: int) -> int:
    """The other coordinate of a point that moves along a line, from ``fixed`` to ``edge``."""
    return moved + int(float(edge - fixed) * across / along)


@kernel
def _cut(width: int, height: int, x0: int, y0: int, x1: int, y1: int) -> tuple[bool, int, int, int, int]:
    """The part of a line that the image holds: whether there is one, and its ends."""
    start, end = _sides(x0, y0, width, height), _sides(x1, y1, width, height)
    if start & end == 0 and start | end != 0:
        if start & (_ABOVE | _BELOW):
            edge = 0 if start & _ABOVE else height - 1
            x0, y0 = _move_to_edge(y0, x0, edge, y1 - y0, x1 - x0), edge
            start = _sides(x0, y0, width, height)
        if end & (_ABOVE | _BELOW):
            edge = 0 if end & _ABOVE else height - 1
            x1, y1 = _move_to_edge(y1, x1, edge, y1 - y0, x1 - x0), edge
            end = _sides(x1, y1, width, height)
        if start & end == 0 and start | end != 0:
            if start:
                edge = 0 if start & _LEFT else width - 1
                y0, x0 = _move_to_edge(x0, y0, edge, x1 - x0, y1 - y0), edge
                start = 0
            if end:
                edge = 0 if end & _LEFT else width - 1
                y1, x1 = _move_to_edge(x1, y1, edge, x1 - x0, y1 - y0), edge
                end = 0
    return start | end == 0, x0, y0, x1, y1


@kernel
def _draw_side(image: Integer[np.ndarray, "height width"], x0: int, y0: int, x1: int, y1: int, value: Any) -> None:
    """A line one pixel wide, cut to the image and walked from left to right."""
    inside, x0, y0, x1, y1 = _cut(image.shape[1], image.shape[0], x0, y0, x1, y1)
    if not inside:
        return
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    dx, dy = x1 - x0, abs(y1 - y0)
    step = 1 if y1 > y0 else -1
    steep = dy > dx
    major, minor = (dy, dx) if steep else (dx, dy)
    error = major - 2 * minor
    for _ in range(major + 1):
        image[y0, x0] = value
        turns = error < 0
        error += (2 * major if turns else 0) - 2 * minor
        x0 += 1 if turns or not steep else 0
        y0 += step if turns or steep else 0


@kernel
def fill_polygon(
    image: Integer[np.ndarray, "height width"],
    x: Int32[np.ndarray, " corners"],
    y: Int32[np.ndarray, " corners"],
    value: Any,
) -> None:
    """Fill a polygon as ``cv2.fillPoly`` of OpenCV 4.5.3 does with its default line type.

    The sides are drawn as lines. In each row every side that is not horizontal, its upper end counted and its lower
    not, has a crossing, moved on from row to row by a slope that is cut to 2^-16 pixels; between the crossings, sorted
    and taken in pairs, pixels are filled.

    Args:
        image: is drawn on.
        x, y: the corners.
        value: of the pixels.
    """
    corners = x.size
    crossings = np.empty(corners, np.int64)
    for n in range(corners):
        m = (n + 1) % corners
        _draw_side(image, int(x[n]), int(y[n]), int(x[m]), int(y[m]), value)
    for row in range(max(y.min(), 0), min(y.max(), image.shape[0])):
        count = 0
        for n in range(corners):
            m = (n + 1) % corners
            upper, lower = (n, m) if y[n] < y[m] else (m, n)
            if y[upper] <= row < y[lower]:
                across, down = (int(x[lower]) - int(x[upper])) << _SHIFT, int(y[lower]) - int(y[upper])
                slope = abs(across) // down
                slope = slope if across > 0 else -slope
                crossings[count] = (int(x[upper]) << _SHIFT) + (row - y[upper]) * slope
                count += 1
        crossings[:count].sort()
        for pair in range(count // 2):
            left, right = crossings[2 * pair], crossings[2 * pair + 1]
            _fill_row(image, row, -(-left >> _SHIFT), right >> _SHIFT, value)
