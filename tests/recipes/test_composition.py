"""Scenes of several objects: composed by FormulaVision, or a generator's own; the same in every order and batch."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare

from formulavision import (
    Category,
    ConfigError,
    Drawer,
    Generator,
    Part,
    PluginError,
    Recipe,
    Scene,
    plugins,
    register,
)
from formulavision.recipes import composition
from formulavision.recipes.drawing import DeviceDrawer
from formulavision.recipes.scenes import SIZE_STEPS, ScenePlanner, SceneSettings

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
DATA: dict[str, Any] = {
    "parts": [
        {"generator": {"name": "ifs", "dots": 2000}, "categories": 12},
        {"generator": "bezier", "categories": 5, "share": 0.25},
    ],
    "scene": {"objects": [1, 9], "background": {"generator": "perlin", "categories": 9}, "colors": "random"},
    "images": 50,
    "canvas": {"size": 64},
}


class Blocks(Generator):
    """An image says by its mask where its object is: category c is a block of c + 1 rows, black on black."""

    name = "blocks"
    draws_masks = True

    def category(self, index: int) -> list[int]:
        return [index]

    def render(self, category: Category, instance: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        mask = np.zeros(self.canvas.shape[:2], bool)
        mask[: category.index + 1] = True
        return np.zeros(self.canvas.shape, np.uint8), mask


class OfEvenSizes(Blocks):
    name = "even"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        if self.canvas.size % 2:
            raise ConfigError(f"canvas.size: {self.canvas.size} is not allowed: must be even")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"generator": "even", "scene": {}}, r"^canvas.size: \d+ is not allowed: must be even \(the scene needs it at"),
        (
            {"parts": [{"generator": "bezier"}, {"generator": "even"}], "scene": {}},
            r"^parts.1.canvas.size: \d+ is not allowed",
        ),
        (
            {"generator": "bezier", "scene": {
                "background": {"generator": {"name": "dead-leaves", "random": "published"}}, "colors": "random"}},
            r"^scene.background.canvas.channels: .* \(the scene needs it at \d+ pixels, in gray\)",
        ),
    ],
)  # fmt: skip
def test_a_generator_that_refuses_a_canvas_of_the_scene_is_refused_with_the_recipe(
    data: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(OfEvenSizes)
    with pytest.raises(ConfigError, match=told):
        Recipe.from_dict({**data, "canvas": {"size": 128}})


def test_a_coloured_background_makes_a_coloured_canvas() -> None:
    given = {"generator": "ifs", "categories": 2, "scene": {"background": "diamond-square"}, "images": 2}
    assert Recipe.from_dict(given).canvas.channels == 3
    assert Recipe.from_dict({**given, "canvas": {"channels": 1}}).canvas.channels == 1
    assert Recipe.from_dict({**given, "scene": {"background": "perlin"}}).canvas.channels == 1


def test_threads_do_not_draw_into_each_others_scenes() -> None:
    drawer = Drawer(Recipe.from_dict({**DATA, "images": 60}))
    alone = [drawer.draw_scenes([index]) for index in range(60)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda index: drawer.draw_scenes([index]), range(60)))
    for (one,), (other,) in zip(alone, together, strict=True):
        assert one.image.tobytes() == other.image.tobytes() and one.object_map.tobytes() == other.object_map.tobytes()


class Dots(Generator):
    """Scenes of its own only: object k is pixel k of the first row, and every scene has one object of each category."""

    name = "dots"
    min_visible = 1
    wrong: Any = None

    def category(self, index: int) -> list[int]:
        return [index]

    def scene(self, categories: Sequence[Category], index: int) -> Scene:
        if self.wrong is not None:
            return self.wrong
        object_map = np.zeros(self.canvas.shape[:2], np.uint16)
        object_map[0, : len(categories)] = np.arange(1, len(categories) + 1)
        image = np.repeat(255 * (object_map > 0).astype(np.uint8)[:, :, None], self.canvas.channels, axis=2)
        return Scene(image, object_map, (np.arange(len(categories)) + index) % len(categories))

    def max_scenes(self) -> int | None:
        return 40


@pytest.fixture(autouse=True)
def more_generators() -> Iterator[None]:
    before = dict(plugins().generators)
    for name in ("rings", "coins"):
        file = THIRD_PARTY / name / f"formulavision_{name}.py"
        specification = importlib.util.spec_from_file_location(f"formulavision_{name}", file)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        module.register_generators(register)
    for generator in (Blocks, Dots):
        register(generator)
    yield
    plugins().generators.clear()
    plugins().generators.update(before)


def scenes_of(changes: Sequence[str] = (), **data: Any) -> Drawer:
    return Drawer(Recipe.from_dict({**DATA, **data}, changes))


def one_part(generator: Any, categories: int = 6, **scene: Any) -> dict[str, Any]:
    return {
        "generator": generator, "categories": categories, "scene": scene, "images": 40,
        "canvas": {"size": 64, "padding": 0},
    }  # fmt: skip


# Categories before drawing -------------------------------------------------------------------------------------------


def test_every_generator_knows_all_categories_of_its_part_before_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Generator, Sequence[Category]]] = []
    for name in ("ifs", "bezier", "perlin"):
        monkeypatch.setattr(plugins()[name].generator, "before_drawing", lambda *args: told.append(args))
    drawer = scenes_of()
    composer = drawer.composer
    assert composer is not None
    of_parts = [composer.categories[:12], composer.categories[12:17], composer.categories[17:]]
    single = list(zip(drawer.generators, of_parts, strict=False))
    sizes = [(one, own) for part, own in zip(composer.generators, of_parts, strict=True) for one in part]
    assert told == [*single, *sizes]
    assert [[category.index for category in own] for own in of_parts] == [list(range(n)) for n in (12, 5, 9)]


def test_an_error_before_drawing_names_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "before_drawing", lambda self, categories: categories[99])
    with pytest.raises(PluginError, match=r"'bezier' .* failed in before_drawing\(\): IndexError"):
        scenes_of()


# The pure function ---------------------------------------------------------------------------------------------------


def test_a_scene_is_the_same_alone_in_a_batch_and_in_any_order() -> None:
    drawer = scenes_of()
    together = drawer.draw_scenes(range(20))
    for order in ([7], [19, 3, 3, 0], list(range(12, 5, -1))):
        for scene, number in zip(Drawer(drawer.recipe).draw_scenes(order), order, strict=True):
            for one, other in zip(scene, together[number], strict=True):
                np.testing.assert_array_equal(one, other)


def test_many_objects_are_composed_in_steps_to_the_same_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = scenes_of(["scene.objects=[30, 40]"])
    whole = drawer.draw_scenes([4, 2])
    monkeypatch.setattr(composition, "_CHUNK_BYTES", 5_000)
    assert len(list(drawer.composer.chunks(drawer.composer.planner.plan(np.array([4, 2]))))) > 9  # type: ignore[union-attr]
    steps = drawer.draw_scenes([4, 2])
    np.testing.assert_array_equal(whole.images, steps.images)
    np.testing.assert_array_equal(whole.object_maps, steps.object_maps)


def test_the_pixels_and_the_id_of_scenes_are_known() -> None:
    """Published ids and pixels must stay."""
    drawer = scenes_of()
    batch = drawer.draw_scenes(range(3))
    assert drawer.recipe.id == "a7850501545994a7"
    assert [int(array.astype(np.int64).sum()) for array in (batch.images, batch.object_maps)] == [2564999, 8383]


def test_recipes_that_differ_in_their_target_alone_have_one_id() -> None:
    ids = {Recipe.from_dict(DATA, [f"target={name}"]).id for name in ("labels", "semantic", "objects")}
    assert len(ids) == 1


@pytest.mark.parametrize(
    "change",
    [
        "scene.objects=[1, 8]", "scene.size=[0.2, 0.6]", "scene.rotate=false", "scene.place=inside",
        "scene.colors=own", "scene.min_visible=3", "scene.background=null", "scene.background.categories=8",
        "scene.background.generator={name: perlin, octaves: 2}", "seed=3", "images=51", "canvas.channels=1",
    ],
)  # fmt: skip
def test_whatever_changes_scenes_or_their_targets_changes_the_id(change: str) -> None:
    assert Recipe.from_dict(DATA, [change]).id != Recipe.from_dict(DATA).id


def test_numbers_of_scenes_are_checked() -> None:
    drawer = scenes_of()
    assert len(drawer.draw_scenes([])) == 0
    with pytest.raises(IndexError, match="scene -1: scenes count from 0"):
        drawer.draw_scenes([3, -1])
    own = Drawer({"generator": "dots", "categories": 3, "scene": "own", "images": 20, "canvas": {"size": 16}})
    assert len(own.draw_scenes([39])) == 1
    with pytest.raises(IndexError, match="scene 40: 'dots' has 40 scenes here"):
        own.draw_scenes([3, 40])
    with pytest.raises(ConfigError, match="an index is a scene of several objects, not an instance"):
        drawer.draw_batch([0])
    with pytest.raises(ConfigError, match="scene: the recipe has none"):
        Drawer("bezier").draw_scenes([0])
    assert len(pickle.dumps(drawer)) < 100_000, "without the memory that a drawing took"


def test_scenes_are_written_and_read(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(DATA, ["target=labels"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert recipe.all_parts[0].share == 0.75 and len(recipe) == 50 and recipe.num_categories == 17


# What a scene holds --------------------------------------------------------------------------------------------------


def planner(**data: Any) -> ScenePlanner:
    recipe = Recipe.from_dict({**DATA, **data})
    assert isinstance(recipe.scene, SceneSettings)
    return ScenePlanner(recipe.scene, recipe.all_parts, recipe.canvas, recipe.seed)


def test_numbers_sizes_places_and_shares_are_as_the_recipe_says() -> None:
    planned = planner(scene={"objects": [2, 5], "size": [0.25, 0.5]}).plan(np.arange(4000))
    counts = np.bincount(planned.scenes)
    assert (counts.min(), counts.max()) == (2, 5) and abs(np.mean(counts) - 3.5) < 0.1
    assert abs(np.mean(planned.labels >= 12) - 0.25) < 0.02, "the share of the second part"
    assert np.bincount(planned.labels, minlength=17).min() > 300, "every category"
    assert np.bincount(planned.steps).min() > len(planned) / SIZE_STEPS * 0.9
    assert np.bincount(planned.turns).min() > len(planned) / 8 * 0.9
    sides = np.array([16, 18, 21, 23, 25, 27, 30, 32])[planned.steps]
    centres = planned.places + sides[:, None] // 2
    assert centres.min() == 0 and centres.max() == 63
    assert planned.colors.min() == 255
    np.testing.assert_array_equal(planned.instances, 65_536 * planned.scenes + planned.numbers)


def test_objects_inside_are_whole_and_may_keep_their_orientation() -> None:
    planned = planner(scene={"objects": 3, "size": 0.5, "place": "inside", "rotate": False}).plan(np.arange(500))
    assert planned.places.min() == 0 and planned.places.max() == 32 and set(planned.turns) == {0}


@pytest.mark.parametrize("objects", [1, 2, [1, 9]])
def test_all_instances_of_a_finite_generator_appear_alike(monkeypatch: pytest.MonkeyPatch, objects: Any) -> None:
    parts = [{"generator": "blocks", "categories": 3, "share": 0.5}, {"generator": "bezier"}]
    data = {**DATA, "parts": parts, "scene": {"objects": objects}}
    unlimited = Recipe.from_dict(data).id
    monkeypatch.setattr(Blocks, "max_instances", lambda self: 64)
    assert Recipe.from_dict(data).id != unlimited, "other images have another id"
    plans = planner(parts=parts, scene={"objects": objects})
    planned = plans.plan(np.arange(9000))
    shown, finite = planned.numbers > 0, planned.labels < 3
    counted = 65_536 * planned.scenes + planned.numbers
    np.testing.assert_array_equal(planned.instances[shown & ~finite], counted[shown & ~finite])
    drawn = np.bincount(planned.instances[shown & finite], minlength=64)
    assert len(drawn) == 64 and chisquare(drawn).pvalue > 1e-3
    alone = plans.plan(np.array([4711]))
    np.testing.assert_array_equal(alone.instances, planned.instances[planned.scenes == 4711])


def test_colors_are_factors_of_each_channel() -> None:
    colors = planner().plan(np.arange(500)).colors
    assert colors.shape[1] == 3 and colors.min() == 64 and colors.max() == 255


def test_an_object_is_the_instance_that_its_generator_draws_on_a_small_canvas() -> None:
    drawer = scenes_of(**one_part("bezier", objects=1, size=0.5, place="inside", rotate=False), parts=[])
    scene = drawer.draw_scenes([7])[0]
    (planned,) = [drawer.composer.planner.plan(np.array([7]))]  # type: ignore[union-attr]
    alone = Drawer(Recipe.from_dict({"generator": "bezier", "categories": 6, "canvas": {"size": 32, "padding": 0}}))
    expected = alone.draw_instances(planned.labels, planned.instances)[0, :, :, 0]
    top, left = planned.places[0]
    found = scene.image[top : top + 32, left : left + 32, 0]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scene.object_map[top : top + 32, left : left + 32], expected > 0)
    assert scene.object_map.sum() == np.count_nonzero(expected) and scene.categories.tolist() == planned.labels.tolist()


def test_a_generator_of_version_1_appears_in_scenes() -> None:
    drawer = scenes_of(**one_part("rings", objects=3), parts=[])
    batch = drawer.draw_scenes(range(5))
    assert all(set(np.unique(scene.object_map)) > {0, 3} for scene in batch)


def test_a_mask_says_where_the_object_is_even_where_it_is_black() -> None:
    drawer = scenes_of(
        **one_part("blocks", objects=1, size=0.25, place="inside", rotate=False, min_visible=1), parts=[]
    )
    for scene in drawer.draw_scenes(range(20)):
        rows = int(scene.categories[0]) + 1
        assert np.count_nonzero(scene.object_map) == 16 * rows and not scene.image.any()


def test_the_tutorials_generator_has_an_object_inside_of_its_edge() -> None:
    scene = scenes_of(**one_part("coins", objects=1, size=0.8, place="inside"), parts=[]).draw_scenes([4])[0]
    rows, columns = np.nonzero(scene.object_map)
    assert scene.object_map[int(rows.mean()), int(columns.mean())] == 1
    ring = scene.object_map[scene.image[:, :, 0] == 0] == 0
    assert ring.any() and scene.image[scene.object_map == 1].max() == 255


def test_a_generator_that_fills_its_canvas_is_an_object_as_a_square() -> None:
    data = {"parts": [{"generator": "perlin", "object": "fill"}], "scene": {"objects": 1, "size": 0.5}, "images": 9}
    scene = Drawer(Recipe.from_dict({**data, "canvas": {"size": 32}}, ["scene.place=inside"])).draw_scenes([3])[0]
    assert np.count_nonzero(scene.object_map) == 16 * 16


def test_the_background_is_no_object() -> None:
    with_background, without = scenes_of(), scenes_of(["scene.background=null"])
    one, other = with_background.draw_scenes(range(6)), without.draw_scenes(range(6))
    np.testing.assert_array_equal(one.object_maps, other.object_maps)
    for scene, bare in zip(one, other, strict=True):
        lit = scene.object_map > 0
        np.testing.assert_array_equal(scene.image[lit], bare.image[lit])
        assert not bare.image[~lit].any() and scene.image[~lit].any()
        np.testing.assert_array_equal(scene.categories, bare.categories)


# Parts without a scene -----------------------------------------------------------------------------------------------


def test_parts_stand_one_after_the_other_and_draw_what_they_draw_alone() -> None:
    parts = [
        {"generator": {"name": "ifs", "dots": 2000}, "categories": 3, "instances": 4},
        {"generator": "bezier", "categories": 2, "instances": 5},
        {"generator": {"name": "ifs", "dots": 1000}, "categories": 2, "instances": 1},
    ]
    canvas = {"size": 32}
    recipe = Recipe.from_dict({"parts": parts, "canvas": canvas})
    drawer = Drawer(recipe)
    images, labels = drawer.draw_batch(range(len(recipe)))
    alone = [Drawer(Recipe.from_dict({**part, "canvas": canvas})) for part in parts]
    np.testing.assert_array_equal(images, np.concatenate([one.draw_batch(range(len(one)))[0] for one in alone]))
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 5 + [4] * 5 + [5, 6]
    names = ["ifs1-00000", "ifs1-00001", "ifs1-00002", "bezier-00000", "bezier-00001", "ifs2-00000", "ifs2-00001"]
    assert [category.name for category in drawer.categories] == names
    assert drawer.name(16) == "bezier-00000/bezier-00000_000004"
    found = np.sort(np.concatenate(list(drawer.batches(range(len(recipe))))))
    np.testing.assert_array_equal(found, np.arange(24))
    shorter = Recipe.from_dict({"parts": [{**part, "categories": 2} for part in parts], "canvas": canvas})
    np.testing.assert_array_equal(Drawer(shorter).draw(8)[0], images[12], "first k of N holds for each part")


def test_a_list_of_one_part_is_the_short_form() -> None:
    part = {"generator": "ifs", "categories": 3, "instances": 2}
    assert Recipe.from_dict({"parts": [part]}) == Recipe.from_dict(part)


@pytest.mark.parametrize(
    "parts",
    [
        [{"generator": "ifs", "categories": 3, "share": 1.0}],
        [{"generator": "ifs", "categories": 3, "object": "shape"}],
        (Part(generator="ifs", categories=3),),
        [{"generator": "perlin", "categories": 3, "object": "fill"}],
    ],
    ids=str,
)
def test_every_form_of_one_part_keeps_its_id(parts: Any) -> None:
    recipe = Recipe(parts=parts, scene={"objects": 2}, images=5)
    again = Recipe.from_dict(recipe.to_dict())
    assert again == recipe and again.id == recipe.id and bool(recipe.parts) == (recipe.generator is None)
    if recipe.generator is not None:
        short = {"generator": "ifs", "categories": 3, "scene": {"objects": 2}, "images": 5}
        assert recipe.id == Recipe.from_dict(short).id


# Scenes of a generator's own -----------------------------------------------------------------------------------------


def test_a_generator_draws_its_own_scenes() -> None:
    recipe = Recipe.from_dict(
        {"generator": "dots", "categories": 3, "scene": "own", "canvas": {"size": 8, "padding": 0}}
    )
    assert len(recipe) == 40 and recipe.min_visible == 1
    scene = Drawer(recipe).draw_scenes([2])[0]
    assert scene.categories.tolist() == [2, 0, 1] and scene.object_map[0].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(Drawer(recipe).draw(2)[1][0], [3, 1, 2, 0, 0, 0, 0, 0])


MAP = np.zeros((8, 8), np.uint16)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (MAP, "returned a ndarray, not a Scene"),
        ((MAP.astype(np.uint8), MAP + 4, [0]), "object 4 in the map, and 1 categories"),
        ((MAP.astype(np.uint8), MAP, [0, 3]), "categories that are not from 0 to 2"),
        ((MAP.astype(np.uint8), MAP, [0.5]), "Cannot cast"),
        ((MAP, MAP, [0]), r"an image uint16 \[8, 8\], not uint8 \[8, 8, 1\]"),
        ((MAP.astype(np.uint8), MAP.astype(int), [0]), "an object map int64"),
        ((MAP.astype(np.uint8), MAP[1:], [0]), r"an object map uint16 \[7, 8\]"),
    ],
)
def test_a_wrong_scene_names_the_plugin_and_what_is_wrong(
    wrong: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dots, "wrong", wrong)
    recipe = Recipe.from_dict(
        {"generator": "dots", "categories": 3, "scene": "own", "canvas": {"size": 8, "padding": 0}}
    )
    with pytest.raises(PluginError, match=f"'dots'.*while drawing scene 5: .*{told}"):
        Drawer(recipe).draw_scenes([5])


def test_a_mask_without_the_attribute_names_the_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Blocks, "draws_masks", False)
    with pytest.raises(PluginError, match=r"of a generator with draws_masks = True it is \(image, mask\)"):
        scenes_of(**one_part("blocks", objects=1), parts=[]).draw_scenes([0])


def test_a_setting_of_a_part_is_set_by_its_number() -> None:
    recipe = Recipe.from_dict(DATA, ["parts.1.categories=4", "parts.0.generator.dots=3000", "scene.background=bezier"])
    assert recipe.num_categories == 16 and recipe.all_parts[0].generator.params.model_dump()["dots"] == 3000
    for wrong, told in (
        ("parts.2.categories=4", "'2' holds a plain value"),
        ("parts.x.categories=4", "'x' holds a plain value"),
        ("parts.share=1", "one of a list has a number, as in 0.share"),
        ("parts.0.shar=1", r"parts.0.shar: there is no such setting \(did you mean 'share'\?\)"),
    ):
        with pytest.raises(ConfigError, match=told):
            Recipe.from_dict(DATA, [wrong])


def test_a_wrong_mask_names_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Blocks, "render", lambda self, category, instance: np.zeros(self.canvas.shape, np.uint8))
    with pytest.raises(PluginError, match=r"'blocks'.*instance \d+: .*with draws_masks it is \(image, mask\)"):
        scenes_of(**one_part("blocks", objects=1), parts=[]).draw_scenes([0])


# Bad input -----------------------------------------------------------------------------------------------------------

ONE: dict[str, Any] = {"generator": "ifs", "categories": 3, "images": 5}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"scene": {"objects": 0}}, "scene.objects: 0 is not allowed: must be from 1 to 65,535"),
        ({"scene": {"objects": [1, 65_536]}}, "scene.objects: [1, 65536] is not allowed: must be from 1 to 65,535"),
        ({"scene": {"objects": [5, 2]}}, "scene.objects: [5, 2] is not allowed: the least comes first"),
        ({"scene": {"objects": [1, 2, 3]}}, "scene.objects: [1, 2, 3] is not allowed"),
        ({"scene": {"objects": 2.5}}, "scene.objects"),
        ({"scene": {"objects": True}}, "scene.objects: True is not allowed"),
        ({"scene": {"size": 1.01}}, "scene.size: 1.01 is not allowed: must be above 0 and at most 1"),
        ({"scene": {"size": [0, 0.5]}}, "scene.size: [0.0, 0.5] is not allowed: must be above 0 and at most 1"),
        ({"scene": {"size": 0.02}}, "the smallest objects would be 5 pixels wide of the canvas's 256"),
        ({"scene": {"object": 2}}, "scene.object: there is no such setting (did you mean 'objects'?)"),
        ({"scene": "own"}, "scene: own is not allowed: 'ifs' has no scenes of its own"),
        ({"scene": "onw"}, "scene: 'onw' is not allowed: must be own, or settings"),
        ({"scene": 3}, "scene: 3 is not allowed: must be own, or settings"),
        ({"scene": {}, "target": "class"}, "target: class is not allowed with scenes of several objects"),
        ({"scene": {}, "target": "semantic", "categories": 65_535}, "masks have 16 bits, for 65,534 of them"),
        ({"scene": {}, "target": "masks"}, "target: 'masks' is not allowed: must be 'class', 'labels'"),
        ({"images": None, "target": "labels"}, "target: labels is not allowed without a scene"),
        ({}, "images: is the number of scenes; without a scene"),
        ({"scene": {}, "instances": 3}, "instances: is not allowed with a scene"),
        ({"generator": "perlin", "scene": {}}, "images of 'perlin' have no background"),
        ({"scene": {"background": {"generator": "perln"}}}, "scene.background.generator.name: there is no generator"),
        ({"scene": {"background": "perln"}}, "scene.background.generator.name: there is no generator 'perln'"),
        ({"scene": {"background": {"generator": "perlin", "share": 1}}}, "scene.background.share: is not allowed"),
        ({"scene": {"background": {"generator": "perlin", "categories": 101}}}, "'perlin' has 100 here"),
        ({"generator": "dots", "scene": "own", "images": 41}, "images: 41 is not allowed: 'dots' has 40 scenes here"),
        ({"generator": "dots", "scene": {}}, "'dots' draws scenes of its own only: scene: own"),
        ({"generator": "dots", "images": None}, "'dots' draws scenes of its own only: scene: own"),
        ({"parts": [{"generator": "ifs"}], "scene": {}}, "generator: is not allowed beside parts"),
    ],
)
def test_what_cannot_go_together_is_refused_with_the_reason(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict({**ONE, **data})
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([{"generator": "ifs", "share": 0.5}, {"generator": "bezier", "share": 0.4}], "add up to 0.9, must be 1"),
        ([{"generator": "ifs", "share": 1}, {"generator": "bezier"}], "leave nothing for the parts without share"),
        (
            [
                {"generator": "ifs", "share": 0.7},
                {"generator": "ifs", "share": 0.2},
                {"generator": "ifs", "share": 0.1},
                {"generator": "bezier"},
            ],
            "add up to 1 and leave nothing for the parts without share",
        ),
        ([{"generator": "ifs", "share": 0.1}] * 10 + [{"generator": "bezier"}], "leave nothing for the parts"),
        ([{"generator": "ifs", "share": 1.5}, {"generator": "bezier"}], "parts.0.share: 1.5 is not allowed"),
        ([{"generator": "ifs"}, {"generator": "perlin"}], "parts.1.object: images of 'perlin' have no background"),
        ([{"generator": "ifs"}, {"generator": "perlim"}], "parts.1.generator.name: there is no generator 'perlim'"),
        ([{"generator": "ifs"}, {"generator": "bezier", "instances": 2}], "parts.1.instances: is not allowed"),
        ([{"generator": "ifs"}, {"generator": "bezier", "categorie": 2}], "parts.1.categorie: there is no such"),
        ([{"generator": "ifs"}, {"generator": "bezier", "categories": 0}], "parts.1.categories.count: 0"),
        ([{"categories": 2}, {"generator": "bezier"}], "parts.0.generator: is missing"),
        (["ifss"], "parts.0.generator.name: there is no generator 'ifss'"),
        ([3], "parts.0: 3 is not allowed"),
    ],
)
def test_wrong_parts_are_refused_with_the_reason(parts: list[Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict({"parts": parts, "scene": {}, "images": 3})
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_shares_need_a_scene() -> None:
    with pytest.raises(ConfigError, match=r"parts\.0\.share: is not allowed without a scene"):
        Recipe.from_dict({"parts": [{"generator": "ifs", "share": 0.5}, {"generator": "bezier"}]})


# On a device ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        ["scene.colors=own", "canvas.channels=1"],
        pytest.param([], marks=pytest.mark.slow),
        pytest.param(["scene.background=null"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_device_draws_the_same_scenes(changes: list[str], device: torch.device) -> None:
    data = {"parts": [DATA["parts"][0] | {"generator": {"name": "ifs", "dots": 1000}}, DATA["parts"][1]]}
    drawer = scenes_of(["scene.objects=[1, 3]", "scene.size=[0.3, 0.7]", "canvas.size=32", *changes], **data)
    on_device = DeviceDrawer(drawer, device)
    assert on_device.native
    with np.errstate(all="ignore"):
        images, maps, categories = on_device.draw_scenes(np.arange(3))
    batch = drawer.draw_scenes(range(3))
    np.testing.assert_array_equal(images.cpu().numpy(), batch.images)
    np.testing.assert_array_equal(maps.cpu().numpy(), batch.object_maps)
    assert [one.tolist() for one in categories] == [one.tolist() for one in batch.categories]
