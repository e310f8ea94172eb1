"""The generator ``dead-leaves``: the published images to the bit, and the counter-based ones."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from formulavision_plugins.dead_leaves import DeadLeaves, leaves, opencv, parameters, published
from numpy.typing import NDArray

from formulavision import Category, ConfigError, Drawer, Recipe
from formulavision.recipes.category_files import write_folder
from formulavision.rendering import python_random
from formulavision.rendering.random import kernel_key, philox4x32

PUBLISHED = {
    "square": [
        ("7983b69d18f9c19a", 108),
        ("4bd6807ec48bfae9", 276),
        ("afd1f20fba48bcb3", 480),
        ("3a2d7192e386ce1d", 144),
        ("9e33461bee9c6231", 396),
        ("333ca8b471e7c42a", 540),
    ],
    "oriented_square": [
        ("6e5bf52b9f1615a5", 46),
        ("565a6c331349edbf", 572),
        ("f24d2478bd5539ca", 148),
        ("801d5e9bc4d45a8c", 570),
        ("473318731040ae3d", 264),
        ("71996f63241df612", 440),
    ],
    "mixed": [
        ("8b830de813addcf3", 278),
        ("d79a5fd250ebb20f", 294),
        ("e73c2528c221bcf6", 242),
        ("a74aa038b3807304", 186),
        ("53b74c4e2472cee3", 622),
        ("d6d7737570416245", 12),
    ],
}
"""By shape and number of the image: digest of [channels, rows, columns] of 128 pixels, and numpy's position after."""


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 6, seed: int = 1, **generator: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": "dead-leaves", **generator},
            "categories": 1 if generator.get("random") == "published" else categories,
            "instances": instances,
            "canvas": {"size": 48, "padding": 0, **(canvas or {})},
            "seed": seed,
        }
    )


def images(*indices: int, **settings: Any) -> NDArray[np.uint8]:
    return Drawer(recipe(**settings)).draw_batch(indices)[0]


# The published images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", PUBLISHED)
def test_images_are_the_published_ones(shape: str) -> None:
    drawn = images(*range(6), canvas={"size": 128}, random="published", shape=shape)
    for image, (digest, _) in zip(drawn, PUBLISHED[shape], strict=True):
        assert hashlib.sha256(image.transpose(2, 0, 1).tobytes()).hexdigest()[:16] == digest


def test_the_digests_are_those_of_opencv_4_5_3(shared_data: Path) -> None:
    path = shared_data / "published-generators" / "dead_leaves" / "manifest.json"
    for image in json.loads(path.read_text(encoding="utf-8"))["images"]:
        expected = image["sha256_opencv_4_5_3"][:16], image["np_position_after"]
        assert PUBLISHED[image["shape_mode"]][image["index"]] == expected


def plain_published(shape: str, number: int, size: int, most: int) -> NDArray[np.uint8]:
    """The program in numpy's and Python's words, with our filled polygons."""
    choices, numbers = random.Random(number), np.random.RandomState(number)
    radii = np.linspace(0.03, 1, 200)
    cumulative = np.cumsum(radii**-3.0 - 1)
    cumulative /= cumulative[-1]
    image = np.zeros((3, size, size), np.uint8)
    for _ in range(most):
        kind = choices.choice(parameters.SHAPES) if shape == "mixed" else shape
        color = [int(level) for level in numbers.uniform(0, 1, 3) * 255]
        radius = max(int(radii[np.argmin(np.abs(cumulative - numbers.uniform(0, 1)))] * size), 1)
        centre = numbers.uniform(0, size, 2).astype(np.int32)
        if kind in ("square", "oriented_square"):
            half = radius * np.sqrt(2) / 2
            corners = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half).astype(np.int32)
            if kind == "oriented_square":
                turn = numbers.uniform(0, 2 * np.pi)
                c, s = np.cos(turn), np.sin(turn)
                corners = np.stack([c * corners[:, 0] - s * corners[:, 1], s * corners[:, 0] + c * corners[:, 1]], 1)
        elif kind == "rectangle":
            (turn,) = numbers.uniform(0, np.pi / 2, 1)
            signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
            corners = (signs * radius * [np.cos(turn), np.sin(turn)]).astype(np.int32)
        else:
            turns = np.sort(numbers.uniform(0, 2 * np.pi, {"triangle": 3, "quadrilater": 4}.get(kind, 0)))
            corners = radius * np.stack([np.cos(turns), np.sin(turns)], 1)
        x, y = (corners + centre).astype(np.int32).T
        for plane, level in zip(image, color, strict=True):
            if kind == "circle":
                opencv.fill_circle(plane, int(centre[0]), int(centre[1]), radius, level)
            else:
                opencv.fill_polygon(plane, x.copy(), y.copy(), level)
        if image.any(axis=0).all():
            break
    return image.transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("shape", "number", "size", "most"),
    [
        *((shape, 7, 24, 5000) for shape in parameters.SHAPES),
        ("mixed", 1_299_999, 256, 40),
        ("mixed", 2**32 - 1, 65, 200),
        ("rectangle", 3, 8, 5000),
    ],
)
def test_images_of_other_settings_are_the_programs(shape: str, number: int, size: int, most: int) -> None:
    generator = recipe({"size": size}, random="published", shape=shape, leaves=most).build()
    category = Category(0, "00000", np.array([generator.category(0)]))
    assert np.array_equal(generator.render(category, number), plain_published(shape, number, size, most))


