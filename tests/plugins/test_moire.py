"""The generator ``moire``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.moire import Moire
from numpy.typing import NDArray

from formulavision import Category, ConfigError, Drawer, Recipe


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 6, **generator: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": "moire", **generator},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": 48, "padding": 0, **(canvas or {})},
            "seed": 1,
        }
    )


def images(*indices: int, **settings: Any) -> NDArray[np.uint8]:
    return Drawer(recipe(**settings)).draw_batch(indices)[0]


def plain_levels(generator: Moire, category: Category, instance: int) -> NDArray[np.float64]:
    """By the definition, in float64: levels before they are rounded."""
    size, margin, turn = generator.canvas.size, generator.params.margin, generator.params.turn
    rows, columns = np.mgrid[:size, :size].astype(float)
    random, total = generator.random(category, instance), np.zeros((size, size))
    for frequency, lines, angle in category.parameters:
        x, y, turned = random.random(3)
        dx, dy = (at - size * (margin + place * (1 - 2 * margin)) for at, place in ((columns, x), (rows, y)))
        radians = math.radians(angle + turn * (2 * turned - 1))
        distance = dx * math.cos(radians) + dy * math.sin(radians) if lines else np.hypot(dx, dy)
        total += np.sin(2 * np.pi * frequency * distance / size)
    low, high = total.min(), total.max()
    result: NDArray[np.float64] = 255 * (total - low) / (high - low)
    return result


@pytest.mark.parametrize("grating", ["rings", "lines", "mixed"])
@pytest.mark.parametrize("size", [8, 47, 224])
def test_images_are_those_of_the_definition_to_one_level(grating: str, size: int) -> None:
    generator = recipe({"size": size}, grating=grating, gratings_min=1).build()
    assert isinstance(generator, Moire)
    for index, instance in ((0, 0), (3, 2**33 + 1), (5, 7)):
        category = Category(index, f"{index:05d}", generator.category(index))
        drawn = generator.render(category, instance)[:, :, 0]
        assert np.abs(drawn - plain_levels(generator, category, instance)).max() < 0.55
        assert drawn.min() == 0 and drawn.max() == 255


def test_high_frequencies_are_those_of_the_definition_but_for_rounding() -> None:
    generator = recipe({"size": 512}, frequency_min=4000, frequency_max=4096).build()
    assert isinstance(generator, Moire)
    category = Category(0, "00000", generator.category(0))
    difference = np.abs(generator.render(category, 0)[:, :, 0] - plain_levels(generator, category, 0))
    assert difference.max() < 8


def test_moiremix_is_the_formula_of_rings() -> None:
    """Sines of the distances from centres, added, from the lowest value to the highest: its program, in its words."""
    generator = recipe({"size": 224}, grating="rings").build()
    assert isinstance(generator, Moire)
    category = Category(0, "00000", np.array([[17.0, 0, 0], [60.0, 0, 0]]))
    random = generator.random(category, 3)
    y, x = np.mgrid[:224, :224].astype(np.float32)
    z = np.zeros((224, 224), np.float32)
    for frequency in (17, 60):
        at_x, at_y, _ = 224 * 0.08 + random.random(3) * (224 - 2 * 224 * 0.08)
        z += np.sin(2 * np.pi / 224 * frequency * np.sqrt((x - at_x) ** 2 + (y - at_y) ** 2))
    z /= 2
    expected = ((z - z.min()) / (z.max() - z.min()) * 255 + 0.5).astype(np.uint8)
    assert np.abs(generator.render(category, 3)[:, :, 0].astype(int) - expected).max() <= 1


def test_categories_are_within_their_ranges_and_differ_in_frequency() -> None:
    for category in Drawer(recipe(categories=200, gratings_max=5, frequency_min=3, frequency_max=9)).categories:
        frequencies, lines, angles = category.parameters.T
        assert 2 <= len(set(frequencies)) == len(frequencies) <= 5
        assert frequencies.min() >= 3 and frequencies.max() <= 9
        assert ((angles == 0) == (lines == 0)).all() and (angles < 180).all()


@pytest.mark.parametrize(("grating", "expected"), [("rings", {0}), ("lines", {1}), ("mixed", {0, 1})])
def test_the_kind_of_gratings_is_that_of_the_recipe(grating: str, expected: set[int]) -> None:
    categories = Drawer(recipe(categories=20, grating=grating)).categories
    assert {line for category in categories for line in category.parameters[:, 1]} == expected


def test_a_coloured_image_is_the_gray_one_between_two_hues() -> None:
    for index in range(4):
        gray, colored = images(index)[0, :, :, 0], images(index, canvas={"channels": 3})[0]
        ends = colored[gray == 0][0].astype(int), colored[gray == 255][0].astype(int)
        expected = (ends[0] * (255 - gray[..., None].astype(int)) + ends[1] * gray[..., None].astype(int)) // 255
        assert np.array_equal(colored, expected)
        assert np.abs(ends[0] - ends[1]).max() > 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gratings_min": 4}, "gratings_min: 4 is not allowed: must not be above gratings_max 3"),
        ({"frequency_min": 101}, "frequency_min: 101 is not allowed: must not be above frequency_max 100"),
        ({"frequency_min": 99}, "gratings_max: 3 is not allowed: gratings of a category differ in frequency"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


@pytest.mark.parametrize("row", [[0, 0, 0], [5000, 0, 0], [5, 0.5, 0]])
def test_parameters_of_no_category_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match=r"frequencies above 0|lines must be 1"):
        recipe().build().check_category(np.array([row], float))
