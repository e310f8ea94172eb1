"""The generators ``colored-ifs`` and ``diamond-square``: the published images and scenes to the pixel, and our own."""

from __future__ import annotations

import hashlib
import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.colored_ifs import ColoredIfs, choices, drawing, orbits, pixels, systems
from formulavision_plugins.ifs.systems import with_probabilities
from numpy.typing import NDArray
from PIL import Image

from formulavision import Category, ConfigError, Drawer, Recipe
from formulavision.recipes.category_files import write_folder
from formulavision.rendering import diamond_square

PUBLISHED = json.loads(Path(__file__).with_name("published_colored_ifs.json").read_text())
SIZE, POINTS = PUBLISHED["size"], PUBLISHED["points"]
ROWS = [pytest.param(row, marks=[] if row["seed"] < 2 else pytest.mark.slow) for row in PUBLISHED["rows"]]
PLAIN: dict[str, Any] = {
    "jitter": "none",
    "window": False,
    "patch": False,
    "flips": False,
    "background": False,
    "blur": 0,
}
"""Settings of an image of the fractal alone."""


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def recipe(
    canvas: Any = None, categories: Any = 3, seed: int = 1, images: int | None = None, **generator: Any
) -> Recipe:
    """A recipe of scenes where a number of images is given."""
    scenes = {"instances": 40} if images is None else {"scene": "own", "images": images}
    return Recipe.from_dict(
        {
            "generator": {"name": "colored-ifs", "points": 2000, **generator},
            "categories": categories,
            "canvas": {"size": 64, "padding": 0, **(canvas or {})},
            "seed": seed,
            **scenes,
        }
    )


def published(canvas: Any = None, **settings: Any) -> Recipe:
    return recipe({"size": SIZE, **(canvas or {})}, random="published", **{"points": POINTS, **settings})


def images(*indices: int, **settings: Any) -> NDArray[np.uint8]:
    return Drawer(recipe(**settings)).draw_batch(indices)[0]


def source_of(settings: Recipe) -> Any:
    generator = settings.build()
    assert isinstance(generator, ColoredIfs)
    return generator._source


# The published program -----------------------------------------------------------------------------------------------


def system_of(row: dict[str, Any]) -> NDArray[np.float64]:
    """A golden's system: the program holds (a, b, e) and (c, d, f)."""
    (a, b, e), (c, d, f) = np.moveaxis(np.array(row["system"]), 0, -1)
    return with_probabilities(np.stack([a, b, c, d, e, f], axis=1))


@pytest.mark.parametrize("row", ROWS)
def test_points_and_counts_are_the_published_ones(row: dict[str, Any]) -> None:
    seed, x, y = row["seed"], *np.empty((2, 1 + POINTS))
    orbits.published_points(system_of(row), np.random.RandomState(seed).random_sample(POINTS), x, y)
    x, y = x[1:], y[1:]
    assert digest(np.stack([x, y], axis=1)) == row["coords_sha256"]
    region = orbits.box_of(x, y)
    assert region == tuple(row["region"])
    counts, graded = np.zeros((SIZE + 2, SIZE + 2), np.int32), np.empty((SIZE, SIZE), np.int32)
    pixels.count_points(x, y, region, counts)
    inside = counts[1:-1, 1:-1]
    assert digest(inside / inside.max()) == row["graded_float64_sha256"]
    pattern = np.random.RandomState(seed).randint(0, 2, 9, dtype=bool).astype(np.uint8).reshape(3, 3)
    pixels.spread(counts, pattern, graded)
    assert digest(graded / graded.max()) == row["graded_patch_float64_sha256"]


def test_a_drawer_goes_on_from_the_last_image_to_the_same_next_ones() -> None:
    settings = {"points": 2_000}
    drawer = Drawer(published(**settings))
    for index in (14, 15, 16, 19, 18, 3):  # checkpoints lie at 0, 16, ...
        assert np.array_equal(drawer.draw(index)[0], Drawer(published(**settings)).draw(index)[0])