@pytest.mark.parametrize("shape", PUBLISHED)
def test_random_states_are_those_of_the_program(shape: str) -> None:
    radii, cumulative = parameters.radius_distribution(parameters.DeadLeavesParams(), 3.0)
    kind = -1 if shape == "mixed" else parameters.SHAPES.index(shape)
    for number, (_, position) in enumerate(PUBLISHED[shape]):
        state, owners = published.numpy_seeded(number), np.zeros((128, 128), np.int16)
        colors = np.zeros((5001, 3), np.uint8)
        published.draw(state, python_random.seeded(number), kind, 6, radii, cumulative, owners, colors)
        assert state[624] == position and owners.all()


def test_a_black_leaf_counts_as_no_leaf() -> None:
    """The program looks for black pixels, and stops later where a leaf is black."""
    radii, cumulative = np.array([4.0]), np.array([1.0])
    black, state = 0, python_random.seeded(0)
    # A stream of zeros: all leaves are black, and cover the canvas.
    state[:624], state[624] = 0, 0
    owners, colors = np.ones((8, 8), np.int16), np.zeros((4, 3), np.uint8)
    published.draw(state, state, 0, 6, radii, cumulative, owners, colors)
    assert (owners == black).all()


@pytest.mark.parametrize("size", [8, 40, 131])
def test_polygons_inside_of_the_image_are_those_of_opencv(size: int) -> None:
    """Those with corners outside differ among OpenCV's versions: the published digests are of 4.5.3."""
    numbers = np.random.default_rng(size)
    for corners in [3, 4, 4, 7] * 40:
        points = numbers.integers(0, size, (corners, 2)).astype(np.int32)
        ours, theirs = np.zeros((2, size, size), np.uint8)
        opencv.fill_polygon(ours, points[:, 0].copy(), points[:, 1].copy(), 9)
        cv2.fillPoly(theirs, [points], 9)
        assert np.array_equal(ours, theirs), points


def test_circles_are_those_of_opencv() -> None:
    numbers = np.random.default_rng(0)
    for radius in [*range(1, 40), 64, 300]:
        x, y = numbers.integers(-20, 60, 2).tolist()
        ours, theirs = np.zeros((2, 40, 40), np.uint8)
        opencv.fill_circle(ours, x, y, radius, 9)
        cv2.circle(theirs, (x, y), radius, 9, -1)
        assert np.array_equal(ours, theirs)


def test_published_images_do_not_depend_on_order_batch_or_seed() -> None:
    settings = {"random": "published", "instances": 10, "canvas": {"size": 24}}
    together = images(*range(10), **settings)
    assert np.array_equal(images(7, 3, 9, 7, **settings, seed=5), together[[7, 3, 9, 7]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"random": "published", "canvas": {"channels": 1}}, "canvas.channels: must be 3 with random: published"),
        ({"random": "published", "sigma_spread": 0.5}, "sigma_spread: has an effect with random: independent only"),
        ({"radius_min": 0.5, "radius_max": 0.5}, "radius_min: 0.5 is not allowed: must be below radius_max 0.5"),
        ({"shape": "leaf"}, "shape"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings).build()


def test_categories_from_files_are_refused_by_the_published_set(tmp_path: Path) -> None:
    write_folder(Drawer(recipe()).categories[:1], tmp_path / "categories")
    with pytest.raises(ConfigError, match="must be that of the published set"):
        Drawer(
            Recipe.from_dict(
                {
                    "generator": {"name": "dead-leaves", "random": "published"},
                    "categories": {"folder": str(tmp_path / "categories")},
                }
            )
        )


# Counter-based images ------------------------------------------------------------------------------------------------


