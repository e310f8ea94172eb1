"""The bezier generator."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.bezier import curves
from scipy.interpolate import BPoly

import formulavision


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 6, **generator: Any) -> formulavision.Recipe:
    return formulavision.Recipe.from_dict(
        {
            "generator": {"name": "bezier", **generator},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": 48, "padding": 3, **(canvas or {})},
            "seed": 1,
        }
    )


def images(*indices: int, canvas: Any = None, **settings: Any) -> np.ndarray:
    return formulavision.Drawer(recipe(canvas, **settings)).draw_batch(indices)[0]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def evaluate(control: np.ndarray, segments: int) -> np.ndarray:
    return curves.curve_points(curves.bernstein(control.shape[1] - 1, segments), control)


# Curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3, 7, 33])
def test_points_lie_on_the_curve(degree: int) -> None:
    control = np.random.default_rng(degree).random((2, degree + 1, 2))
    expected = [BPoly(c[:, None, :], [0, 1])(curves.parameters(40)) for c in control]
    np.testing.assert_allclose(evaluate(control, 40), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 3, 33, 66])
def test_a_curve_starts_and_ends_at_its_outer_control_points(degree: int) -> None:
    control = np.random.default_rng(degree).random((3, degree + 1, 2))
    np.testing.assert_array_equal(evaluate(control, 9)[:, [0, -1]], control[:, [0, -1]])


@pytest.mark.parametrize("degree", [2, 3, 8, 16, 33])
def test_the_segments_keep_within_a_third_of_a_pixel_of_the_curve(degree: int) -> None:
    extent = 128.0
    control = np.random.default_rng(degree).random((40, degree + 1, 2))
    segments = curves.segments_for(degree, extent)
    # Eight points on the curve between two cuts: their distance from the straight segment is what flattening costs.
    cuts = curves.parameters(segments)
    t = cuts[:-1, None] + np.diff(cuts)[:, None] * np.arange(1, 8) / 8
    for c in control:
        curve = BPoly(c[:, None, :], [0, 1])
        ends, between = curve(cuts), curve(t)
        scale = extent / np.ptp(ends, axis=0).max()
        along = np.diff(ends, axis=0)[:, None]
        offset = between - ends[:-1, None]
        away = np.abs(along[..., 0] * offset[..., 1] - along[..., 1] * offset[..., 0]) / np.linalg.norm(along, axis=-1)
        assert scale * away.max() < 1 / 3


def test_a_placed_curve_fills_its_extent_between_the_borders() -> None:
    points = np.random.default_rng(0).random((5, 20, 2))
    placed = curves.scale_and_move(points, np.linspace(5, 30, 5), np.random.default_rng(1).random((5, 2)), 4.0, 34.0)
    np.testing.assert_allclose(np.ptp(placed, axis=1).max(axis=1), np.linspace(5, 30, 5), rtol=1e-5)
    assert placed.min() >= 4 - 1e-4
    assert placed.max() <= 34 + 1e-4


def test_a_curve_whose_points_coincide_is_placed_as_one_point() -> None:
    placed = curves.scale_and_move(np.full((1, 3, 2), 0.5), np.array([10.0]), np.array([[0.0, 1.0]]), 4.0, 34.0)
    assert placed.tolist() == [[[4, 34]] * 3]


# The generator ----------------------------------------------------------------------------------------------------


def test_categories_are_the_grid_of_control_points_and_curves() -> None:
    drawer = formulavision.Drawer(recipe(categories=9, grid=3))
    assert [tuple(c.parameters[0]) for c in drawer.categories] == [(p, n) for p in (3, 4, 5) for n in (1, 2, 3)]


@pytest.mark.parametrize(("grid", "count"), [(12, 144), (32, 1024)])
def test_the_published_grids_have_their_number_of_categories(grid: int, count: int) -> None:
    assert recipe(categories={}, grid=grid).num_categories == count


def test_more_curves_cover_more_pixels() -> None:
    one, twelve = (images(*range(c * 6, c * 6 + 6), categories=12) > 0 for c in (0, 11))
    assert twelve.mean() > 3 * one.mean()


def test_an_instance_is_the_same_alone_and_in_a_batch() -> None:
    together = images(0, 1, 2, 13)
    alone = np.concatenate([images(index) for index in (0, 1, 2, 13)])
    np.testing.assert_array_equal(together, alone)


def test_render_gives_the_pixels_of_a_batch() -> None:
    drawer = formulavision.Drawer(recipe())
    category, instance = drawer.locate(8)
    np.testing.assert_array_equal(drawer.generator.render(category, instance), drawer.draw(8)[0])


def test_a_batch_does_not_keep_what_the_array_held() -> None:
    drawer = formulavision.Drawer(recipe())
    out = np.full((2, 48, 48, 1), 77, np.uint8)
    drawer.generator.render_batch(drawer.categories[1], np.array([3, 4]), out)
    np.testing.assert_array_equal(out, images(9, 10))


def test_no_two_instances_are_alike() -> None:
    assert len({image.tobytes() for image in images(*range(24))}) == 24


def test_the_padding_stays_empty() -> None:
    drawn = images(*range(6), canvas={"padding": 10}, extent_min=1.0, extent_max=1.0, thickness_max=4.0)
    drawn[:, 10:-10, 10:-10] = 0
    assert not drawn.any()


def test_a_canvas_smaller_than_the_line_is_drawn_on() -> None:
    assert images(0, canvas={"size": 8, "padding": 3}, thickness_min=30.0, thickness_max=30.0).any()


def test_thicker_lines_cover_more_pixels() -> None:
    thin, thick = (images(*range(6), thickness_min=w, thickness_max=w).mean() for w in (1.0, 4.0))
    assert thick > 2 * thin


def test_colour_draws_the_curves_of_the_gray_image() -> None:
    gray, colour = images(8), images(8, canvas={"channels": 3})
    np.testing.assert_array_equal(colour.max(axis=-1, keepdims=True), gray)


def test_a_curve_of_a_coloured_image_has_one_hue() -> None:
    image = images(0, canvas={"channels": 3})[0].reshape(-1, 3)
    full = image[image.max(axis=1) == 255]
    assert len(np.unique(full, axis=0)) == 1


@pytest.mark.parametrize("what", ["thickness", "extent"])
def test_a_range_the_wrong_way_round_is_refused(what: str) -> None:
    with pytest.raises(formulavision.ConfigError, match=rf"^generator\.{what}_min: 0.9 is not allowed"):
        recipe(**{f"{what}_min": 0.9, f"{what}_max": 0.6})


# A digest that changes is a pixel that changed: raise the generator's version with it.
@pytest.mark.parametrize(
    ("settings", "canvas", "expected"),
    [
        ({}, {}, "e33447df0c1ff189"),
        ({"categories": 144, "thickness_max": 5.0}, {"size": 96}, "8abb939fe74242d8"),
        ({}, {"channels": 3}, "28b8a1e85a7c03cd"),
    ],
)
def test_pixels_are_those_of_version_1(settings: Any, canvas: Any, expected: str) -> None:
    assert digest(images(0, 5, 17, 23, canvas=canvas, **settings)) == expected