@pytest.mark.parametrize("row", ROWS)
def test_images_of_the_program_come_out_of_the_drawer(row: dict[str, Any], tmp_path: Path) -> None:
    seed = row["seed"]
    write_folder([Category(0, "00000", system_of(row))], tmp_path / "categories")
    one = {"categories": {"folder": str(tmp_path / "categories")}}
    seeds = {"generator_seed": seed + 4, "numba_seed": seed + 5, "host_seed": seed + 6, "decay_seed": seed + 7}
    assert digest(Drawer(published(**one, **seeds)).draw(0)[0]) == row["single_sha256"]
    fractal = {**one, **PLAIN, "numba_seed": seed}
    colored = Drawer(published(**fractal, color_seed=seed + 1)).draw(0)[0]
    assert digest(colored) == row["color_sha256"]
    binary = Drawer(published({"channels": 1}, **fractal, shading="binary")).draw(0)[0]
    assert set(np.unique(binary)) == {0, 255} and digest(binary[:, :, 0] > 0) == row["binary_sha256"]


@pytest.mark.parametrize("row", ROWS)
def test_scenes_of_the_program_come_out_of_the_drawer(row: dict[str, Any]) -> None:
    """Category k of a seed is the program's first system of ``default_rng(seed + k)``."""
    seed = row["seed"]
    seeds = {"generator_seed": seed + 8, "numba_seed": seed + 9, "host_seed": seed + 10, "decay_seed": seed + 11}
    settings = published(categories=4, seed=1000 * seed, images=1, cache=8, warm_up=3, **seeds)
    scene = Drawer(settings).draw_scenes([0])[0]
    assert digest(scene.image) == row["multi_sha256"]
    assert scene.categories.tolist() == row["multi_labels"]


@pytest.mark.parametrize("row", ROWS)
def test_categories_and_backgrounds_are_those_of_the_program(row: dict[str, Any]) -> None:
    """Categories to 4e-16: their sines come from the C library."""
    seed = row["seed"]
    found = np.asarray(published(categories=1, seed=seed).build().category(0), np.float64)
    np.testing.assert_allclose(found, system_of(row), rtol=0, atol=4e-16)
    background = {"name": "diamond-square", "random": "published", "numba_seed": seed + 2, "decay_seed": seed + 3}
    canvas = {"size": SIZE, "padding": 0}
    image = Drawer({"generator": background, "instances": 1, "canvas": canvas}).draw(0)[0]
    assert digest(image) == row["background_sha256"]


def test_the_digests_are_those_of_the_files(shared_data: Path) -> None:
    folder = shared_data / "published-generators" / "multi_fractal_scenes" / "images"
    for row in PUBLISHED["rows"]:
        for kind in ("binary", "color", "background", "single", "multi"):
            file = Image.open(folder / f"{kind}_{row['seed']}.png")
            drawn = np.asarray(file.convert("L")) > 0 if kind == "binary" else np.asarray(file)
            assert digest(drawn) == row[f"{kind}_sha256"], kind


# Later images of the program: no golden has them, so the program's loop is written down here in its plainest form.


def program_of_instances(settings: Recipe, system: NDArray[np.float64], count: int) -> NDArray[np.uint8]:
    params: Any = settings.build().params
    random, compiled = np.random.default_rng(params.generator_seed), np.random.RandomState(params.numba_seed)
    host, out = np.random.RandomState(params.host_seed), np.zeros((count, *settings.canvas.shape), np.uint8)
    for image in out:
        chosen = choices.choose_instance(random, params, system)
        draws = compiled.random_sample(params.points)
        counts = drawing.published_counts(chosen.system, draws, chosen.window, len(image))
        pattern = host.randint(0, 2, 9, dtype=bool).astype(np.uint8).reshape(3, 3)
        fractal = drawing.Fractal(drawing.spread_counts(counts, pattern, chosen.flips), compiled.random_sample(3))
        drawing.draw_background(background_of(compiled, params, len(image)), image)
        drawing.draw_fractal(fractal, False, image, np.zeros(image.shape[:2], np.uint8))
        if chosen.sigma:
            pixels.blur(image, chosen.sigma)
    return out


