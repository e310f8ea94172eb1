"""The generator ``mandelbulb``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.mandelbulb import PUBLISHED_RULES, Mandelbulb
from numpy.typing import NDArray
from PIL import Image

from formulavision import Category, ConfigError, Drawer, Recipe
from formulavision.recipes.category_files import write_folder


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 3, **generator: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": "mandelbulb", "power_min": 8, "antialiasing": 1, "iterations": 20, **generator},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": 24, "padding": 0, **(canvas or {})},
            "seed": 1,
        }
    )


def built(**settings: Any) -> Mandelbulb:
    generator = recipe(**settings).build()
    assert isinstance(generator, Mandelbulb)
    return generator


def of(power: int, rule: int, index: int = 0) -> Category:
    return Category(index, f"{index:05d}", np.array([[power, rule]], float))


# The formula ---------------------------------------------------------------------------------------------------------


def plain_estimate(point: NDArray[np.float64], power: int, rule: int, iterations: int) -> tuple[float, list[float]]:
    """The distance estimate and the traps in the words of the published program, with angles."""
    z, dr, r, traps = point.copy(), 1.0, 0.0, [1e20] * 3
    rules = [bool(int(bit)) for bit in f"{rule:09b}"]
    for _ in range(iterations):
        r = float(np.linalg.norm(z))
        if r > 4:
            break
        theta, phi = math.acos(z[2] / r) * power, math.atan2(z[1], z[0]) * power
        dr = r**power * power * dr + 1
        for axis in range(3):
            sine, of_theta, negative = rules[3 * axis : 3 * axis + 3]
            value = (math.sin if sine else math.cos)(theta if of_theta else phi)
            z[axis] = r**power * (-value if negative else value) + point[axis]
        traps[0] = min(abs(z[2]) ** 0.1, traps[0])
        traps[1] = min(float(np.abs(z).sum()) / 1.5, traps[1])
        traps[2] = min(float(np.linalg.norm(z)), traps[2])
    return 0.5 * math.log(r) * r / dr, traps


def plain_image(
    numbers: NDArray[np.float64], power: int, rule: int, size: int, iterations: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Levels in the words of the published program, and where a ray hits."""

    def march(start: NDArray[np.float64], ray: NDArray[np.float64], steps: int, hit: float, far: float) -> Any:
        length, traps = 0.0, [0.0] * 3
        for _ in range(steps):
            distance, traps = plain_estimate(start + length * ray, power, rule, iterations)
            if distance <= hit or length >= far:
                break
            length += distance
        return length, traps

    def turned(p: tuple[float, float, float]) -> NDArray[np.float64]:
        (x, y, z), (a, b) = p, (-90 + 180 * numbers[0], 360 * numbers[1])
        y, z = math.cos(a) * y - math.sin(a) * z, math.sin(a) * y + math.cos(a) * z
        return np.array([math.cos(b) * x - math.sin(b) * y, math.sin(b) * x + math.cos(b) * y, z])

    ahead, up = turned((0.0, -1.0, 0.0)), turned((0.0, 0.0, 1.0))
    side, levels, hits = np.cross(ahead, up), np.full((size, size, 3), 255.0), np.zeros((size, size), bool)
    for row in range(size):
        for column in range(size):
            u, v = (2 * (column + 0.5) - size) / size / 2, (2 * (size - row - 0.5) - size) / size / 2
            ray = side * u + up * v + ahead
            ray /= np.linalg.norm(ray)
            length, traps = march(-2.5 * ahead, ray, 1000, 0.001, 10.0)
            if length >= 10:
                continue
            hits[row, column] = True
            place = -2.5 * ahead + length * ray
            steps = [np.eye(3)[axis] * 0.001 for axis in range(3)]
            slope = np.array(
                [
                    plain_estimate(place + step, power, rule, iterations)[0]
                    - plain_estimate(place - step, power, rule, iterations)[0]
                    for step in steps
                ]
            )
            slope /= np.linalg.norm(slope)
            light = np.array([-10.0, 10.0, 10.0]) - place
            light /= np.linalg.norm(light)
            color = sum(np.clip(trap**10, 0, 1) * numbers[2 + 3 * i : 5 + 3 * i] for i, trap in enumerate(traps))
            color *= (0.3 + 0.9 * max(float(light @ -slope), 0.0)) * float(place @ place)
            if march(place + slope / 100000, light, 10000, 0.0001, 10000.0)[0] >= 10000:
                color += 0.2
            levels[row, column] = 255 * np.clip(color, 0, 1)
    return levels, hits


