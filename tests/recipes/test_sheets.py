"""Contact sheets show what the recipe draws, where the labels say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import Discs
from PIL import Image
from pydantic import Field

import formulavision
from formulavision import Category, Drawer, Generator, Params, Recipe, Scene
from formulavision.recipes.sheets import (
    _grid_of_instances,
    _grid_of_scenes,
    _spread_over_parts,
    _title,
    color_objects,
    contact_sheet,
    preview,
)
from formulavision.util.errors import ConfigError, StoreError


class FlatParams(Params):
    step: int = Field(1, ge=1, le=10, description="gray levels between instances", json_schema_extra={"unit": "levels"})


@formulavision.register
class Flat(Generator):
    """One gray level an image: 60 and more by category, and a little by instance."""

    name = "preview-test-flat"
    Params = FlatParams

    def category(self, index: int) -> float:
        return 60.0 + 10 * index

    def render(self, category: Category, instance: int) -> np.ndarray:
        return np.full(self.canvas.shape, category.parameters[0, 0] + self.params.step * instance, np.uint8)


def recipe(size: int = 32, channels: int = 1, **settings: int) -> Recipe:
    canvas = {"size": size, "padding": 0, "channels": channels}
    return Recipe.from_dict({"generator": Flat.name, "categories": 9, "instances": 9, "canvas": canvas, **settings})


def grays(sheet: Image.Image, size: int) -> list[int]:
    """Gray levels of the sheet that fill a square of the images' size, by their place."""
    pixels = np.asarray(sheet)[:, :, 0]
    levels = [level for level in range(60, 200) if (pixels == level).sum() >= size * size]
    return levels


@pytest.mark.parametrize("channels", [1, 3])
def test_categories_and_instances_are_spread_evenly(channels: int) -> None:
    sheet = contact_sheet(Drawer(recipe(channels=channels)), categories=3, instances=2)
    assert sheet.mode == "RGB"
    assert grays(sheet, 32) == [60, 68, 100, 108, 140, 148]  # categories 0, 4, 8; instances 0, 8


def test_no_more_than_there_are() -> None:
    sheet = contact_sheet(Drawer(recipe(categories=2, instances=1)), categories=8, instances=10)
    assert grays(sheet, 32) == [60, 70]


@pytest.mark.parametrize("size", [8, 64, 512])
def test_the_sheet_is_wide_enough_for_its_labels_and_not_too_wide(size: int) -> None:
    sheet = contact_sheet(Drawer(recipe(size)), categories=2, instances=9)
    assert 200 < sheet.width <= 2000
    assert sheet.height < 1000


@pytest.mark.parametrize(("size", "shown"), [(8, 64), (24, 48), (40, 40), (64, 64), (100, 100)])
def test_small_images_are_enlarged_by_a_whole_factor(size: int, shown: int) -> None:
    sheet = contact_sheet(Drawer(recipe(size)), categories=1, instances=1)
    level = (np.asarray(sheet) == 60).all(2)  # letters have a few such pixels, too
    assert (level.sum(0) >= shown).sum() == (level.sum(1) >= shown).sum() == shown


def test_nothing_asked_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="instances: 0 is not allowed"):
        contact_sheet(Drawer(recipe()), instances=0)


