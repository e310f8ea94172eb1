"""The generator ``segrcdb``: the published scenes and masks to the pixel, and the counter-based scenes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.contours import SegRcdb, published, shapes
from formulavision_plugins.contours.independent import frames
from PIL import Image
from published_contours import GOLDENS, digest

from formulavision import ConfigError, Drawer, Recipe, find_categories, plugins

RUNS = {run["run"]: run for run in GOLDENS["segrcdb"]}


def recipe(canvas: Any = None, **settings: Any) -> Recipe:
    names = [name for name in ("categories", "images", "scene", "instances") if name in settings]
    own = {name: settings.pop(name) for name in names}
    return Recipe.from_dict(
        {
            "generator": {"name": "segrcdb", **settings},
            "canvas": {"size": 128, "padding": 0, **(canvas or {})},
            "scene": "own",
            **own,
        }
    )


def published_recipe(name: str, **settings: Any) -> Recipe:
    given = RUNS[name]["settings"]
    size = given.get("image_size", 512)
    return recipe({"size": size}, random="published", **{**given, **settings}, images=given["published_images"])


def scenes(*numbers: int, canvas: Any = None, **settings: Any) -> Any:
    return Drawer(recipe(canvas, **settings)).draw_scenes(np.array(numbers))


# The published set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(RUNS))
def test_images_and_masks_are_the_published_ones(name: str) -> None:
    drawer = Drawer(published_recipe(name))
    for golden in RUNS[name]["images"]:
        image, mask = drawer.draw(golden["number"])
        assert digest(image) == golden["image"]
        assert isinstance(mask, np.ndarray) and mask.dtype == np.uint8
        assert digest(mask) == golden["mask"]


def test_the_digests_are_those_of_the_files(shared_data: Path) -> None:
    folder = shared_data / "published-generators" / "segrcdb"
    images = [image for run in RUNS.values() for image in run["images"]]
    kinds = [(image, kind) for image in images for kind in ("image", "mask") if f"{kind}_png" in image]
    files = [(image[kind], image[f"{kind}_png"]) for image, kind in kinds]
    assert len(files) == 18
    for expected, name in files:
        pixels = np.asarray(Image.open(folder / name))
        assert digest(pixels[:, :, None] if "/image/" in name else pixels) == expected


@pytest.mark.parametrize("name", list(RUNS))
def test_random_states_are_those_of_the_program(name: str) -> None:
    generator = published_recipe(name).build()
    assert isinstance(generator, SegRcdb)
    for golden in RUNS[name]["images"]:
        streams, number = generator.streams, golden["number"]
        state = streams.checkpoint(number)["state"].copy()
        sizes = np.ascontiguousarray(generator._published[:, :2].astype(np.int64).T)
        none = np.empty(0, np.int64), np.empty((0, 625), np.uint32)
        scenes_to_walk = number - int(streams.checkpoint(number)["image"]) + 1
        published.advance_scenes(
            state, generator.params.ranges(), *sizes, generator.params.objects, scenes_to_walk, *none
        )
        assert (int(state[624]), digest(state[:624])) == (golden["position"], golden["words"])


@pytest.mark.parametrize(
    ("table", "run"), [("published", "M1_thread_0"), ("other_settings", "other_settings_thread_1")]
)
def test_parameter_files_of_the_categories_are_the_published_ones(table: str, run: str, tmp_path: Path) -> None:
    """All files, as the program writes them, have the published digest; read again, they give the published scenes."""
    categories = find_categories(published_recipe(run))
    text = ""
    for number, category in enumerate(categories, 1):
        vertices, lines, perlin, width, radius, oval_x, oval_y = category.parameters[0].tolist()
        rows = {"Category_num": number, "Vertex": int(vertices), "Perlin_noise": perlin, "line_width": width,
                "Center_rad": int(radius), "Line_num": int(lines), "Oval_rate_x": oval_x, "Oval_rate_y": oval_y,
                "Color_Gray": number}  # fmt: skip
        written = "".join(f"{name},{value!r}\r\n" for name, value in rows.items())
        (tmp_path / f"{number:05d}.csv").write_bytes(written.encode())
        text += written
    expected = {Path(each["table"]).stem: each["sha256"] for each in GOLDENS["segrcdb_parameters"]}
    assert hashlib.sha256(text.encode()).hexdigest() == expected[table]
    given = published_recipe(run).to_dict()
    golden = RUNS[run]["images"][0]
    image, mask = Drawer(Recipe.from_dict({**given, "categories": {"folder": str(tmp_path)}})).draw(golden["number"])
    assert isinstance(mask, np.ndarray) and [digest(image), digest(mask)] == [golden["image"], golden["mask"]]


def test_the_programs_own_files_are_read(shared_data: Path) -> None:
    """Three of them: categories of counter-based scenes, and not enough for the published ones."""
    folder = {"folder": str(shared_data / "published-generators" / "segrcdb" / "param" / "as_written")}
    drawer = Drawer(recipe(categories=folder, images=2))
    published_ones = find_categories(published_recipe("M1_thread_0"))
    for category in drawer.categories:
        assert np.array_equal(category.parameters, published_ones[int(category.name) - 1].parameters)
    assert drawer.draw(1)[0].any()
    with pytest.raises(ConfigError, match="3 is not allowed: scenes of 'segrcdb' have objects of all 254"):
        recipe(categories=folder, random="published")


def test_published_scenes_do_not_depend_on_order_or_batch() -> None:
    drawer = Drawer(published_recipe("M1_thread_0"))
    together, backwards = (drawer.draw_scenes(np.array(numbers)) for numbers in (range(4), range(3, -1, -1)))
    assert np.array_equal(together.images, backwards.images[::-1])
    assert np.array_equal(together.object_maps, backwards.object_maps[::-1])


def test_a_mask_m2_sets_what_lay_below_to_background() -> None:
    lines, ring, filled = (
        Drawer(published_recipe("M2_thread_0", mask=mask)).draw_scenes(np.array([0])) for mask in ("M1", "M2", "M3")
    )
    assert np.array_equal(lines.images, ring.images) and np.array_equal(lines.images, filled.images)
    assert ((ring.object_maps == 0) & (filled.object_maps > 0)).any()
    assert ((ring.object_maps == 0) & (lines.object_maps > 0)).any()


def test_the_published_classes_are_254_and_the_scenes_finite() -> None:
    whole = recipe(random="published", images=20_000)
    assert (whole.num_categories, len(whole)) == (254, 20_000)
    with pytest.raises(ConfigError, match="images: 20001 is not allowed: 'segrcdb' has 20000 scenes here"):
        recipe(random="published", images=20_001)
    with pytest.raises(ConfigError, match="categories: 10 is not allowed: scenes of 'segrcdb' have objects of all 254"):
        recipe(random="published", categories=10)


def test_processes_draw_as_many_scenes_each_and_leave_the_rest_over() -> None:
    """83 scenes of 40 processes are 80; the categories are everybody's."""
    drawer = Drawer(published_recipe("M1_thread_5", published_images=83))
    assert len(recipe(random="published", published_images=83)) == 80
    golden = RUNS["M1_thread_5"]["images"][0]
    assert digest(drawer.draw(golden["number"])[0]) == golden["image"]
    with pytest.raises(ConfigError, match="images: 81 is not allowed: 'segrcdb' has 80 scenes here"):
        recipe(random="published", published_images=83, images=81)


