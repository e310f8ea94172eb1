"""The generator ``rcdb``: the published set to the bit, and the counter-based contours."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from formulavision_plugins.contours import Rcdb, published, shapes
from numpy.typing import NDArray
from PIL import Image
from published_contours import GOLDENS, digest, rcdb_recipe

from formulavision import ConfigError, Drawer, Recipe
from formulavision.recipes.category_files import write_folder

RUNS = {run["run"]: run for run in GOLDENS["rcdb"]}
FILE = ("Vertex", "Line_num", "Perlin_noise", "line_width", "Center_rad", "Oval_rate_x", "Oval_rate_y", "start_pos_h",
        "start_pos_w")  # fmt: skip
"""Names in the program's parameter files, in the order of a checkpoint's category and placement."""


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 6, **generator: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": "rcdb", **generator},
            **({} if categories is None else {"categories": categories}),
            "instances": instances,
            "canvas": {"size": 96, "padding": 0, **(canvas or {})},
            "seed": 1,
        }
    )


def images(*indices: int, canvas: Any = None, **settings: Any) -> NDArray[np.uint8]:
    return Drawer(recipe(canvas, **settings)).draw_batch(indices)[0]


# The published set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RUNS if name != "published_thread_1_second_category"])
def test_images_are_the_published_ones(name: str) -> None:
    drawer = Drawer(rcdb_recipe(RUNS[name]))
    for image in RUNS[name]["images"]:
        drawn = drawer.draw(image["category"] * drawer.recipe.num_instances + image["instance"])[0]
        assert digest(drawn) == image["pixels"], image


def test_a_category_behind_a_thousand_instances_is_the_published_one() -> None:
    """Drawn without the categories before it: its stream is walked, and no other."""
    run = RUNS["published_thread_1_second_category"]
    generator = rcdb_recipe(run).build()
    assert isinstance(generator, Rcdb)
    category = category_of(generator, 101)
    out = np.zeros((2, 512, 512, 1), np.uint8)
    generator.render_batch(category, np.array([1, 0]), out)
    assert [digest(image) for image in out] == [image["pixels"] for image in run["images"]][::-1]


def test_the_digests_are_those_of_the_files(shared_data: Path) -> None:
    folder = shared_data / "published-generators" / "rcdb"
    pictures = [(image["pixels"], image["png"]) for run in RUNS.values() for image in run["images"] if image["png"]]
    assert len(pictures) == 34
    for expected, png in pictures:
        assert digest(np.asarray(Image.open(folder / png))[:, :, None]) == expected


def category_of(generator: Rcdb, index: int) -> Any:
    from formulavision import Category

    checkpoint = generator.streams.checkpoint(index * generator.params.published_instances)
    return Category(index, f"{index:05d}", checkpoint["category"][None])


def state_behind(generator: Rcdb, image: dict[str, Any]) -> tuple[NDArray[np.uint32], NDArray[np.float64], Any]:
    """Python's random state when the program saves an image, with the image's vertices and gray levels."""
    params, first = generator.params, image["category"] * generator.params.published_instances
    checkpoint = generator.streams.checkpoint(first + image["instance"])
    state, category, placement = (checkpoint[name].copy() for name in ("state", "category", "placement"))
    none = np.empty(0, np.int64), np.empty((0, 5)), np.empty((0, 625), np.uint32)
    before = first + image["instance"] - int(checkpoint["image"])
    brightest = params.image_size // 2
    published.advance(state, params.ranges(), brightest + 1, category, placement, before, *none)
    lines, vertices = int(category[1]), int(category[0])
    grays, corners = np.empty(lines, np.uint8), np.empty((lines, 2, vertices))
    perlin, width = category[2:].tolist()
    shapes.published_vertices(
        state, shapes.angles(vertices), perlin, width, placement[:3], np.zeros(2), brightest, grays, corners
    )
    return state, corners, grays


@pytest.mark.parametrize("name", list(RUNS))
def test_random_states_are_those_of_the_program(name: str) -> None:
    generator = rcdb_recipe(RUNS[name]).build()
    assert isinstance(generator, Rcdb)
    for image in RUNS[name]["images"]:
        state, _, _ = state_behind(generator, image)
        assert (int(state[624]), digest(state[:624])) == (image["position"], image["words"])


def test_vertices_are_those_of_the_program(shared_data: Path) -> None:
    generator = rcdb_recipe(RUNS["thread_1"]).build()
    assert isinstance(generator, Rcdb)
    _, corners, grays = state_behind(generator, {"category": 2, "instance": 0})
    with np.load(shared_data / "published-generators" / "rcdb" / "vertices_thread_1_first_image.npz") as golden:
        assert np.array_equal(corners[:, 0], golden["x"]) and np.array_equal(corners[:, 1], golden["y"])
        assert np.array_equal(grays, np.minimum(golden["gray"], 255))


def test_parameters_of_categories_are_those_of_the_programs_files(shared_data: Path) -> None:
    folder = shared_data / "published-generators" / "rcdb" / "param"
    files = [(run, file) for run in RUNS for file in sorted((folder / run).glob("*.csv"))]
    assert len(files) == 16
    for run, file in files:
        generator = rcdb_recipe(RUNS[run]).build()
        assert isinstance(generator, Rcdb)
        checkpoint = generator.streams.checkpoint(int(file.stem) * generator.params.published_instances)
        values = dict(zip(FILE, [*checkpoint["category"].tolist(), *checkpoint["placement"].tolist()], strict=True))
        whole = ("Vertex", "Line_num", "Center_rad")
        rows = [line.split(",")[0] for line in file.read_text().splitlines()]
        text = "".join(f"{name},{int(values[name]) if name in whole else values[name]!r}\r\n" for name in rows)
        assert text.encode() == file.read_bytes()


def test_the_first_categories_and_instances_are_those_of_the_whole_set() -> None:
    settings = RUNS["thread_0"]["settings"]
    whole = Drawer(recipe(random="published", categories=20, instances=3, **settings))
    part = Drawer(recipe(random="published", categories=3, instances=2, **settings))
    assert (whole.recipe.num_categories, whole.recipe.num_instances) == (20, 3)
    assert np.array_equal(part.draw_batch(range(6))[0], whole.draw_batch([0, 1, 3, 4, 6, 7])[0])


def test_published_images_do_not_depend_on_order_or_batch() -> None:
    settings = {**RUNS["thread_0"]["settings"], "published_instances": 40, "random": "published"}
    together = images(*range(40), instances=40, **settings)
    backwards = images(*range(39, -1, -1), instances=40, **settings)
    twice = images(7, 3, 7, 39, 3, instances=40, **settings)
    assert np.array_equal(together, backwards[::-1])
    assert np.array_equal(twice, together[[7, 3, 7, 39, 3]])


def test_processes_draw_as_many_categories_each_and_leave_the_rest_over() -> None:
    """10 categories of 3 processes are 9; the random numbers of each process are Python's own."""
    settings = {"random": "published", "threads": 3, "published_instances": 2}
    drawer = Drawer(recipe(categories=None, instances=2, published_categories=10, **settings))
    assert (drawer.recipe.num_categories, len(drawer.recipe)) == (9, 18)
    even = Drawer(recipe(categories=9, instances=2, published_categories=9, **settings))
    assert np.array_equal(drawer.draw_batch(range(18))[0], even.draw_batch(range(18))[0])
    for process in range(3):
        numbers, vertices = random.Random(process + 1), 0
        while not 2 < vertices <= 200:
            vertices = int(numbers.expovariate(1 / 100))
        expected = [vertices, numbers.randint(1, 200), numbers.uniform(0, 4), numbers.uniform(0, 0.1)]
        assert drawer.categories[3 * process].parameters[0].tolist() == expected
    with pytest.raises(ConfigError, match=r"categories\.count: 10 is not allowed: 'rcdb' has 9 here"):
        recipe(categories=10, instances=2, published_categories=10, **settings)


