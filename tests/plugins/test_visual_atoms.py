"""The generator ``visual-atoms``: the published set to the bit, and the counter-based one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.contours import VisualAtoms, published_waves, shapes, waves
from numpy.typing import NDArray
from PIL import Image
from published_contours import digest

from formulavision import Category, ConfigError, Drawer, Recipe
from formulavision.recipes.category_files import write_folder
from formulavision.rendering import python_random

RUNS = {
    run["run"]: run
    for run in json.loads((Path(__file__).parent / "published_visual_atoms.json").read_text(encoding="utf-8"))["runs"]
}
FAR = "published_thread_14_second_category"


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 6, **generator: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": "visual-atoms", **generator},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": 96, "padding": 0, **(canvas or {})},
            "seed": 1,
        }
    )


def published(name: str, **settings: Any) -> Recipe:
    """The recipe of a run's first categories and instances."""
    run = RUNS[name]
    first = {kind: 1 + max(image[kind] for image in run["images"]) for kind in ("category", "instance")}
    canvas = {"size": run["settings"].get("image_size", 512)}
    return recipe(canvas, first["category"], first["instance"], random="published", **{**run["settings"], **settings})


def images(*indices: int, canvas: Any = None, **settings: Any) -> NDArray[np.uint8]:
    return Drawer(recipe(canvas, **settings)).draw_batch(indices)[0]


# The published set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RUNS if name != FAR])
def test_images_are_the_published_ones(name: str) -> None:
    drawer = Drawer(published(name))
    for image in RUNS[name]["images"]:
        drawn = drawer.draw(image["category"] * drawer.recipe.num_instances + image["instance"])[0]
        assert digest(drawn) == image["pixels"], image
        assert drawer.categories[image["category"]].parameters[0].tolist() == image["parameters"]


def generator_of(name: str) -> VisualAtoms:
    generator = published(name, **({} if name != FAR else {"published_categories": 1000})).build()
    assert isinstance(generator, VisualAtoms)
    return generator


def test_a_category_behind_a_thousand_instances_is_the_published_one() -> None:
    """Drawn without the categories before it: its stream is walked, and no other."""
    generator = generator_of(FAR)
    checkpoint = generator.streams.checkpoint(701 * 1000)
    out = np.zeros((2, 512, 512, 1), np.uint8)
    generator.render_batch(Category(701, "00701", checkpoint["category"][None]), np.array([1, 0]), out)
    assert [digest(image) for image in out] == [image["pixels"] for image in RUNS[FAR]["images"]][::-1]


def test_the_digests_are_those_of_the_files(shared_data: Path) -> None:
    folder = shared_data / "published-generators" / "visual_atoms"
    pictures = [(image["pixels"], image["png"]) for run in RUNS.values() for image in run["images"] if image["png"]]
    assert len(pictures) == 28
    for expected, png in pictures:
        assert digest(np.asarray(Image.open(folder / png))[:, :, None]) == expected


@pytest.mark.parametrize("name", list(RUNS))
def test_random_states_are_those_of_the_program(name: str) -> None:
    generator = generator_of(name)
    ranges, instances = generator.params.ranges(), generator.params.published_instances
    none = np.empty(0, np.int64), np.empty((0, 2)), np.empty((0, 625), np.uint32)
    for image in RUNS[name]["images"]:
        number = image["category"] * instances + image["instance"]
        checkpoint = generator.streams.checkpoint(number)
        state, category, centre = (checkpoint[field].copy() for field in ("state", "category", "centre"))
        published_waves.advance(state, ranges, category, centre, number - int(checkpoint["image"]), *none)
        assert centre.tolist() == image["centre"]
        lines, vertices = int(category[1]), int(category[0])
        grays, polygons = np.empty(lines, np.uint8), np.empty((lines, 2, vertices), np.int32)
        sines = waves.half_sines(vertices, int(category[5]), int(category[6]))
        waves.published_wave_polygons(state, shapes.angles(vertices), sines, category, centre, 1.0, grays, polygons)
        assert (int(state[624]), digest(state[:624])) == (image["position"], image["words"])


def test_vertices_are_those_of_the_program(shared_data: Path) -> None:
    checkpoint = generator_of("thread_14").streams.checkpoint(28 * 3)
    state, category, centre = (checkpoint[field].copy() for field in ("state", "category", "centre"))
    vertices = int(category[0])
    directions, words = shapes.angles(vertices), np.empty(2 * vertices, np.uint32)
    sines = waves.half_sines(vertices, int(category[5]), int(category[6]))
    places = directions * category[4] * category[7:, None] + centre[::-1, None]
    with np.load(
        shared_data / "published-generators" / "visual_atoms" / "vertices_thread_14_first_image.npz"
    ) as golden:
        for x, y, gray in zip(golden["x"], golden["y"], golden["gray"], strict=True):
            assert python_random.randint(state, 0, 255) == gray
            for axis in range(2):
                waves.move_published(state, directions[axis], sines, category[2], category[3], words, places[axis])
            assert np.array_equal(places[0], x) and np.array_equal(places[1], y)