def test_preview_writes_a_png_and_replaces_it_only_when_told(tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    assert preview(recipe(), out) == out
    with Image.open(out) as image:
        assert image.format == "PNG"
    before = out.read_bytes()
    with pytest.raises(StoreError, match="--overwrite"):
        preview(recipe(64), out)
    assert out.read_bytes() == before
    preview(recipe(64), out, overwrite=True)
    assert out.read_bytes() != before
    assert [file.name for file in out.parent.iterdir()] == ["sheet.png"]


@pytest.mark.usefixtures("cuda_is_the_cpu")
def test_a_device_draws_the_same_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formulavision.register(Discs)
    discs = Recipe.from_dict({"generator": "discs", "categories": 9, "canvas": {"size": 32}})
    notes: list[str] = []
    preview(discs, tmp_path / "cpu.png")
    monkeypatch.setattr(Discs, "render", None)
    preview(discs, tmp_path / "cuda.png", device="cuda", note=notes.append)
    assert (tmp_path / "cpu.png").read_bytes() == (tmp_path / "cuda.png").read_bytes()
    assert notes == []


@pytest.mark.usefixtures("cuda_is_the_cpu")
def test_what_cannot_be_drawn_on_a_device_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    preview(recipe(), tmp_path / "sheet.png", device="cuda", note=notes.append)
    assert notes == ["preview-test-flat draws on the CPU only"]
    assert (tmp_path / "sheet.png").is_file()


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        preview(recipe(), tmp_path)


# Several parts, and scenes


def test_rows_are_spread_over_all_parts() -> None:
    assert _spread_over_parts([9], 3) == [0, 4, 8]
    assert _spread_over_parts([1000, 2, 3], 8) == [0, 200, 400, 599, 799, 999, 1000, 1002]
    assert _spread_over_parts([3, 3], 100) == [0, 1, 2, 3, 4, 5]
    assert _spread_over_parts([5, 5, 5], 2) == [0, 10]
    assert _spread_over_parts([1, 1, 1], 3) == [0, 1, 2]


def test_a_sheet_of_parts_has_their_names_and_images() -> None:
    part = {"generator": Flat.name, "categories": 2, "instances": 3}
    other = {"generator": {"name": Flat.name, "step": 10}, "categories": 1, "instances": 2}
    several = Recipe.from_dict({"parts": [part, other], "canvas": {"size": 32, "padding": 0}})
    assert grays(contact_sheet(several), 32) == [60, 61, 70, 71]  # the second part's are 60 and 70
    drawer = Drawer(several)
    grid = _grid_of_instances(drawer, 8, 10)
    assert grid.rows == [category.name for category in drawer.categories]
    assert grid.columns == ["0", "1"]
    assert [[int(image.max()) for image in row] for row in grid.images] == [[60, 61], [70, 71], [60, 70]]


SCENES: dict[str, Any] = {
    "generator": {"name": "ifs", "dots": 1000},
    "categories": 5,
    "scene": {"objects": [2, 4]},
    "images": 30,
    "canvas": {"size": 64},
}


@pytest.mark.slow
def test_a_sheet_of_scenes_shows_each_beside_its_objects() -> None:
    drawer = Drawer(SCENES)
    grid = _grid_of_scenes(drawer, 3, 5)
    assert grid.rows == ["00000000", "00000014", "00000028"]
    assert grid.columns == ["+0", "objects", "+1", "objects"]
    scenes = drawer.draw_scenes([14, 15])
    _, images, _ = grid.images
    for position, scene in enumerate(scenes):
        assert np.array_equal(images[2 * position], scene.image)
        colored = images[2 * position + 1]
        assert colored.shape == (64, 64, 3)
        assert np.array_equal(colored.any(axis=2), scene.object_map > 0)
    pixels = np.asarray(contact_sheet(SCENES, categories=3, instances=5))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (64, 64, 3))[:, :, 0]
    (places,) = {len(np.argwhere((windows == image).all(axis=(2, 3, 4)))) for image in images[1::2]}
    assert places == 1


def test_a_sheet_has_no_more_scenes_than_the_recipe() -> None:
    grid = _grid_of_scenes(Drawer({**SCENES, "images": 3}), 8, 20)
    assert (grid.rows, len(grid.columns)) == (["00000000"], 6)
    for wanted in ({"instances": 0}, {"categories": 0}):
        with pytest.raises(ConfigError, match=r"0 is not allowed: must be at least 1"):
            contact_sheet(SCENES, **wanted)


def test_no_scene_is_shown_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = Drawer({**SCENES, "images": 7})
    shown: list[int] = []

    def note(numbers: Any) -> list[Any]:
        shown.extend(numbers.tolist())
        return []

    monkeypatch.setattr(drawer, "draw_scenes", note)
    for columns in range(1, 8):
        for rows in range(1, 8):
            shown.clear()
            list(_grid_of_scenes(drawer, rows, 2 * columns).images)
            assert len(shown) == columns * min(rows, 7 // columns)
            assert len(set(shown)) == len(shown) and set(shown) <= set(range(7))
            assert rows == 1 or columns > 3 or {0, 6} <= set(shown), "from the first to the last"


def test_objects_of_different_categories_and_neighbours_of_the_same_have_different_colors() -> None:
    object_map = np.arange(7, dtype=np.uint16).reshape(1, 7)
    colored = color_objects(Scene(np.zeros((1, 7, 1), np.uint8), object_map, np.array([0, 0, 0, 1, 2, 1])))
    assert len(np.unique(colored[0], axis=0)) == 7
    assert not colored[0, 0].any()
    many = np.arange(9, dtype=np.uint16).reshape(1, 9)
    colored = color_objects(Scene(np.zeros((1, 9, 1), np.uint8), many, np.zeros(8, np.int64)))
    assert len(np.unique(colored[0], axis=0)) == 9


def test_titles_say_what_is_shown() -> None:
    assert _title(Recipe.from_dict(SCENES))[1] == (
        "30 scenes of 64 x 64, gray, with 2 to 4 objects of 5 ifs categories, seed 1"
    )
    assert _title(recipe())[1] == "9 categories x 9 instances, 32 x 32 pixels, seed 1"
