"""A store has a card that Hugging Face reads; a README.md of the user's own is never replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from cases import slow

from formulavision import Store, generate, verify
from formulavision.storage.card import is_own_card
from formulavision.storage.generation import Silent

RECIPE = {"generator": {"name": "perlin", "grid": 2}, "categories": 3, "instances": 2, "canvas": {"size": 16}}
SCENES = {"generator": "bezier", "categories": 3, "scene": {"objects": [1, 3]}, "images": 4, "canvas": {"size": 64}}


def header(store: Path) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((store / "README.md").read_text().split("---\n")[1]))


@pytest.mark.parametrize(
    ("recipe", "form"),
    [
        (RECIPE, "parquet"),
        *slow((RECIPE, "imagefolder"), (RECIPE, "webdataset"), (SCENES, "parquet"), (SCENES, "webdataset")),
    ],
)
def test_datasets_loads_the_folder_and_the_card_names_its_columns(
    tmp_path: Path, redrawn_here: None, recipe: dict[str, Any], form: str
) -> None:
    store = generate(recipe, tmp_path / "store", format=form)
    rows = datasets.load_dataset(str(store.path), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == len(store)
    columns = set(rows.column_names) - {"__url__"}
    card = (store.path / "README.md").read_text()
    assert all(f"| `{name}` |" in card for name in columns) and card.count("\n| `") == len(columns)
    image = rows[1]["png" if form == "webdataset" else "image"]
    assert np.array_equal(
        np.asarray(image.convert("RGB")), np.broadcast_to(store.read(1), (*store.read(1).shape[:2], 3))
    )
    assert verify(store).problems == []


def test_datasets_do_not_take_the_store_that_was_there_before(tmp_path: Path) -> None:
    place, cache = tmp_path / "store", str(tmp_path / "cache")
    for recipe in (RECIPE, {**RECIPE, "generator": "bezier"}):
        store = generate(recipe, place, overwrite=True)
        rows = datasets.load_dataset(str(place), split="train", cache_dir=cache)
        assert np.array_equal(np.asarray(rows[1]["image"]), store.read(1)[:, :, 0])


def test_it_is_told_that_an_edited_card_is_not_of_a_new_recipe(tmp_path: Path) -> None:
    class Notes(Silent):
        def note(self, line: str) -> None:
            told.append(line)

    told: list[str] = []
    store = generate(RECIPE, tmp_path / "store")
    card = store.path / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: mit"))
    generate(RECIPE, store.path, overwrite=True, progress=Notes())
    assert told == []
    other = generate({**RECIPE, "instances": 3}, store.path, overwrite=True, progress=Notes())
    assert told == [
        f"README.md: was edited by somebody, so it stays; it does not tell of recipe {other.manifest.recipe_id}"
    ]
    assert "license: mit" in card.read_text()


def test_the_card_says_what_the_hub_asks_for(tmp_path: Path) -> None:
    store = generate(RECIPE, tmp_path / "store")
    front = header(store.path)
    assert front["license"] == "unknown" and front["size_categories"] == ["n<1K"]
    assert front["task_categories"] == ["image-classification"] and "perlin" in front["tags"]
    card = (store.path / "README.md").read_text()
    assert store.manifest.recipe_id in card and "formulavision verify" in card and str(tmp_path) not in card
    assert "README.md" not in json.dumps(store.manifest.files)
    generate(SCENES | {"target": "semantic"}, tmp_path / "scenes")
    assert header(tmp_path / "scenes")["task_categories"] == ["image-segmentation"]


def test_an_own_readme_is_kept_and_a_card_follows_its_store(tmp_path: Path, redrawn_here: None) -> None:
    out = tmp_path / "store"
    generate(RECIPE, out)
    first = (out / "README.md").read_bytes()
    assert is_own_card(first) and not is_own_card(first + b"\n") and not is_own_card(first.replace(b"unknown", b"mit"))
    generate(RECIPE | {"seed": 2}, out, overwrite=True)
    second = (out / "README.md").read_bytes()
    assert is_own_card(second) and second != first
    (out / "README.md").write_bytes(second.replace(b"unknown", b"mit"))
    for again in (RECIPE | {"seed": 2}, RECIPE):
        generate(again, out, overwrite=True)
        assert b"license: mit" in (out / "README.md").read_bytes()
    (out / "README.md").write_text("my own")
    generate(RECIPE, out)
    assert (out / "README.md").read_text() == "my own" and verify(out).problems == []
    (out / "README.md").unlink()
    assert verify(out).problems == []


def test_a_store_at_a_url_has_the_same_card(tmp_path: Path, memory_url: Callable[[], str]) -> None:
    url = memory_url()
    store, here = generate(RECIPE, url), generate(RECIPE, tmp_path / "store")
    assert not isinstance(store.root, Path)
    assert store.root.read("README.md") == (here.path / "README.md").read_bytes()
    assert verify(Store(url), sample=0).problems == []