@pytest.mark.parametrize(("power", "rule"), [(8, 107), (3, 434), pytest.param(17, 297, marks=pytest.mark.slow)])
def test_images_are_those_of_the_published_formula(power: int, rule: int) -> None:
    """A level may differ where a ray grazes the surface, whose slope is that of noise."""
    generator = built(canvas={"size": 12}, iterations=4)
    category, instance = of(power, rule), 5
    drawn, mask = generator.render(category, instance)
    numbers = generator.random(category, instance).random(11)
    levels, hits = plain_image(numbers, power, rule, 12, 4)
    assert (mask == hits).mean() > 0.98 and 0.2 < hits.mean() < 0.9
    near = np.abs(drawn - levels).max(axis=2) <= 1
    assert near.mean() > 0.95


def test_views_and_colours_are_those_of_the_published_program() -> None:
    """It draws them from one generator, image after image, power after power and rule after rule."""
    random = np.random.default_rng(42)
    generator = built(random="published", published_instances=2, instances=2, power_min=2, power_max=3)
    for index in range(100):
        for instance in range(2):
            expected = [random.random() for _ in range(11)]
            assert generator._numbers(of(2, 107, index), instance).tolist() == expected


def test_classes_are_those_of_the_published_set() -> None:
    drawer = Drawer(recipe(categories=1037, power_min=2))
    table = np.concatenate([category.parameters for category in drawer.categories]).astype(int)
    assert table[:2].tolist() == [[2, 107], [2, 106]] and table[-1].tolist() == [18, 297]
    assert len({tuple(row) for row in table.tolist()}) == 1037 and len(PUBLISHED_RULES) == 61
    assert built(rules="all").max_categories() == 11 * 512


def test_several_rays_of_a_pixel_are_made_smaller_by_pillow() -> None:
    fine = built(canvas={"size": 48}).render(of(8, 107), 2)
    drawn, mask = built(antialiasing=2).render(of(8, 107), 2)
    expected = Image.fromarray(fine[0]).resize((24, 24), Image.Resampling.LANCZOS)
    assert np.array_equal(drawn, np.asarray(expected))
    assert np.array_equal(mask, fine[1].reshape(24, 2, 24, 2).sum((1, 3)) >= 2)


def test_outside_of_the_mask_an_image_is_white() -> None:
    image, mask = built().render(of(8, 434), 0)
    assert mask.any() and (image[~mask] == 255).all()


def test_a_gray_image_is_the_luma_of_that_in_colour() -> None:
    color, gray = (built(canvas={"channels": channels}).render(of(8, 107), 1)[0] for channels in (3, 1))
    assert np.array_equal(gray[:, :, 0], np.asarray(Image.fromarray(color).convert("L")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power_min": 19}, "power_min: 19 is not allowed: must not be above power_max 18"),
        ({"published_instances": 10}, "published_instances: has an effect with random: published only"),
        ({"random": "published", "instances": 1001}, "1000"),
        ({"categories": 672}, "671"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


@pytest.mark.parametrize("row", [[0, 3], [65, 3], [8, 512], [8, 3.5], [2.5, 3]])
def test_parameters_of_no_category_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="a power from 1 to 64 and a rule from 0 to 511"):
        built().check_category(np.array([row], float))


def test_categories_from_files_are_refused_where_they_are_not_the_published_ones(tmp_path: Path) -> None:
    found = Drawer(recipe(categories=61, power_max=8)).categories

    def drawer(categories: list[Category], random: str = "published") -> Drawer:
        write_folder(categories, tmp_path / "categories", overwrite=True)
        folder = {"folder": str(tmp_path / "categories")}
        return Drawer(recipe(categories=folder, random=random, power_max=8))

    with pytest.raises(ConfigError, match=r"00001 is not category 0 of the published set, .* random: independent"):
        drawer(found[1:3])
    with pytest.raises(ConfigError, match="categories: 00061 is not category 61 of the published set"):
        drawer([*found, replace(found[0], name="00061")])
    renamed = drawer([*found[:3], replace(found[3], name="00004")])  # names do not count, order does
    assert np.array_equal(renamed.draw(9)[0], Drawer(recipe(random="published")).draw(9)[0])
    drawer(found[1:3], "independent")