def background_of(compiled: np.random.RandomState, params: Any, size: int) -> drawing.Background:
    field = compiled.random_sample(diamond_square.side_of_field(size) ** 2)
    decay = np.random.default_rng(params.decay_seed).uniform(0.4, 0.8)
    return drawing.Background(field, compiled.random_sample(6), decay)


def program_of_scenes(
    settings: Recipe, categories: list[Category], count: int
) -> list[tuple[NDArray[np.uint8], list[int]]]:
    params: Any = settings.build().params
    random, compiled = np.random.default_rng(params.generator_seed), np.random.RandomState(params.numba_seed)
    host, size, added = np.random.RandomState(params.host_seed), settings.canvas.size, 0
    cache: list[Any] = []
    found = []
    for step in range(params.warm_up + count):
        if step < params.warm_up or (step - params.warm_up) % params.period == 0:
            label = added % len(categories)
            draws = compiled.random_sample(params.points)
            counts = drawing.published_counts(categories[label].parameters, draws, drawing.WHOLE, size // 2).copy()
            pattern = host.randint(0, 2, 9, dtype=bool).astype(np.uint8).reshape(3, 3)
            entry = (label, counts, pattern, background_of(compiled, params, size))
            if len(cache) < params.cache:
                cache.append(entry)
            else:
                cache[added % params.cache] = entry
            added += 1
        if step < params.warm_up:
            continue
        image, object_map = np.zeros(settings.canvas.shape, np.uint8), np.zeros((size, size), np.uint16)
        chosen = choices.choose_scene(random, params, size, len(cache), len(cache))
        drawing.draw_background(cache[chosen.background][3], image)
        for number, each in enumerate(chosen.objects, 1):
            label, counts, pattern, _ = cache[each.fractal]
            fractal = drawing.Fractal(drawing.spread_counts(counts, pattern, each.flips), compiled.random_sample(3))
            placed = drawing.SceneObject(label, fractal, each.side, each.row, each.column)
            drawing.draw_object(placed, number, False, image, object_map)
        if chosen.sigma:
            pixels.blur(image, chosen.sigma)
        found.append((image, [cache[each.fractal][0] for each in chosen.objects]))
    return found


@pytest.mark.parametrize("jitter", ["default", "fractaldb-2"])
def test_later_instances_go_on_in_the_streams_of_their_category(jitter: str) -> None:
    settings = published({"size": 32}, points=1000, jitter=jitter, generator_seed=7, numba_seed=8, host_seed=9)
    drawer = Drawer(settings)
    # Every category has seeds of its own, higher by its number.
    for category in (0, 2):
        seeds = {f"{name}_seed": first + category for name, first in (("generator", 7), ("numba", 8), ("host", 9))}
        alone = published({"size": 32}, points=1000, jitter=jitter, **seeds)
        expected = program_of_instances(alone, drawer.categories[category].parameters, 40)
        for instance in (39, 17, 0, 1):
            assert np.array_equal(drawer.draw(40 * category + instance)[0], expected[instance])


@pytest.mark.parametrize(
    "settings",
    [
        {"cache": 3, "period": 2, "warm_up": 0},
        {"cache": 2, "period": 1, "warm_up": 5},
        {"cache": 8, "period": 3, "warm_up": 2, "objects_min": 2, "objects_max": 9, "size_min": 0.4, "size_max": 1},
    ],
)
def test_later_scenes_go_on_in_the_streams_and_share_a_cache(settings: dict[str, int]) -> None:
    scenes = published({"size": 32}, points=1000, categories=4, images=40, numba_seed=3, host_seed=4, **settings)
    drawer = Drawer(scenes)
    expected = program_of_scenes(scenes, drawer.categories, 40)
    for number in (39, 0, 1, 18, 33):
        scene = drawer.draw_scenes([number])[0]
        assert np.array_equal(scene.image, expected[number][0])
        assert scene.categories.tolist() == expected[number][1]


@pytest.mark.parametrize("random", ["independent", "published"])
@pytest.mark.slow
def test_other_processes_get_a_drawer_that_has_drawn(random: str) -> None:
    drawer = Drawer(recipe({"size": 32}, images=9, random=random))
    expected = drawer.draw_scenes([5])[0].image
    drawer.generator.render(drawer.categories[1], 3)
    assert np.array_equal(pickle.loads(pickle.dumps(drawer)).draw_scenes([5])[0].image, expected)


def test_colors_of_a_seed_of_their_own_go_on_from_image_to_image() -> None:
    settings = published({"size": 32}, points=1000, categories=1, color_seed=5, **PLAIN)
    compiled, colors = np.random.RandomState(0), np.random.RandomState(5)
    drawer = Drawer(settings)
    for instance in range(3):
        draws = compiled.random_sample(1000)
        counts = drawing.published_counts(drawer.categories[0].parameters, draws, drawing.WHOLE, 32)[1:-1, 1:-1]
        image = np.zeros((32, 32, 3), np.uint8)
        fractal = drawing.Fractal(np.ascontiguousarray(counts), colors.random_sample(3))
        drawing.draw_fractal(fractal, False, image, np.zeros((32, 32), np.uint8))
        assert np.array_equal(drawer.draw(instance)[0], image)


# In these systems the centre of the bounding box, less half of its extent, is not its least value to the last bit.
@pytest.mark.parametrize("seed", [68, 101, 382])
def test_a_fractal_without_a_window_lies_in_its_bounding_box_to_the_last_bit(seed: int) -> None:
    count, size = 100_000, 112
    drawer = Drawer(published({"size": size}, points=count, categories=1, seed=seed, numba_seed=seed, **PLAIN))
    system, draws = drawer.categories[0].parameters, np.random.RandomState(seed).random_sample(count)
    x, y = np.empty((2, count + 1))
    orbits.published_points(np.array(system), draws, x, y)
    rows, columns = (((v - v.min()) * ((size - 1) / (v.max() - v.min()))).astype(int) for v in (x[1:], y[1:]))
    expected = np.zeros((size, size), int)
    np.add.at(expected, (rows, columns), 1)
    assert np.array_equal(drawing.published_counts(system, draws, drawing.WHOLE, size)[1:-1, 1:-1], expected)
    assert np.array_equal(drawer.draw(0)[0].any(axis=2), expected > 0)


# Systems -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_factor", [None, 0.5, 4.0, 5.75])
def test_no_map_of_a_sampled_system_expands_and_singular_values_have_their_sum(sigma_factor: float | None) -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        system = systems.sampled_system(random, 2, 8, sigma_factor)
        count = len(system)
        values = np.linalg.svd(system[:, :4].reshape(count, 2, 2), compute_uv=False)
        assert 2 <= count <= 8 and values.max() <= 1 + 1e-12 and system[:, 6].sum() == pytest.approx(1)
        total = values[:, 0].sum() + 2 * values[:, 1].sum()
        if sigma_factor is None:
            assert (5 + count) / 2 <= total <= (6 + count) / 2
        else:
            assert total == pytest.approx(sigma_factor)


def test_whether_a_map_expands_is_what_its_singular_values_say() -> None:
    random = np.random.default_rng(4)
    maps = random.uniform(-1.2, 1.2, (3000, 6))
    expected = np.linalg.svd(maps[:, :4].reshape(-1, 2, 2), compute_uv=False).max(axis=1) > 1
    assert [systems._expands(each[None]) for each in maps] == expected.tolist()
    assert 100 < expected.sum() < 2900


def test_jitter_changes_one_map_or_one_number_of_each_map() -> None:
    system = systems.sampled_system(np.random.default_rng(1), 3, 3, 3.0)
    for seed in range(50):
        changed = systems.jittered(np.random.default_rng(seed), system, "default")
        ratios = changed[:, :6] / system[:, :6]
        (row,) = np.flatnonzero((ratios != 1).any(axis=1))
        assert 0.8 <= ratios[row, 0] <= 1.1 and np.allclose(ratios[row], ratios[row, 0])
        changed = systems.jittered(np.random.default_rng(seed), system, "fractaldb-1")
        ratios = np.round(changed[:, :6] / system[:, :6], 9)
        assert ((ratios != 1).sum(axis=1) <= 1).all()
        assert len(set(ratios[ratios != 1])) <= 1 and set(ratios.ravel()) <= {0.8, 0.9, 1.0, 1.1, 1.2}
    assert systems.jittered(np.random.default_rng(0), system, "none") is system


def test_a_system_stays_where_four_jitters_expand() -> None:
    edge = with_probabilities(np.array([[1.5, 0, 0, 1, 0, 0], [1.5, 0, 0, 0.1, 1, 0]]))
    assert systems.jittered(np.random.default_rng(0), edge, "default") is edge


@pytest.mark.parametrize("jitter", ["default", "fractaldb-4"])
def test_a_system_stays_where_the_changed_determinants_are_all_0(jitter: systems.Jitter) -> None:
    smallest = np.nextafter(0, 1)
    barely = np.array([[smallest, 0, 0, 0.55, 0, 0, 0.25], [0.5, 0, 0, 0, 0, 0.5, 0.75]])
    kept = [systems.jittered(np.random.default_rng(seed), barely, jitter) is barely for seed in range(50)]
    assert 0 < sum(kept) < 50
    flat = np.array([[0.5, 0, 0, 0, 0, 0, 0.25], [0, 0, 0, 0.5, 0, 0.5, 0.75]])
    assert systems.jittered(np.random.default_rng(0), flat, jitter) is flat


# OpenCV --------------------------------------------------------------------------------------------------------------

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize(
    ("width", "step"), [(256, 15), (112, 45), *(pytest.param(width, 1, marks=pytest.mark.slow) for width in (256, 31))]
)
def test_colors_are_those_of_opencv(width: int, step: int) -> None:
    from formulavision.rendering.color import hsv_to_rgb

    count = 256 * 256 // width
    saturations, values = np.indices((256, 256), np.uint8).reshape(2, -1)[:, : count * width].reshape(2, count, width)
    found = np.empty((count, width, 3), np.uint8)
    for hue in range(0, 256, step):
        same = np.full(width, hue, np.uint8)
        for row in range(count):
            hsv_to_rgb(same, saturations[row], values[row], width - width % 32, found[row])
        expected = cv2.cvtColor(
            np.stack([np.full((count, width), hue, np.uint8), saturations, values], axis=2), cv2.COLOR_HSV2RGB
        )
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [56, 64, 112, 224])
def test_images_of_any_width_have_the_colors_of_opencv(size: int) -> None:
    random = np.random.default_rng(size)
    field, ground = random.uniform(-0.1, 1.2, (size + 1, size + 1)), choices.ground_of(random.random(6))
    image = np.empty((size, size, 3), np.uint8)
    pixels.color_field(field, ground, image)
    hsv = field[:size, :size, None] * ground[:, 0] + ground[:, 1]
    hsv[..., 1:] = np.minimum(hsv[..., 1:], 255)
    assert np.array_equal(image, cv2.cvtColor((hsv.astype(int) % 256).astype(np.uint8), cv2.COLOR_HSV2RGB))


