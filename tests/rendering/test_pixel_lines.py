"""Lines and polygons have the pixels of Pillow's ImageDraw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from formulavision.rendering import pixel_lines

SHAPE = (23, 31)
coordinates = st.one_of(st.integers(-3, 34), st.integers(-60, 90), st.integers(-3000, 3000))
corners = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12)


def as_arrays(points: list[tuple[int, int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    x, y = np.array(points, np.int32).T
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def pillow_line(*ends: int) -> NDArray[np.uint8]:
    image = Image.new("L", SHAPE[::-1])
    ImageDraw.Draw(image).line(ends, fill=200)
    return np.asarray(image)


def plain_line(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.uint8]:
    """Pixel by pixel with the running error, and nothing left out before it is known to be outside."""
    image = np.zeros(SHAPE, np.uint8)
    dx, dy, xs, ys = abs(x1 - x0), abs(y1 - y0), np.sign(x1 - x0), np.sign(y1 - y0)
    steep = dx <= dy
    major, minor = (dy, dx) if steep else (dx, dy)
    error, x, y = 2 * minor - major, x0, y0
    for n in range(major + 1):
        if n == major:
            x, y = x1, y1
        if 0 <= x < SHAPE[1] and 0 <= y < SHAPE[0]:
            image[y, x] = 200
        if error >= 0:
            x, y = (x + xs, y) if steep else (x, y + ys)
            error -= 2 * major
        error += 2 * minor
        x, y = (x, y + ys) if steep else (x + xs, y)
    return image


@given(st.integers(-40, 70), st.integers(-40, 70), st.integers(-40, 70), st.integers(-40, 70))
@settings(max_examples=400, deadline=None)
def test_lines_are_those_of_pillow(x0: int, y0: int, x1: int, y1: int) -> None:
    image = np.zeros(SHAPE, np.uint8)
    pixel_lines.draw_line(image, x0, y0, x1, y1, 200)
    assert np.array_equal(image, pillow_line(x0, y0, x1, y1))


@given(coordinates, coordinates, coordinates, coordinates)
@settings(max_examples=400, deadline=None)
def test_clipping_changes_no_slope(x0: int, y0: int, x1: int, y1: int) -> None:
    image = np.zeros(SHAPE, np.uint16)
    pixel_lines.draw_line(image, x0, y0, x1, y1, 200)
    assert np.array_equal(image, plain_line(x0, y0, x1, y1))


@given(corners)
@settings(max_examples=200, deadline=None)
def test_a_polygon_is_its_lines_and_is_closed(points: list[tuple[int, int]]) -> None:
    image = np.zeros(SHAPE, np.uint8)
    pixel_lines.draw_polygon(image, *as_arrays(points), 200)
    lines = [plain_line(*points[n - 1], *points[n]) for n in range(len(points))]
    assert np.array_equal(image, np.max(lines, axis=0))


# Filling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["fill_polygon", "fill_even_odd"])
def test_a_filled_rectangle_is_full(fill: str) -> None:
    image, scratch = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    x, y = as_arrays([(4, 3), (20, 3), (20, 15), (4, 15)])
    more = (scratch,) if fill == "fill_even_odd" else ()
    getattr(pixel_lines, fill)(image, x, y, 7, *more)
    pixel_lines.draw_polygon(image, x, y, 7)
    expected = np.zeros(SHAPE, np.uint8)
    expected[3:16, 4:21] = 7
    assert np.array_equal(image, expected)


@given(corners)
@settings(max_examples=300, deadline=None)
def test_polygons_are_filled_by_the_even_odd_rule(points: list[tuple[int, int]]) -> None:
    """Away from the border, which lines draw; Pillow rounds 1/2 another way where x is negative."""
    x, y = as_arrays(points)
    outline, published, ours, scratch = (np.zeros(SHAPE, np.uint8) for _ in range(4))
    pixel_lines.draw_polygon(outline, x, y, 1)
    pixel_lines.fill_polygon(published, x, y, 1)
    pixel_lines.fill_even_odd(ours, x, y, 1, scratch)
    centres = np.stack(np.meshgrid(range(SHAPE[1]), range(SHAPE[0])), axis=-1).reshape(-1, 2)
    inside = Polygon([*points, points[0]], closed=True).contains_points(centres).reshape(SHAPE)
    away = outline == 0
    assert np.array_equal(ours[away], inside[away])
    assert np.array_equal(published[away], inside[away]) or x.min() < 0
    assert not scratch.any()