def test_published_scenes_refuse_categories_from_files_that_are_others(tmp_path: Path) -> None:
    from formulavision.recipes.category_files import write_folder

    settings = {"random": "published", "published_categories": 3, "published_images": 40}
    write_folder(find_categories(recipe(categories=3)), tmp_path / "others")
    with pytest.raises(ConfigError, match="00000 is not category 0 of the published set"):
        Drawer(recipe(categories={"folder": str(tmp_path / "others")}, **settings))
    write_folder(find_categories(recipe(**{**settings, "published_categories": 4})), tmp_path / "more")
    with pytest.raises(ConfigError, match="00003 is not category 3 of the published set"):
        Drawer(recipe(categories={"folder": str(tmp_path / "more")}, **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"published_images": 118_000}, "published_images: has an effect with random: published only"),
        ({"random": "published", "published_images": 39}, "39 is not allowed: must not be below threads 40"),
        ({"mask": "M4"}, "mask"),
        ({"objects": 0}, "objects"),
        ({"objects": 65_536}, "objects"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


# Counter-based scenes ------------------------------------------------------------------------------------------------


def test_a_scene_is_the_same_alone_and_in_a_batch() -> None:
    together, alone = scenes(0, 1, 7), [scenes(number) for number in (0, 1, 7)]
    for number, each in enumerate(alone):
        assert np.array_equal(each.images[0], together.images[number])
        assert np.array_equal(each.object_maps[0], together.object_maps[number])
        assert np.array_equal(each.categories[0], together.categories[number])


def test_no_two_scenes_are_alike_also_far_away() -> None:
    drawn = scenes(0, 1, 2**32, 2**32 + 1, 2**40)
    assert len({image.tobytes() for image in drawn.images}) == 5


def test_a_scene_has_objects_of_all_categories_in_the_end() -> None:
    drawn = scenes(*range(12), categories=9, objects=20)
    assert set(np.concatenate(drawn.categories).tolist()) == set(range(9))
    assert {len(labels) for labels in drawn.categories} == {20}


def test_m1_marks_the_lines_of_the_image() -> None:
    """Except lines of gray 0, of 256 levels."""
    drawn = scenes(*range(4))
    lit, marked = drawn.images[:, :, :, 0] > 0, drawn.object_maps > 0
    assert not (lit & ~marked).any()
    assert lit.sum() > 0.98 * marked.sum()


@pytest.mark.parametrize("mask", ["M1", "M3"])
def test_the_last_object_owns_a_pixel(mask: str) -> None:
    """Each object drawn alone, by the functions of single contours, and laid over those before it."""
    generator = recipe(mask=mask).build()
    assert isinstance(generator, SegRcdb)
    categories, params = find_categories(recipe(mask=mask)), generator.params
    random = generator.stream(-1, 3, 1)
    uniform = random.random((params.objects, 3))
    labels = (254 * uniform[:, 0]).astype(int)
    expected, odd = np.zeros((2, 128, 128), np.uint8)
    for k, label in enumerate(labels.tolist()):
        contour = categories[label].parameters
        vertices, lines = contour[0, :2].astype(int).tolist()
        frame = frames(params, 128, contour, contour[:, 4:], uniform[k : k + 1, 1:])[0]
        polygons, alone = np.empty((lines, 2, vertices), np.int32), np.zeros((128, 128), np.uint8)
        directions = shapes.angles(vertices).astype(np.float32)
        shapes.independent_polygons(directions, frame, (3, k, 0), shapes.kernel_key(1, b"scen"), polygons)
        shapes.mark_object(alone, polygons, shapes.AREAS[mask], 1, odd)
        expected[alone > 0] = k + 1
    scene = generator.scene(categories, 3)
    assert np.array_equal(scene.object_map, expected)
    assert np.array_equal(scene.categories, labels)


def test_masks_change_the_map_and_not_the_image() -> None:
    lines, ring, filled = (scenes(0, 1, mask=mask) for mask in ("M1", "M2", "M3"))
    assert np.array_equal(lines.images, ring.images) and np.array_equal(lines.images, filled.images)
    shares = [(drawn.object_maps > 0).mean() for drawn in (lines, ring, filled)]
    assert shares[0] < shares[2] and shares[1] < shares[2]


def test_counter_based_scenes_are_like_the_published_ones() -> None:
    """Mean gray level and share of marked pixels over scenes of all 254 categories, which the seed draws anew."""
    ours = scenes(*range(24), canvas={"size": 256})
    theirs = scenes(*range(24), canvas={"size": 256}, random="published", published_images=40, images=40)
    for values in ("images", "object_maps"):
        shares = [(getattr(drawn, values) > 0).reshape(24, -1).mean(axis=1) for drawn in (ours, theirs)]
        assert abs(shares[0].mean() - shares[1].mean()) < 0.08, (shares[0].mean(), shares[1].mean())


def test_a_generator_that_draws_its_scenes_on_a_gpu_says_so() -> None:
    assert plugins()["segrcdb"].draws_on_devices


def test_a_canvas_of_three_channels_has_the_same_gray_in_all() -> None:
    gray, color = scenes(2), scenes(2, canvas={"channels": 3})
    assert np.array_equal(color.images, np.repeat(gray.images, 3, axis=3))
    assert np.array_equal(color.object_maps, gray.object_maps)


@pytest.mark.parametrize("random", ["independent", "published"])
@pytest.mark.parametrize("mask", ["M1", "M2", "M3"])
def test_single_contours_are_drawn_without_a_scene(mask: str, random: str) -> None:
    drawer = Drawer(recipe(mask=mask, random=random, categories=5, instances=4, scene=None, start_pos=100))
    generator = drawer.generator
    for category in drawer.categories:
        out, masks = np.zeros((4, 128, 128, 1), np.uint8), np.zeros((4, 128, 128), np.uint8)
        generator.render_batch(category, np.arange(4), out, masks)  # type: ignore[call-arg]
        assert masks.any() and set(np.unique(masks)) <= {0, 1}
        for instance in range(4):
            image, mask_alone = generator.render(category, instance)
            assert np.array_equal(image, out[instance]) and np.array_equal(mask_alone, masks[instance])
    images = drawer.draw_batch(range(20))[0]
    assert len({image.tobytes() for image in images}) == 20


def test_single_contours_with_m1_are_where_lines_are() -> None:
    drawer = Drawer(recipe(categories=3, instances=2, scene=None))
    for category in drawer.categories:
        image, mask = drawer.generator.render(category, 1)
        assert not ((image[:, :, 0] > 0) & (mask == 0)).any()


# A digest that changes is a pixel that changed: raise the generator's version with it.
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "74be4ce4e2e378ad"),
        ({"mask": "M2", "objects": 7}, "b865326bf4ea2c46"),
        ({"mask": "M3", "vertices_max": 30, "perlin_max": 8.0}, "ab6f34c10812cadb"),
    ],
)
def test_pixels_are_those_of_version_1(settings: Any, expected: str) -> None:
    drawn = scenes(0, 5, 2**33, **settings)
    parts = (drawn.images, drawn.object_maps, np.concatenate(drawn.categories))
    assert hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16] == expected