@pytest.mark.parametrize("size", [4, 5, 56, 64, 113])
def test_enlarged_and_blurred_images_are_those_of_opencv(size: int) -> None:
    random = np.random.default_rng(size)
    image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    for side in (1, 2, size // 2, size - 1, size, size + 1, 2 * size, 135):
        out = np.empty((side, side, 3), np.uint8)
        pixels.enlarge(image, out)
        assert np.array_equal(out, cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)), side
    for sigma in random.uniform(0.1, 3, 10):
        blurred = image.copy()
        pixels.blur(blurred, sigma)
        assert np.array_equal(blurred, cv2.GaussianBlur(image, (3, 3), sigma))


# Counter-based images ------------------------------------------------------------------------------------------------


def test_an_instance_is_the_same_alone_and_in_a_batch() -> None:
    together = images(25, 0, 13, 1)
    assert np.array_equal(together, np.concatenate([images(index) for index in (25, 0, 13, 1)]))
    assert len({image.tobytes() for image in together}) == 4


def test_no_two_instances_or_scenes_are_alike_also_far_away() -> None:
    drawer, far = Drawer(recipe(**PLAIN)), [0, 1, 2**32, 2**33, 2**33 + 1]
    found = [drawer.generator.render(drawer.categories[1], instance)[0].tobytes() for instance in far]
    assert len(set(found)) == 5
    scenes = Drawer(recipe(images=5)).draw_scenes(far)
    assert len({image.tobytes() for image in scenes.images}) == 5