SMALL = {"published_categories": 4, "published_instances": 40, "threads": 2, "vertices_max": 220, "lines_max": 9}


def test_published_images_do_not_depend_on_order_or_batch() -> None:
    settings = {**SMALL, "random": "published"}
    together = images(*range(40), instances=40, **settings)
    backwards = images(*range(39, -1, -1), instances=40, **settings)
    twice = images(7, 3, 7, 39, 3, instances=40, **settings)
    assert np.array_equal(together, backwards[::-1])
    assert np.array_equal(twice, together[[7, 3, 7, 39, 3]])


def test_the_first_categories_and_instances_are_those_of_the_whole_set() -> None:
    settings = {**SMALL, "random": "published"}
    whole = images(0, 1, 40, 41, 80, 81, instances=40, **settings)
    assert np.array_equal(images(*range(6), categories=3, instances=2, **settings), whole)


def test_the_recipes_seed_changes_no_published_image() -> None:
    data = recipe(random="published", **SMALL).to_dict()
    first, second = (Drawer(Recipe.from_dict({**data, "seed": seed})).draw(0)[0] for seed in (1, 2))
    assert first.any() and np.array_equal(first, second)


def test_a_smaller_canvas_shows_the_published_lines_scaled() -> None:
    data = published("thread_01").to_dict()
    small, large = (Drawer(Recipe.from_dict(data, [f"canvas.size={size}"])).draw(6)[0] > 0 for size in (128, 512))
    boxes = [np.argwhere(lit[:, :, 0]) for lit in (small, large)]
    ends = [np.concatenate([each.min(0), each.max(0)]) for each in boxes]
    assert np.abs(ends[0] * 4 - ends[1]).max() <= 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 10}, r"threads: has an effect with random: published only"),
        ({"published_instances": 10}, r"published_instances: has an effect with random: published only"),
        (
            {"random": "published", "published_categories": 19},
            r"published_categories: 19 is not allowed: must not be below threads 20",
        ),
        ({"vertices_min": 1001}, r"vertices_min: 1001 is not allowed: must not be above vertices_max 1000"),
        ({"wave_2_min": 21}, r"wave_2_min: 21 is not allowed: must not be above wave_2_max 20"),
        ({"wave_2_min": 7, "wave_2_max": 7}, r"wave_2_max: 7 is not allowed: the second sine needs another frequency"),
        ({"categories": 1001, "random": "published"}, "1000"),
        ({"categories": 1001, "published_categories": 1019, "random": "published"}, "'visual-atoms' has 1000 here"),
        ({"instances": 1001, "random": "published"}, "1000"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


def test_categories_from_files_are_refused_where_they_are_not_the_published_ones(tmp_path: Path) -> None:
    settings = {**SMALL, "random": "published"}
    write_folder(Drawer(recipe(**settings)).categories[1:3], tmp_path / "categories")
    with pytest.raises(ConfigError, match="00001 is not category 0 of the published set"):
        Drawer(recipe(categories={"folder": str(tmp_path / "categories")}, **settings))


# Counter-based images ------------------------------------------------------------------------------------------------


def plain_image(generator: VisualAtoms, category: Category, instance: int) -> NDArray[np.uint8]:
    """By the definition, in float64: with the random numbers of the generator, and Pillow's lines."""
    from PIL import ImageDraw

    from formulavision.rendering.noise_fields import GRADIENTS_1D
    from formulavision.rendering.random import philox4x32

    def noise(word: int) -> float:
        cell, t = int(word) >> 24, (int(word) & 0xFFFFFF) / 2**24
        near, far = GRADIENTS_1D[cell] * t, GRADIENTS_1D[(cell + 1) % 256] * (t - 1)
        return 0.4 * float(near + t**3 * (t * (t * 6 - 15) + 10) * (far - near))

    values = category.parameters[0].tolist()
    vertices, lines, wave_1, wave_2 = (int(values[i]) for i in (0, 1, 5, 6))
    perlin, width, radius = values[2:5]
    size, uniform = generator.canvas.size, generator.random(category, instance).random(2 + lines)
    scale = size / generator.params.image_size
    angle = 2 * np.pi * np.arange(vertices) / vertices
    around = np.array([np.cos(angle), np.sin(angle)])
    centre = (generator.params.image_size + (2 * uniform[1::-1] - 1) * generator.params.start_pos) / 2
    places = around * radius * np.array(values[7:])[:, None] + centre[:, None]
    sines = 0.5 * np.sin(angle * wave_1) + 0.5 * np.sin(angle * wave_2)
    image, half = Image.new("L", (size, size)), (vertices + 1) // 2
    key, counter = shapes.kernel_key(generator.seed, b"inst"), (instance & 0xFFFF_FFFF, category.index, instance >> 32)
    for line in range(lines):
        for v in range(vertices):
            words = philox4x32(65536 * line + v % half, *counter, *key)[2 * (v // half) :]
            for axis in range(2):
                moved = perlin * noise(words[axis]) - perlin - sines[v]
                places[axis, v] -= around[axis, v] * (moved - width)
        corners = [(int(x), int(y)) for x, y in (places * scale).T]
        ImageDraw.Draw(image).line([*corners, corners[0]], fill=int(256 * uniform[2 + line]))
    return np.asarray(image)


def test_images_are_those_of_the_definition_but_for_rounding() -> None:
    generator = recipe(vertices_min=3, vertices_max=40, lines_max=12).build()
    assert isinstance(generator, VisualAtoms)
    for index, instance in ((0, 0), (1, 5), (2, 2**33 + 1)):
        category = Category(index, f"{index:05d}", np.array([generator.category(index)]))
        drawn = generator.render(category, instance)[0][:, :, 0]
        expected = plain_image(generator, category, instance)
        lit = (drawn > 0) | (expected > 0)
        assert lit.any() and (drawn == expected)[lit].mean() > 0.99


def test_counter_based_images_are_distributed_as_the_published_ones() -> None:
    """Number of lit pixels of many categories, and the places where they are lit."""
    count, settings = 300, {"categories": 300, "instances": 1, "canvas": {"size": 64}}
    once = {"random": "published", "published_categories": count, "published_instances": 1}
    ours, theirs = (images(*range(count), **settings, **more) > 0 for more in ({}, once))
    shares = np.array([lit.mean(axis=(1, 2, 3)) for lit in (ours, theirs)])
    error = shares.std(axis=1).mean() * (2 / count) ** 0.5
    assert abs(shares[0].mean() - shares[1].mean()) < 4 * error
    assert shares[0].std() == pytest.approx(shares[1].std(), rel=0.25)
    assert np.abs(ours.mean(axis=(0, 3)) - theirs.mean(axis=(0, 3))).max() < 0.25


def test_an_instance_is_the_same_alone_and_in_a_batch() -> None:
    together = images(0, 1, 2, 13)
    assert np.array_equal(together, np.concatenate([images(index) for index in (0, 1, 2, 13)]))


def test_no_two_instances_are_alike_also_far_away() -> None:
    drawer = Drawer(recipe())
    out = np.zeros((6, 96, 96, 1), np.uint8)
    drawer.generator.render_batch(drawer.categories[1], np.array([0, 1, 2**32, 2**32 + 1, 2**40, 5]), out)
    assert len({image.tobytes() for image in out}) == 6


def test_categories_are_within_their_ranges_and_the_first_of_any_number() -> None:
    few, many = (Drawer(recipe(categories=n)).categories for n in (3, 200))
    assert all(np.array_equal(a.parameters, b.parameters) for a, b in zip(few, many, strict=False))
    table = np.concatenate([category.parameters for category in many])
    assert (table >= [200, 1, 0, 0, 10, 0, 0, 1, 1]).all() and (table <= [1000, 200, 4, 0.1, 60, 20, 20, 2, 2]).all()
    assert not ((table[:, 5] == table[:, 6]) & (table[:, 5] > 0)).any()


@pytest.mark.parametrize("random", ["independent", "published"])
def test_a_mask_is_where_a_line_is_also_one_of_gray_0(random: str) -> None:
    settings = {**(SMALL if random == "published" else {}), "random": random}
    drawer = Drawer(recipe(**settings))
    image, mask = drawer.generator.render(drawer.categories[1], 2)
    assert np.array_equal(image, drawer.draw(8)[0])
    assert set(np.unique(mask)) == {0, 1}
    assert not image[mask == 0].any() and (image[mask == 1] > 0).mean() > 0.9


def test_a_canvas_of_three_channels_has_the_same_gray_in_all() -> None:
    assert np.array_equal(images(3, canvas={"channels": 3}), np.repeat(images(3), 3, axis=3))


def test_atoms_are_objects_of_scenes() -> None:
    data = {
        "parts": [{"generator": "visual-atoms", "categories": 3}, {"generator": "rcdb", "categories": 3}],
        "scene": {"objects": [3, 3]},
        "images": 2,
        "canvas": {"size": 96, "padding": 0},
    }
    scene = Drawer(Recipe.from_dict(data)).draw_scenes(np.array([1]))[0]
    assert len(scene.categories) == 3 and scene.object_map.any()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([3.5, 1, 0, 0, 10, 0, 1, 1, 1], "whole numbers"),
        ([2, 1, 0, 0, 10, 0, 1, 1, 1], "vertices 3 to 4000"),
        ([3, 1, 0, 0, 10, 0, 1, 1, 11], "oval_y 1 to 10"),
    ],
)
def test_parameters_of_no_category_are_refused(row: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe().build().check_category(np.array([row], float))


# A digest that changes is a pixel that changed: raise the generator's version with it.
@pytest.mark.parametrize(
    ("settings", "canvas", "expected"),
    [
        ({}, {}, "4d6c4cf9dfebbb5f"),
        ({"radius_min": 60, "wave_1_min": 3}, {"size": 141, "channels": 3}, "23218d9eb27f2d94"),
    ],
)
def test_pixels_are_those_of_version_1(settings: Any, canvas: Any, expected: str) -> None:
    drawn = images(0, 5, 17, 23, canvas=canvas, **settings)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == expected