def test_the_recipes_seed_changes_no_published_image() -> None:
    first, second = (
        Drawer(Recipe.from_dict({**rcdb_recipe(RUNS["thread_0"]).to_dict(), "seed": seed})).draw(0)[0]
        for seed in (1, 2)
    )
    assert np.array_equal(first, second)


def test_a_smaller_canvas_shows_the_published_contours_scaled() -> None:
    run = RUNS["thread_1"]
    small = Drawer(Recipe.from_dict(rcdb_recipe(run).to_dict(), ["canvas.size=128"])).draw(6)[0]
    large = Drawer(rcdb_recipe(run)).draw(6)[0]
    corners = [np.argwhere(image[:, :, 0] < 255) for image in (small, large)]
    boxes = [np.concatenate([each.min(0), each.max(0)]) for each in corners]
    assert np.abs(boxes[0] * 4 - boxes[1]).max() <= 8


def test_the_number_of_a_published_set_is_finite() -> None:
    with pytest.raises(ConfigError, match="1000"):
        recipe(random="published", categories=1001)
    with pytest.raises(ConfigError, match="1000"):
        recipe(random="published", instances=1001)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 10}, r"threads: has an effect with random: published only"),
        ({"published_instances": 10}, r"published_instances: has an effect with random: published only"),
        (
            {"random": "published", "published_categories": 39},
            r"published_categories: 39 is not allowed: must not be below threads 40",
        ),
        ({"lines_min": 20, "lines_max": 10}, r"lines_min: 20 is not allowed: must not be above lines_max 10"),
        ({"perlin_min": 5.0}, r"perlin_min: 5.0 is not allowed: must not be above perlin_max 4.0"),
        ({"radius_min": 200}, r"radius_min: 200 is not allowed: must not be above radius_max 100"),
        ({"outline": "dotted"}, r"outline"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


def test_categories_from_files_are_refused_where_they_are_not_the_published_ones(tmp_path: Path) -> None:
    settings = {**RUNS["thread_0"]["settings"], "random": "published"}
    found = Drawer(recipe(categories=20, instances=3, **settings)).categories
    write_folder(found[1:3], tmp_path / "categories")
    with pytest.raises(ConfigError, match="00001 is not category 0 of the published set"):
        Drawer(recipe(categories={"folder": str(tmp_path / "categories")}, instances=3, **settings))
    write_folder([*found[:3], replace(found[3], name="00004")], tmp_path / "renamed")  # names do not count, order does
    Drawer(recipe(categories={"folder": str(tmp_path / "renamed")}, instances=3, **settings))
    write_folder([*found, replace(found[0], name="00020")], tmp_path / "more")
    with pytest.raises(ConfigError, match="more: 00020 is not category 20 of the published set"):
        Drawer(recipe(categories={"folder": str(tmp_path / "more")}, instances=3, **settings))


def test_the_page_translates_a_command_line_of_the_program() -> None:
    page = Path(__file__).parents[2] / "docs" / "generators" / "contours.md"
    translated = page.read_text(encoding="utf-8").partition("--start_pos=150` is\n\n```yaml\n")[2].partition("```")[0]
    run = rcdb_recipe(RUNS["other_settings_thread_3"])
    assert Recipe.from_dict(yaml.safe_load(translated)) == run


@pytest.mark.parametrize("run", ["thread_0", "other_settings_thread_0"])
def test_the_programs_own_files_give_the_published_images(shared_data: Path, run: str) -> None:
    """The files of a first process have the first categories of the set."""
    folder = shared_data / "published-generators" / "rcdb" / "param" / run
    given = rcdb_recipe(RUNS[run]).to_dict()
    drawer = Drawer(Recipe.from_dict({**given, "categories": {"folder": str(folder)}}))
    assert [category.name for category in drawer.categories] == ["00000", "00001"]
    for image in RUNS[run]["images"]:
        drawn = drawer.draw(image["category"] * drawer.recipe.num_instances + image["instance"])[0]
        assert digest(drawn) == image["pixels"], image


def test_the_programs_own_files_of_later_processes_are_drawn_with_independent_numbers(shared_data: Path) -> None:
    folder = shared_data / "published-generators" / "rcdb" / "param" / "thread_4"
    drawer = Drawer(recipe(categories={"folder": str(folder)}))
    generator = rcdb_recipe(RUNS["thread_4"]).build()
    assert isinstance(generator, Rcdb)
    assert [category.name for category in drawer.categories] == ["00008", "00009"]
    for category in drawer.categories:
        assert np.array_equal(category.parameters, category_of(generator, int(category.name)).parameters)
    assert (drawer.draw_batch(range(12))[0] < 255).any()


# Counter-based contours ----------------------------------------------------------------------------------------------


def plain_polygons(
    directions: NDArray[np.float32],
    frame: NDArray[np.float32],
    counter: tuple[int, ...],
    key: tuple[int, int],
    lines: int,
) -> NDArray[np.int32]:
    """By the definition, vertex by vertex in numpy scalars."""
    from formulavision.rendering.noise_fields import GRADIENTS_1D
    from formulavision.rendering.random import philox4x32

    def noise(word: int) -> np.float32:
        cell, t = int(word) >> 24, np.float32(int(word) & 0xFFFFFF) * np.float32(2**-24)
        one = np.float32(1)
        near, far = t * GRADIENTS_1D[cell], (t - one) * GRADIENTS_1D[(cell + 1) % 256]
        fade = t * t * t * (t * (t * np.float32(6) - np.float32(15)) + np.float32(10))
        return np.float32(near + fade * (far - near))

    vertices = directions.shape[1]
    half = (vertices + 1) // 2
    x, y = directions * frame[:2, None]
    polygons = np.empty((lines, 2, vertices), np.int32)
    for line in range(lines):
        for v in range(vertices):
            words = philox4x32(65536 * line + v % half, *counter, *key)[2 * (v // half) :]
            x[v] -= directions[0, v] * (noise(words[0]) * frame[4] - frame[5])
            y[v] -= directions[1, v] * (noise(words[1]) * frame[4] - frame[5])
            polygons[line, :, v] = int(x[v] + frame[2]), int(y[v] + frame[3])
    return polygons


@pytest.mark.parametrize("vertices", [3, 4, 17, 200])
def test_polygons_are_those_of_the_definition(vertices: int) -> None:
    directions = shapes.angles(vertices).astype(np.float32)
    frame = np.array([40.5, 60.25, 100, 80, 1.7, 2.1], np.float32)
    counter, key = (2**32 - 1, 7, 3), (123, 456)
    polygons = np.empty((5, 2, vertices), np.int32)
    shapes.independent_polygons(directions, frame, counter, key, polygons)
    assert np.array_equal(polygons, plain_polygons(directions, frame, counter, key, 5))


def test_counter_based_contours_are_distributed_as_the_published_ones() -> None:
    """Mean and spread of the number of dark pixels of many categories, and of the contours' centres."""
    ours = images(*range(0, 400), categories=400, instances=1, canvas={"size": 128}) < 255
    theirs = (
        Drawer(
            recipe({"size": 128}, 400, 1, random="published", published_categories=400, published_instances=1)
        ).draw_batch(range(400))[0]
        < 255
    )
    shares = np.array([dark.mean(axis=(1, 2, 3)) for dark in (ours, theirs)])
    error = shares.std(axis=1).mean() * (2 / 400) ** 0.5
    assert abs(shares[0].mean() - shares[1].mean()) < 4 * error
    assert shares[0].std() == pytest.approx(shares[1].std(), rel=0.25)
    assert np.abs(ours.mean(axis=(0, 3)) - theirs.mean(axis=(0, 3))).max() < 0.2


def test_an_instance_is_the_same_alone_and_in_a_batch() -> None:
    together = images(0, 1, 2, 13)
    assert np.array_equal(together, np.concatenate([images(index) for index in (0, 1, 2, 13)]))


def test_no_two_instances_are_alike_also_far_away() -> None:
    drawer = Drawer(recipe())
    out = np.zeros((6, 96, 96, 1), np.uint8)
    drawer.generator.render_batch(drawer.categories[1], np.array([0, 1, 2**32, 2**32 + 1, 2**40, 5]), out)
    assert len({image.tobytes() for image in out}) == 6


def test_categories_are_the_first_of_any_number() -> None:
    few, many = (Drawer(recipe(categories=n)).categories for n in (3, 50))
    assert all(np.array_equal(a.parameters, b.parameters) for a, b in zip(few, many, strict=False))


def test_light_on_black_is_dark_on_white_turned_over() -> None:
    dark, light = (images(*range(6), gray=gray) for gray in ("dark-on-white", "light-on-black"))
    assert np.array_equal(dark, 255 - light)
    backgrounds = [recipe(gray=gray).build().background for gray in ("dark-on-white", "light-on-black")]
    assert backgrounds == [255, 0]


def test_a_canvas_of_three_channels_has_the_same_gray_in_all() -> None:
    gray, color = images(3), images(3, canvas={"channels": 3})
    assert np.array_equal(color, np.repeat(gray, 3, axis=3))


def test_contours_scale_with_the_canvas() -> None:
    small, large = (images(*range(24), canvas={"size": size}) < 255 for size in (96, 384))
    boxes = [[np.argwhere(image[:, :, 0]) / len(image) for image in each] for each in (small, large)]
    for a, b in zip(*boxes, strict=True):
        if len(a) and len(b):
            assert np.abs(np.concatenate([a.min(0) - b.min(0), a.max(0) - b.max(0)])).max() < 0.03


# Masks ---------------------------------------------------------------------------------------------------------------


def drawn_with_mask(**settings: Any) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    drawer = Drawer(recipe(**settings))
    masks, out = np.zeros((6, 96, 96), np.uint8), np.zeros((6, 96, 96, 1), np.uint8)
    drawn = []
    for category in drawer.categories:
        masks[:], out[:] = 0, 0
        drawer.generator.render_batch(category, np.arange(6), out, masks)  # type: ignore[call-arg]
        drawn += [(image[:, :, 0].copy(), mask.copy()) for image, mask in zip(out, masks, strict=True)]
    return drawn


@pytest.mark.parametrize("gray", ["dark-on-white", "light-on-black"])
@pytest.mark.parametrize("outline", ["lines", "ring", "filled"])
def test_a_mask_is_where_something_is_drawn(outline: str, gray: str) -> None:
    background = 255 if gray == "dark-on-white" else 0
    for image, mask in drawn_with_mask(outline=outline, gray=gray):
        assert set(np.unique(mask)) <= {0, 1}
        assert not (image != background)[mask == 0].any()
        # Lines and areas of the background's gray are drawn, too.
        assert ((image != background) | (mask == 0)).mean() > 0.5


def test_areas_grow_from_lines_to_ring_to_filled() -> None:
    lines, ring, filled = (
        np.array([mask for _, mask in drawn_with_mask(outline=kind)], bool) for kind in ("lines", "ring", "filled")
    )
    assert not (lines & ~ring).any() and not (ring & ~filled).any()
    assert lines.mean() < ring.mean() < filled.mean()


def test_a_filled_contour_has_no_hole_where_its_lines_do_not_fold() -> None:
    settings = {"outline": "filled", "perlin_max": 0.0, "radius_min": 50, "start_pos": 0, "line_width": 1.0}
    for _, mask in drawn_with_mask(**settings):
        rows = np.flatnonzero(mask.any(axis=1))
        for row in mask[rows[0] : rows[-1] + 1]:
            columns = np.flatnonzero(row)
            assert row[columns[0] : columns[-1] + 1].all()


def test_render_returns_image_and_mask() -> None:
    drawer = Drawer(recipe(outline="filled"))
    image, mask = drawer.generator.render(drawer.categories[1], 2)
    assert np.array_equal(image, drawer.draw(8)[0])
    assert mask.shape == (96, 96) and mask.any()


# A digest that changes is a pixel that changed: raise the generator's version with it.
@pytest.mark.parametrize(
    ("settings", "canvas", "expected"),
    [
        ({}, {}, "1659d3098fbded7f"),
        ({"outline": "ring", "gray": "light-on-black"}, {"size": 141}, "0bf487392dd62f46"),
        ({"outline": "filled", "radius_min": 60, "vertices_max": 500}, {"channels": 3}, "74fb6714e1148b0e"),
    ],
)
def test_pixels_are_those_of_version_1(settings: Any, canvas: Any, expected: str) -> None:
    drawn = images(0, 5, 17, 23, canvas=canvas, **settings)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == expected