def test_a_mask_is_where_the_fractal_is() -> None:
    plain = {**PLAIN, "flips": True, "patch": True}
    alone, behind = Drawer(recipe(**plain)), Drawer(recipe(**{**plain, "background": True}))
    for drawer in (alone, behind):
        image, mask = drawer.generator.render(drawer.categories[0], 3)
        assert 0 < mask.mean() < 1 and set(np.unique(mask)) == {0, 1}
        assert np.array_equal(mask > 0, image.any(axis=2)) is (drawer is alone)
    first, second = (each.generator.render(each.categories[0], 3) for each in (alone, behind))
    assert np.array_equal(first[1], second[1])
    assert np.array_equal(first[0][first[1] > 0], second[0][first[1] > 0])


def test_hues_follow_from_the_density_and_wrap_around() -> None:
    counts = np.arange(1600, dtype=np.int32).reshape(40, 40)
    image, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    pixels.paint(counts, False, np.array([255, 201], np.uint8), 200.0, image, mask)
    hues = (counts / 1599 * 255 + 200).astype(int) % 256
    hsv = np.stack([hues, np.full((40, 40), 255), np.full((40, 40), 201)], axis=2).astype(np.uint8)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    expected[0, 0] = 0
    assert np.array_equal(image, expected) and mask.sum() == 1599


