"""Polylines are drawn with the coverage that the distance from the nearest segment gives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from formulavision.rendering import polylines


def draw(
    points: Any, widths: ArrayLike, colors: ArrayLike | None = None, shape: tuple[int, int] = (40, 50)
) -> np.ndarray:
    points = np.asarray(points, dtype=np.float32)
    colors = np.full((len(points), 1), 255) if colors is None else np.asarray(colors)
    image = np.zeros((*shape, colors.shape[1]), np.uint8)
    polylines.draw_polylines(image, points, np.asarray(widths, np.float32), colors.astype(np.uint8))
    return image


def reference(points: Any, widths: Any, colors: Any, shape: tuple[int, int]) -> np.ndarray:
    """The coverage by its definition: in float64, from every pixel centre to every segment."""
    rows, columns = np.indices(shape) + 0.5
    image = np.zeros((*shape, len(colors[0])))
    for line, width, color in zip(np.asarray(points, np.float32).astype(float), widths, colors, strict=True):
        for a, b in itertools.pairwise(line):
            along, from_a = b - a, np.stack([columns, rows], axis=-1) - a
            t = np.clip(from_a @ along / max(along @ along, 1e-30), 0, 1)
            distance = np.linalg.norm(from_a - t[..., None] * along, axis=-1)
            coverage = np.clip((width + 1) / 2 - distance, 0, 1)
            image = np.maximum(image, np.floor(coverage[..., None] * np.asarray(color) + 0.5))
    return image


@pytest.mark.parametrize("seed", range(20))
def test_lines_equal_the_definition_to_one_gray_level(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(-30, 80, (3, 5, 2))
    widths, colors = random.uniform(0.2, 9, 3), random.integers(1, 256, (3, 3))
    difference = draw(points, widths, colors) - reference(points, widths, colors, (40, 50))
    assert np.abs(difference).max() <= 1


def test_a_horizontal_line_covers_the_pixels_under_it() -> None:
    image = draw([[(10, 5), (20, 5)]], [2])
    assert image[3:7, 15, 0].tolist() == [0, 255, 255, 0]


def test_the_edge_of_a_line_is_a_ramp() -> None:
    assert draw([[(10, 5.5), (20, 5.5)]], [2])[3:8, 15, 0].tolist() == [0, 128, 255, 128, 0]


def test_a_segment_without_length_is_a_dot() -> None:
    image = draw([[(10.5, 10.5), (10.5, 10.5)]], [3])[..., 0]
    assert np.argwhere(image == 255).tolist() == [[9, 10], [10, 9], [10, 10], [10, 11], [11, 10]]


def test_a_line_that_runs_back_over_itself_is_no_brighter() -> None:
    np.testing.assert_array_equal(draw([[(5, 7), (30, 22), (5, 7)]], [1]), draw([[(5, 7), (30, 22), (30, 22)]], [1]))


def test_the_order_of_lines_does_not_matter() -> None:
    random = np.random.default_rng(0)
    points, widths = random.uniform(0, 40, (6, 4, 2)), random.uniform(1, 5, 6)
    colors = random.integers(0, 256, (6, 3))
    order = random.permutation(6)
    np.testing.assert_array_equal(draw(points, widths, colors), draw(points[order], widths[order], colors[order]))


def test_what_was_drawn_before_stays_where_it_is_brighter() -> None:
    image = np.full((8, 8, 1), 200, np.uint8)
    polylines.draw_polylines(
        image, np.array([[(0, 4), (8, 4)]], np.float32), np.ones(1, np.float32), np.full((1, 1), 90, np.uint8)
    )
    assert (image == 200).all()


@pytest.mark.parametrize("place", [(-500, 20), (600, 20), (20, -500), (20, 600)])
def test_a_line_outside_the_image_draws_nothing(place: tuple[int, int]) -> None:
    assert not draw([[place, np.add(place, 30)]], [5]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, 2e6])
def test_a_segment_to_nowhere_is_left_out(bad: float) -> None:
    np.testing.assert_array_equal(draw([[(5, 5), (20, 20), (bad, 20)]], [2]), draw([[(5, 5), (20, 20), (20, 20)]], [2]))


def test_a_line_across_the_image_is_clipped_to_it() -> None:
    image = draw([[(-1000, 10), (1000, 10)]], [2])[..., 0]
    assert np.unique(np.argwhere(image == 255)[:, 0]).tolist() == [9, 10]
