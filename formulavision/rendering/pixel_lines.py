"""Lines one pixel wide without anti-aliasing, closed polygons of them, and filled polygons.

Corners are whole numbers: x is the column and y, downwards, the row; they may lie outside of the image. The lines, and
:func:`fill_polygon`, have the pixels of Pillow's ``ImageDraw``, which published programs draw with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int32, Integer, UInt8
from numba import int64, uint64

from formulavision.rendering.kernels import kernel

__all__ = ["draw_line", "draw_polygon", "fill_even_odd", "fill_polygon"]

_LONGEST = 4096
"""Largest side of an image whose lines are drawn with products instead of quotients."""


@kernel
def draw_line(image: Integer[np.ndarray, "height width"], x0: int, y0: int, x1: int, y1: int, value: Any) -> None:
    """Draw a line with both of its ends, as Pillow's ``line`` of width 1 does.

    With a and b the larger and the smaller of the distances along x and y, pixel n of 0 to a is n steps along the
    larger one and floor((2 b n + a) / (2 a)) along the other; equal distances count as steep. Pixels outside of the
    image are left out, and change no other pixel.

    Args:
        image: is drawn on, contiguous.
        x0, y0, x1, y1: the ends.
        value: of the pixels.
    """
    height, width = image.shape
    if _is_beside(width, height, x0, y0, x1, y1):
        return
    inside = min(x0, x1) >= 0 and min(y0, y1) >= 0 and max(x0, x1) < width and max(y0, y1) < height
    if inside and max(width, height) <= _LONGEST:
        _draw_inside(image.reshape(-1), width, x0, y0, x1, y1, value)
        return
    dx, dy = abs(x1 - x0), abs(y1 - y0)
    step_x = 1 if x1 > x0 else -1
    step_y = 1 if y1 > y0 else -1
    steep = dx <= dy
    major, minor = (dy, dx) if steep else (dx, dy)
    first, last = _steps_inside(y0, step_y, height, major) if steep else _steps_inside(x0, step_x, width, major)
    for n in range(first, last + 1):
        k = (2 * minor * n + major) // (2 * major) if major > 0 else 0
        x, y = (x0 + step_x * k, y0 + step_y * n) if steep else (x0 + step_x * n, y0 + step_y * k)
        if 0 <= x < width and 0 <= y < height:
            image[y, x] = value


@kernel(inline="always")
def _is_beside(width: int, height: int, x0: int, y0: int, x1: int, y1: int) -> bool:
    """Whether a line lies above, below, left or right of an image as a whole."""
    return max(x0, x1) < 0 or max(y0, y1) < 0 or min(x0, x1) >= width or min(y0, y1) >= height


@kernel(inline="always")
def _draw_inside(
    pixels: Integer[np.ndarray, " pixels"], width: int, x0: int, y0: int, x1: int, y1: int, value: Any
) -> None:
    """As ``draw_line``, for a line inside of an image of at most ``_LONGEST`` pixels a side: three times as fast.

    (2 b n + a) / (2 a) is computed as a product with 2^40 / (2 a) rounded up, whose error is too small to matter. Eight
    pixels are drawn at a time, those behind the end on the end: most lines then take the same way through the loop,
    which the processor predicts.
    """
    dx, dy = x1 - x0, y1 - y0
    step_x = 1 if dx > 0 else -1
    step_y = width if dy > 0 else -width
    dx, dy = abs(dx), abs(dy)
    steep = dx <= dy
    major, minor = (dy, dx) if steep else (dx, dy)
    along, across = (step_y, step_x) if steep else (step_x, step_y)
    inverse = (int64(1) << 40) // (2 * max(major, 1)) + 1
    half, slope = major * inverse, 2 * minor * inverse
    at = y0 * width + x0
    for start in range(0, major + 1, 8):
        for step in range(start, start + 8):
            n = min(step, major)
            pixels[uint64(at + n * along + ((half + n * slope) >> 40) * across)] = value


@kernel
def _steps_inside(start: int, step: int, size: int, steps: int) -> tuple[int, int]:
    """The first and the last of the steps 0 to ``steps`` from ``start`` on that are in 0 to ``size - 1``."""
    if step > 0:
        return max(0, -start), min(steps, size - 1 - start)
    return max(0, start - size + 1), min(steps, start)


@kernel
def draw_polygon(
    image: Integer[np.ndarray, "height width"],
    x: Int32[np.ndarray, " corners"],
    y: Int32[np.ndarray, " corners"],
    value: Any,
) -> None:
    """Draw the lines from each corner to the next, and from the last to the first.

    Args:
        image: is drawn on, contiguous.
        x, y: the corners.
        value: of the pixels.
    """
    height, width = image.shape
    pixels = image.reshape(-1)
    small = max(width, height) <= _LONGEST
    x0, y0 = int(x[x.size - 1]), int(y[x.size - 1])
    starts_inside = False
    for n in range(uint64(x.size)):
        x1, y1 = int(x[n]), int(y[n])
        ends_inside = small and 0 <= x1 < width and 0 <= y1 < height
        if starts_inside and ends_inside:
            _draw_inside(pixels, width, x0, y0, x1, y1, value)
        elif not _is_beside(width, height, x0, y0, x1, y1):
            draw_line(image, x0, y0, x1, y1, value)
        x0, y0, starts_inside = x1, y1, ends_inside


@kernel
def _rounded_up(value: np.float32) -> int:
    """floor(value + 1/2); of a negative number this of its magnitude, with the sign put back."""
    half = np.float32(0.5)
    return int(np.floor(value + half)) if value >= 0 else -int(np.floor(-value + half))


@kernel
def _rounded_down(value: np.float32) -> int:
    """ceil(value - 1/2); of a negative number this of its magnitude, with the sign put back."""
    half = np.float32(0.5)
    return int(np.ceil(value - half)) if value >= 0 else -int(np.ceil(-value - half))


@kernel
def _fill_span(image: Integer[np.ndarray, "height width"], y: int, left: int, right: int, value: Any) -> None:
    if 0 <= y < image.shape[0]:
        for column in range(max(left, 0), min(right, image.shape[1] - 1) + 1):
            image[y, column] = value


@kernel
def fill_polygon(
    image: Integer[np.ndarray, "height width"],
    x: Int32[np.ndarray, " corners"],
    y: Int32[np.ndarray, " corners"],
    value: Any,
) -> None:
    """Fill a polygon as ``ImageDraw.polygon`` of Pillow 9.0.0 does, by the even-odd rule: where it folds, it has holes.

    Horizontal sides are filled at once. In each row every other side whose rows include it, both ends counted, has a
    crossing in float32, and two where the row is the side's last and not the polygon's. Between two crossings pixels
    are filled, never before the end of the row's last span.

    Args:
        image: is drawn on.
        x, y: the corners.
        value: of the pixels.
    """
    corners = x.size
    crossings = np.empty(2 * corners, np.float32)
    bottom = y.max()
    for n in range(corners):
        m = (n + 1) % corners
        if y[n] == y[m]:
            _fill_span(image, y[n], min(x[n], x[m]), max(x[n], x[m]), value)
    for row in range(max(y.min(), 0), min(bottom, image.shape[0] - 1) + 1):
        count = 0
        for n in range(corners):
            m = (n + 1) % corners
            low, high = min(y[n], y[m]), max(y[n], y[m])
            if low == high or row < low or row > high:
                continue
            slope = np.float32(x[m] - x[n]) / np.float32(y[m] - y[n])
            crossings[count] = np.float32(row - y[n]) * slope + np.float32(x[n])
            count += 1
            if row == high and row != bottom:
                crossings[count] = crossings[count - 1]
                count += 1
        crossings[:count].sort()
        free = -(1 << 31)
        for pair in range(count // 2):
            left = max(_rounded_up(crossings[2 * pair]), free)
            right = _rounded_down(crossings[2 * pair + 1])
            _fill_span(image, row, left, right, value)
            free = max(free, right + 1)


@kernel
def fill_even_odd(
    image: Integer[np.ndarray, "height width"],
    x: Int32[np.ndarray, " corners"],
    y: Int32[np.ndarray, " corners"],
    value: Any,
    odd: UInt8[np.ndarray, "height width"],
) -> None:
    """Fill a polygon by the even-odd rule in whole numbers, the same on every device.

    A side from (x0, y0) down to (x1, y1) crosses the rows y0 to y1 - 1, each at column
    x0 + ceil((x1 - x0) (y - y0) / (y1 - y0)). A pixel is filled if the crossings before it, its own column included,
    are odd in number. Lines through the corners (:func:`draw_polygon`) complete the border.

    Args:
        image: is drawn on.
        x, y: the corners.
        value: of the pixels.
        odd: scratch memory: zeros, and zeros afterwards.
    """
    height, width = image.shape
    corners = x.size
    for n in range(corners):
        m = (n + 1) % corners
        upper, lower = (n, m) if y[n] < y[m] else (m, n)
        x0, y0 = int(x[upper]), int(y[upper])
        dx, dy = int(x[lower]) - x0, int(y[lower]) - y0
        for row in range(max(y0, 0), min(y0 + dy, height)):
            column = max(x0 - (-dx * (row - y0)) // dy, 0)
            if column < width:
                odd[row, column] ^= 1
    for row in range(max(y.min(), 0), min(y.max(), height)):
        inside = np.uint8(0)
        for column in range(max(x.min(), 0), min(x.max() + 1, width)):
            inside ^= odd[row, column]
            odd[row, column] = 0
            if inside:
                image[row, column] = value
