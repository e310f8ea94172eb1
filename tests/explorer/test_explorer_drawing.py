"""The explorer's pictures: the images of the recipe, with the index and the lines that make exactly them."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from formulavision import generate
from formulavision.explorer import recipe_views
from formulavision.explorer.markup import commands, estimate_html, picture_html, problems_html, sheet_html, table_html
from formulavision.explorer.recipe_views import draw_picture, draw_sheet
from formulavision.explorer.worker import unwatched
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe
from formulavision.storage.png import decode_image
from formulavision.util.errors import ConfigError

CANVAS = {"size": 32, "padding": 0}
RECIPES: dict[str, Any] = {
    "one": {"generator": {"name": "bezier", "grid": 3}, "canvas": {"size": 48}, "instances": 5, "seed": 3},
    "parts": {
        "parts": [
            {"generator": "bezier", "categories": 5, "instances": 4},
            {"generator": {"name": "perlin", "grid": 2}, "instances": 3},
        ],
        "canvas": CANVAS,
    },
    "masks": {"generator": "segrcdb", "categories": 6, "instances": 4, "canvas": {"size": 64}},
    "scenes": {"generator": "bezier", "scene": {"objects": 3, "size": 0.5}, "images": 9, "canvas": {"size": 48}},
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.slow
def test_a_sheet_shows_the_recipes_own_images(name: str) -> None:
    recipe = Recipe.from_dict(RECIPES[name])
    sheet = draw_sheet(recipe, 4, 3, unwatched)
    drawer, channels = Drawer(recipe), recipe.canvas.channels
    for cell in [cell for cell in sheet.cells if not cell.caption.startswith("objects")]:
        before = []
        if not recipe.is_scene:
            before = [part.num_instances for part in recipe.all_parts for _ in range(part.num_categories)][: cell.label]
        index = sum(before) + cell.instance
        assert np.array_equal(decode_image(cell.png, channels), drawer.draw(index)[0])
    assert len(sheet.cells) == {"one": 12, "parts": 12, "masks": 12, "scenes": 12}[name]
    assert sheet.columns == (2 if recipe.is_scene else 3)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("place", [(0, 0), (5, 2)])
@pytest.mark.slow
def test_the_lines_beside_an_image_make_exactly_it(
    name: str, place: tuple[int, int], tmp_path: Any, monkeypatch: Any
) -> None:
    recipe = Recipe.from_dict(RECIPES[name])
    picture = draw_picture(recipe, *place, unwatched)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    lines = commands(recipe, picture.index)
    made: dict[str, Any] = {}
    exec(lines[lines.index("from formulavision") :], made)
    assert np.array_equal(decode_image(picture.panels[0][1], recipe.canvas.channels), made["image"])
    assert made["drawer"].name(picture.index) == picture.name
    assert made["drawer"].recipe.id == recipe.id


def test_an_image_has_its_mask_and_its_categorys_parameters() -> None:
    recipe = Recipe.from_dict(RECIPES["masks"])
    picture = draw_picture(recipe, 2, 1, unwatched)
    mask = decode_image(picture.panels[1][1], 1)
    assert picture.panels[1][0] == "mask of the object" and set(np.unique(mask)) == {0, 255}
    drawer = Drawer(recipe)
    assert picture.parameters == drawer.categories[2].parameters.tolist()
    assert picture.columns == list(drawer.generator.columns)
    perlin = draw_picture(Recipe.from_dict({"generator": "perlin", "canvas": CANVAS}), 0, 0, unwatched)
    assert [heading for heading, _ in perlin.panels] == ["image"]  # it has no background


def test_a_sheet_of_scenes_tells_the_bytes_of_a_store(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(RECIPES["scenes"])
    sheet = draw_sheet(recipe, 9, 2, unwatched)
    store = generate(recipe, tmp_path / "store", format="imagefolder")
    files = [path.stat().st_size for path in store.path.rglob("*.png")]
    assert len(files) == 18 and sheet.image_bytes == sum(files) / 9


def test_a_scene_has_its_targets() -> None:
    recipe = Recipe.from_dict(RECIPES["scenes"])
    picture = draw_picture(recipe, 0, 4, unwatched)
    assert [heading.partition(":")[0] for heading, _ in picture.panels] == ["image", "semantic and objects", "objects"]
    labels = set(Drawer(recipe).draw_scenes([4])[0].categories.tolist())
    assert {int(name) for name in picture.targets["labels"].split(", ")} <= labels
    assert list(picture.targets) == ["class", "labels", "semantic", "objects"]


@pytest.mark.parametrize("place", [(9, 0), (-1, 0), (0, 5), (0, -1), (2**62, 0)])
def test_images_that_the_recipe_has_not_are_refused(place: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"the recipe has 9|the category has 5"):
        draw_picture(Recipe.from_dict(RECIPES["one"]), *place, unwatched)


def test_a_search_is_told_and_not_repeated() -> None:
    recipe = Recipe.from_dict({"generator": "ifs", "canvas": CANVAS, "seed": 77})
    searched: list[tuple[str, int, int | None]] = []

    def watch(told: str, done: int, total: int | None) -> None:
        if told == "searching categories":
            searched.append((told, done, total))

    draw_sheet(recipe, 2, 1, watch)
    assert searched == [("searching categories", 1, 2), ("searching categories", 2, 2)]
    draw_sheet(recipe, 2, 2, watch)
    assert len(searched) == 2


@pytest.mark.parametrize("name", ["one", "scenes"])
def test_a_sheet_of_slow_images_is_told_and_ends_early(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.from_dict(RECIPES[name])
    whole = draw_sheet(recipe, 4, 4, unwatched)
    clock = itertools.count(step=3)  # whenever it is looked at, 3 seconds have passed
    monkeypatch.setattr(recipe_views, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr(recipe_views, "_PATIENCE", 10.0)
    told: list[int] = []
    sheet = draw_sheet(recipe, 4, 4, lambda words, done, total: told.append(done))
    drawn = len(sheet.cells)
    assert sheet.cells == whole.cells[:drawn] and sheet.wanted == len(whole.cells) > drawn
    assert "because they take long" in estimate_html(recipe, sheet)
    assert "because they take long" not in estimate_html(recipe, whole)
    assert told == [1, 2, 3, 4, 5]  # the first image may compile; the limit is reached after 4 others


def test_text_of_others_is_escaped() -> None:
    evil = "<script>alert(1)</script>\"'"
    recipe = Recipe.from_dict(RECIPES["one"])
    texts = [
        problems_html([evil]), table_html([evil], [[evil]]), sheet_html(draw_sheet(recipe, 1, 1, unwatched), evil)
    ]  # fmt: skip
    assert all("<script" not in text and "&lt;script&gt;" in text for text in texts)
    assert 'src="data:image/png;base64,' in picture_html(draw_picture(recipe, 0, 0, unwatched))
