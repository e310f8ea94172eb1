"""Views of stores: the images that the store holds, its categories' parameters, and measures of a sample."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulavision.explorer.limits import Limits
from formulavision.explorer.store_page import StorePage
from formulavision.explorer.store_views import browse, facts_of, measure_store, store_picture, verify_store
from formulavision.explorer.worker import Worker, unwatched
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe
from formulavision.storage.generation import Silent, generate
from formulavision.storage.png import decode_image
from formulavision.storage.store import Store
from formulavision.util.errors import ConfigError, StoreError

CANVAS = {"size": 32, "padding": 0}
PARTS = {
    "parts": [
        {"generator": "bezier", "categories": 3, "instances": 20},
        {"generator": {"name": "perlin", "grid": 2}, "instances": 3},
    ],
    "canvas": CANVAS,
}
SCENES = {
    "generator": "bezier",
    "categories": 6,
    "scene": {"objects": [1, 3], "size": 0.5},
    "images": 30,
    "canvas": CANVAS,
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("stores")
    for name, data in (("parts", PARTS), ("scenes", SCENES)):
        generate(Recipe.from_dict(data), out=folder / name, format="imagefolder", workers=1, progress=Silent())
    return {name: str(folder / name) for name in ("parts", "scenes")}


def test_a_page_has_the_stores_images_in_order(stores: dict[str, str]) -> None:
    store = Store(stores["parts"])
    found = browse(stores["parts"], "", 2, unwatched)
    assert [cell.instance for cell in found.sheet.cells] == list(range(48, 72)) and found.pages == 3
    assert all(np.array_equal(decode_image(c.png, 1), store.read(c.instance)) for c in found.sheet.cells)
    assert "72" in facts_of(store)["content"]
    assert found.sheet.cells == browse(stores["parts"], "", 10**9, unwatched).sheet.cells  # after the last page


def test_images_are_found_by_the_beginning_of_their_category(stores: dict[str, str]) -> None:
    store = Store(stores["parts"])
    name = store.layout.category_names[4]
    cells = browse(stores["parts"], name, 0, unwatched).sheet.cells
    assert [store.label(cell.instance) for cell in cells] == [4, 4, 4]
    with pytest.raises(ConfigError, match="'no-such' is the beginning of no category here"):
        browse(stores["parts"], "no-such", 0, unwatched)


def test_scenes_are_found_by_their_objects(stores: dict[str, str]) -> None:
    store, name = Store(stores["scenes"]), "00002"
    cells = browse(stores["scenes"], name, 0, unwatched).sheet.cells
    expected = [index for index in range(30) if 2 in store.scene(index).categories]
    assert [cell.instance for cell in cells] == expected[:24] and 0 < len(expected) < 30


@pytest.mark.parametrize("index", [0, 59, 60, 71])
def test_an_image_comes_with_its_categorys_parameters(stores: dict[str, str], index: int) -> None:
    drawer = Drawer(PARTS)
    picture = store_picture(stores["parts"], index, unwatched)
    image, label = drawer.draw(index)
    assert np.array_equal(decode_image(picture.panels[0][1], 1), image)
    assert picture.parameters == drawer.categories[int(label)].parameters.tolist()


def test_a_scene_comes_with_its_targets(stores: dict[str, str]) -> None:
    picture = store_picture(stores["scenes"], 7, unwatched)
    labels = set(Drawer(SCENES).draw_scenes([7])[0].categories.tolist())
    assert len(picture.panels) == 3 and {int(name) for name in picture.targets["labels"].split(", ")} <= labels


@pytest.mark.parametrize("index", [-1, 72])
def test_an_index_that_the_store_has_not_is_refused(stores: dict[str, str], index: int) -> None:
    with pytest.raises(ConfigError, match="the store has 72"):
        store_picture(stores["parts"], index, unwatched)


def test_measures_are_those_of_the_images(stores: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(stores["scenes"])
    found = measure_store(stores["scenes"], unwatched)
    share = np.mean([(store.scene(index).object_map > 0).mean() for index in range(30)])
    assert found.facts["sample"].startswith("30 of 30 scenes") and f"mean {share:.1%}" in found.facts["fill rate"]
    assert f"mean {np.mean([store.read(i) for i in range(30)]):.1f} of 255" in found.facts["gray levels"]
    # A scene that is there twice is the nearest of all.
    monkeypatch.setattr(Store, "scene", lambda self, index, read=Store.scene: read(self, 3 if index == 20 else index))
    assert measure_store(stores["scenes"], unwatched).pairs[0][0] == "correlation 1.000: 00000003 and 00000020"


def test_images_without_a_fill_rate_are_counted(stores: dict[str, str]) -> None:
    store = Store(stores["parts"])
    filled = sum(store.layout.category_names[store.label(index)].startswith("bezier") for index in range(72))
    told = measure_store(stores["parts"], unwatched).facts["fill rate"]
    assert 0 < filled < 72 and f", of {filled} of these images; the others: " in told and "perlin" in told


def test_damage_is_told_in_a_line_and_the_other_images_are_shown(stores: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(stores["parts"], folder)
    image = folder / f"{Store(folder).layout.name(1)}.png"
    image.write_bytes(image.read_bytes()[:40])
    found = browse(str(folder), "", 0, unwatched)
    assert len(found.sheet.cells) == 23 and len(found.problems) == 1 and "is damaged" in found.problems[0]
    (folder / "categories-0.json").unlink()
    assert "cannot be read" in store_picture(str(folder), 2, unwatched).targets["parameters"]


@pytest.mark.slow
def test_a_sample_is_verified_with_progress(stores: dict[str, str], tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    checked, problems = verify_store(stores["parts"], 5, lambda words, done, total: told.append((done, total)))
    assert checked.endswith("compared with the manifest, 5 images drawn again") and problems == []
    assert told[-1][0] == told[-1][1]
    shutil.copytree(stores["parts"], tmp_path / "damaged")
    image = next((tmp_path / "damaged").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:40])
    assert str(image.parent) in verify_store(str(tmp_path / "damaged"), 5, unwatched)[1][0]


def test_a_store_that_is_deleted_while_it_is_shown_is_a_line(
    stores: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "call", lambda worker, work, *given, progress=None: work(*given, unwatched))
    folder = tmp_path / "gone"
    shutil.copytree(stores["parts"], folder)
    page = StorePage(str(folder), Limits())
    assert page.picture(3)[0].count("fv-problem") == 0 and "store.read(3)" in page.picture(3)[1]
    shutil.rmtree(folder)
    for told in (page.browse("", 1)[0], page.picture(3)[0], page.verify(5), page.measure()):
        assert told.count("fv-problem") == 1 and "Traceback" not in told
    with pytest.raises(StoreError):
        StorePage(str(folder), Limits())


@pytest.mark.parametrize("given", [None, "a", 0.5, 10**9, -1, True, float("inf")])
def test_what_a_visitors_page_may_not_send_is_a_line(
    stores: dict[str, str], given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = StorePage(stores["parts"], Limits())
    for told in (page.picture(given)[0], page.verify(given), page.browse("", given)[0]):
        assert told.count("fv-problem") == 1