def test_gray_images_have_the_density_and_are_nowhere_black() -> None:
    gray, color = (Drawer(recipe({"channels": channels}, **PLAIN)) for channels in (1, 3))
    image, mask = gray.generator.render(gray.categories[1], 5)
    assert image.max() == 255 and np.array_equal(image[:, :, 0] > 0, mask > 0)
    assert np.array_equal(mask, color.generator.render(color.categories[1], 5)[1])


def test_scenes_have_objects_of_their_categories() -> None:
    drawer = Drawer(recipe(images=60, blur=0, background=False, objects_min=2, objects_max=3))
    batch = drawer.draw_scenes(range(60))
    counts = {len(labels) for labels in batch.categories}
    assert counts == {2, 3} and set(np.concatenate(batch.categories)) == {0, 1, 2}
    for image, object_map in zip(batch.images, batch.object_maps, strict=True):
        assert np.array_equal(object_map > 0, image.any(axis=2))


def test_objects_of_independent_scenes_are_as_dense_as_half_the_canvas() -> None:
    source = source_of(recipe({"size": 128}, images=9, points=50_000, patch=False, size_min=0.1, size_max=1, blur=0))
    categories = Drawer(recipe()).categories
    for number in range(20):
        for drawn in source.scene(categories, number)[0]:
            expected = 50_000 * min(1, (2 * drawn.side / 128) ** 2)
            assert drawn.fractal.counts.sum() == pytest.approx(expected, abs=1)


def test_fractals_and_backgrounds_take_part_in_composed_scenes() -> None:
    composed = Recipe.from_dict(
        {
            "generator": {"name": "colored-ifs", "points": 2000},
            "categories": 3,
            "scene": {"objects": 3, "background": "diamond-square"},
            "images": 5,
            "canvas": {"size": 64},
        }
    )
    assert composed.canvas.channels == 3
    scene = Drawer(composed).draw_scenes([2])[0]
    assert len(np.unique(scene.image[scene.object_map == 0], axis=0)) > 20 and set(scene.categories) <= {0, 1, 2}


def test_backgrounds_vary_smoothly() -> None:
    settings = {"generator": "diamond-square", "instances": 3, "canvas": {"size": 100, "padding": 0, "channels": 1}}
    for image in Drawer(settings).draw_batch([0, 1, 2])[0][..., 0].astype(int):
        steps = np.abs(np.diff(image, axis=0))
        assert np.median(steps) < 12 and np.ptp(image) > 20


