"""Contact sheets show what the recipe draws, where the labels say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from discs import Discs
from PIL import Image
from pydantic import Field

import formulavision
from formulavision import Category, Drawer, Generator, Params, Recipe
from formulavision.recipes.sheets import contact_sheet, preview
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