def plain_image(generator: DeadLeaves, category: Category, instance: int, most: int) -> NDArray[np.uint8]:
    """By the definition, pixel by pixel, from the lowest leaf up."""
    f, size = np.float32, generator.canvas.size
    table = leaves.category_table(generator.params, np.array(category.parameters[0]))
    radii, (cosines, sines) = leaves.radii_in_pixels(generator.params, size), leaves.directions()
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    image = np.zeros((size, size, 3), np.uint8)
    counter, key = (instance & 0xFFFF_FFFF, category.index, instance >> 32), kernel_key(generator.seed, b"leaf")
    for n in range(most - 1, -1, -1):
        (w0, w1, w2, w3), words = (philox4x32(2 * n + i, *counter, *key) for i in (0, 1))
        x, y = (f(int(w) >> 8) * (f(size) * f(2**-24)) - f(0.5) for w in (w0, w1))
        radius = radii[np.searchsorted(table[:199], int(w2) >> 2, side="right")]
        shape = parameters.SHAPES[np.searchsorted(table[leaves.MIX : leaves.MIX + 5], int(w3) >> 2, side="right")]
        a = [(int(w) & 0xFFFF) >> 4 for w in words]
        if shape == "circle":
            half = np.sqrt(np.maximum(radius * radius - (rows - y) * (rows - y), f(0)))
            covered = (columns >= x - half) & (columns <= x + half) & (rows >= y - radius) & (rows <= y + radius)
        else:
            turn = a[0] if shape == "oriented_square" else 0
            which = {
                "rectangle": [a[0] // 4, 2048 - a[0] // 4, 2048 + a[0] // 4, 4096 - a[0] // 4],
                "triangle": sorted([*a[:3], a[2]]),
                "quadrilater": sorted(a),
            }.get(shape, [turn + 512, turn + 1536, turn + 2560, turn + 3584])
            xs, ys = ([at + radius * table[i % 4096] for i in which] for at, table in ((x, cosines), (y, sines)))
            covered = (rows >= min(ys)) & (rows <= max(ys))
            for x0, y0, x1, y1 in zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True):
                if y1 != y0:
                    crossing = x0 + (rows - y0) * ((x1 - x0) / (y1 - y0))
                    covered &= columns >= crossing if y1 < y0 else columns <= crossing
        low, levels = table[leaves.PALETTE : leaves.PALETTE + 6].reshape(2, 3).tolist()
        image[covered] = [low[i] + ((int(words[i]) >> 16) * levels[i] >> 16) for i in range(3)]
    return image


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (40, {"radius_min": 0.1}),
        (8, {}),
        (67, {"radius_min": 0.2, "radius_max": 2.0, "sigma": 1.5, "sigma_spread": 0.3}),
        *((33, {"shape": shape, "radius_min": 0.1}) for shape in parameters.SHAPES),
    ],
)
def test_images_are_those_of_the_definition(size: int, settings: dict[str, Any]) -> None:
    generator = recipe({"size": size}, seed=2**40 + 1, leaves=300, **settings).build()
    assert isinstance(generator, DeadLeaves)
    for index, instance in ((0, 0), (3, 2**33 + 1)):
        category = Category(index, f"{index:05d}", np.array([generator.category(index)]))
        assert np.array_equal(generator.render(category, instance), plain_image(generator, category, instance, 300))


def test_images_are_distributed_as_the_published_ones() -> None:
    """Shares of neighbouring pixels that differ, and mean levels."""
    generator = recipe().build()
    even = np.array([[3, *np.full(6, 1 / 6), *(0, 255) * 3]])
    ours = np.zeros((80, 48, 48, 3), np.uint8)
    generator.render_batch(Category(0, "00000", even), np.arange(80), ours)
    theirs = images(*range(80), random="published", instances=80)
    edges = np.array([(np.diff(drawn.astype(int), axis=2) != 0).any(-1).mean((1, 2)) for drawn in (ours, theirs)])
    error = np.hypot(*edges.std(axis=1)) / 80**0.5
    assert abs(edges[0].mean() - edges[1].mean()) < 4 * error + 0.01
    assert ours.mean() == pytest.approx(theirs.mean(), abs=6)


def test_leaves_cover_the_canvas() -> None:
    drawn = images(*range(24), canvas={"size": 64})
    assert drawn.any(axis=3).mean() > 0.999
    assert not images(0, leaves=3, radius_max=0.1).any(axis=3).all()


def test_a_gray_image_is_the_red_of_that_in_colour() -> None:
    assert np.array_equal(images(3, canvas={"channels": 1}), images(3)[..., :1])


def test_colours_are_within_the_categorys_levels() -> None:
    drawer = Drawer(recipe(categories=8))
    for index, category in enumerate(drawer.categories):
        low, high = category.parameters[0, 7:].reshape(3, 2).T
        drawn = drawer.draw(6 * index)[0]
        assert (drawn >= low).all() and (drawn <= high).all()


@pytest.mark.parametrize("shape", parameters.SHAPES)
def test_a_shape_is_that_of_all_leaves(shape: str) -> None:
    for category in Drawer(recipe(shape=shape)).categories:
        assert category.parameters[0, 1:7].tolist() == [each == shape for each in parameters.SHAPES]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: 0}, "a sigma from 0.1 to 10"),
        ({1: -0.5}, "probabilities"),
        ({1: 5}, "probabilities"),
        ({7: 0.5}, "whole numbers from 0 to 255"),
        ({8: 256}, "whole numbers from 0 to 255"),
        ({7: 250, 8: 3}, "min not above max"),
    ],
)
def test_parameters_of_no_category_are_refused(change: dict[int, float], message: str) -> None:
    generator = recipe().build()
    row = np.array([generator.category(0)])
    generator.check_category(row)
    row[0, list(change)] = list(change.values())
    with pytest.raises(ValueError, match=message):
        generator.check_category(row)