@pytest.mark.parametrize("side", [3, 5, 65])
def test_a_field_without_amplitude_interpolates_its_corners(side: int) -> None:
    draws = np.full(side * side, 0.25, np.float32)
    draws[0] = 0.75
    field = np.full((side, side), np.nan, np.float32)
    diamond_square.diamond_square(draws, np.zeros(side.bit_length() - 1, np.float32), field)
    assert np.isfinite(field).all() and field.min() == 0.25 and field.max() == field[0, 0] == 0.75


def test_systems_that_diverge_leave_the_background(tmp_path: Path) -> None:
    system = np.array([[9.0, 0, 0, 9, 1, 1, 0.5], [9.0, 0, 0, 9, 2, -1, 0.5]])
    write_folder([Category(0, "00000", system)], tmp_path / "categories")
    folder = {"folder": str(tmp_path / "categories")}
    for random in ("independent", "published"):
        drawer = Drawer(recipe(categories=folder, random=random))
        image, mask = drawer.generator.render(drawer.categories[0], 0)
        assert not mask.any() and image.any()


@pytest.mark.parametrize("random", ["independent", "published"])
def test_systems_without_determinants_are_drawn_without_jitter_only(random: str, tmp_path: Path) -> None:
    rows = [[0.5, 0, 0, 0, x, y] for x in (0, 0.5) for y in (0, 0.5)]
    flat = np.column_stack([rows, np.full(4, 0.25)])
    write_folder([Category(0, "00000", flat)], tmp_path / "categories")
    folder = {"folder": str(tmp_path / "categories")}
    for jitter in ("default", "fractaldb-1"):
        with pytest.raises(ConfigError, match="the parameters have determinants a d - b c of 0 only"):
            recipe(categories=folder, random=random, jitter=jitter)
    drawer = Drawer(recipe(categories=folder, random=random, **PLAIN))
    assert drawer.generator.render(drawer.categories[0], 0)[1].sum() > 16
    flat[0, 3] = 0.5  # one determinant is enough
    write_folder([Category(0, "00000", flat)], tmp_path / "categories", overwrite=True)
    Drawer(recipe(categories=folder, random=random)).draw(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"numba_seed": 3}, "numba_seed: has an effect with random: published only"),
        ({"color_seed": 0}, "color_seed: has an effect with random: published only"),
        ({"warm_up": 3}, "warm_up: has an effect with random: published only"),
        ({"maps_min": 5}, "maps_min: 5 is not allowed: must not be above maps_max 4"),
        ({"objects_min": 6}, "objects_min: 6 is not allowed: must not be above objects_max 5"),
        ({"size_min": 0.7}, "size_min: 0.7 is not allowed: must not be above size_max 0.6"),
        ({"blur_sigma_max": 0.4}, "blur_sigma_min: 0.5 is not allowed: must not be above blur_sigma_max 0.4"),
        ({"sigma_factor": 6}, "sigma_factor"),
        ({"jitter": "sval"}, "jitter"),
        ({"random": "published", "published_instances": 39}, "39"),
        ({"random": "published", "published_images": 39, "images": 40}, "has 39 scenes here"),
        ({"published_images": 39}, "published_images: has an effect with random: published only"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (np.full((1, 7), 2.0), "must be probabilities"),
        (np.array([[1e7, *[0.0] * 5, 1.0]]), "from -1,000,000 to 1,000,000"),
        (np.full((255, 7), 1 / 255), "255 transformations"),
    ],
)
def test_parameters_of_no_category_are_refused(system: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe().build().check_category(system)


def test_published_backgrounds_are_a_thousand() -> None:
    background = {"name": "diamond-square", "random": "published"}
    canvas = {"size": 16, "padding": 0}
    drawer = Drawer({"generator": background, "instances": 1000, "canvas": canvas})
    found = [drawer.draw(index)[0].tobytes() for index in (0, 1, 2, 999)]
    assert all(a != b for a, b in pairwise(found))
    with pytest.raises(ConfigError, match="1000"):
        Recipe.from_dict({"generator": background, "instances": 1001, "canvas": canvas})
