"""Indices of all datasets are those of a list, with the right label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from formulavision import Drawer, FormulaDataset, Recipe, Store, StoredDataset, generate
from formulavision.data.labels import LabelSettings, Relabelled
from formulavision.util.indices import positions

RECIPE = Recipe.from_dict({"generator": {"name": "perlin", "grid": 2}, "instances": 3, "canvas": {"size": 16}})
Get = Callable[[Any], tuple[bytes, int]]


class Everything:
    """All that is indexed, as functions from an index to (pixels, label)."""

    def __init__(self, root: Path) -> None:
        path = generate(RECIPE, root / "store").path
        store, drawer = Store(path), Drawer(RECIPE)
        stored, drawn = StoredDataset(path), FormulaDataset(RECIPE)
        held_out = drawn.held_out(3, fresh=False)
        noisy = Relabelled(drawn, LabelSettings(noise=0.5))
        clusters = Relabelled(drawn, LabelSettings(clusters=4))
        clusters.replace(np.arange(12) % 4)
        self.get: dict[str, Get] = {
            "Drawer": lambda i: self.bytes(drawer.draw(i)),
            "Drawer.draw_batch": lambda i: self.bytes([part[0] for part in drawer.draw_batch([i])]),
            "Store": lambda i: (store.read(i).tobytes(), store.label(i)),
            "FormulaDataset": lambda i: self.bytes(drawn[i]),
            "FormulaDataset, fresh": lambda i: self.bytes(drawn.fresh_items([(0, i)])[0]),
            "StoredDataset": lambda i: self.bytes(stored[i]),
            "held out": lambda i: self.bytes(held_out[i]),
            "Relabelled, noise": lambda i: self.bytes(noisy[i]),
            "Relabelled, clusters": lambda i: self.bytes(clusters[i]),
        }

    @staticmethod
    def bytes(item: Any) -> tuple[bytes, int]:
        return np.asarray(item[0]).tobytes(), int(item[1])


NAMES = (
    *("Drawer", "Drawer.draw_batch", "Store", "FormulaDataset", "FormulaDataset, fresh", "StoredDataset", "held out"),
    *("Relabelled, noise", "Relabelled, clusters"),
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Get]:
    return Everything(tmp_path_factory.mktemp("indices")).get


@pytest.mark.parametrize("name", NAMES)
def test_negative_indices_count_from_the_end(everything: dict[str, Get], name: str) -> None:
    get = everything[name]
    items = [get(i) for i in range(12)]
    assert [get(i) for i in range(-12, 0)] == items
    if not name.startswith("Relabelled"):
        assert [label for _, label in items] == [i // 3 for i in range(12)]
    for index in (np.int64(-1), np.uint8(11), np.int32(11), torch.tensor(11)):
        assert get(index) == items[11]


@pytest.mark.parametrize("number", [0.7, 1.0, True, np.float32(1), "1", None])
def test_scenes_and_epochs_are_whole_numbers(number: Any) -> None:
    scenes = Drawer({"generator": "bezier", "categories": 2, "scene": {}, "canvas": {"size": 96}})
    dataset = FormulaDataset(RECIPE)
    with pytest.raises(TypeError):
        scenes.draw_scenes([number])
    if number is not None:
        with pytest.raises(TypeError):
            dataset.set_epoch(number)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("index", [12, -13, 10**30, np.uint64(2**63)])
def test_an_index_that_is_not_there_is_an_error(everything: dict[str, Get], name: str, index: Any) -> None:
    with pytest.raises((IndexError, OverflowError)):
        everything[name](index)


@pytest.mark.parametrize("name", [name for name in NAMES if "fresh" not in name])
@pytest.mark.parametrize("index", [1.0, True, np.True_, np.float32(2), "1", None, torch.tensor(True)], ids=repr)
def test_what_is_no_whole_number_is_no_index(everything: dict[str, Get], name: str, index: Any) -> None:
    with pytest.raises(TypeError):
        everything[name](index)


def test_indices_are_taken_as_ranges_arrays_and_tensors() -> None:
    several: list[Any] = [range(3), [0, 1, 2], np.arange(3, dtype=np.uint8), torch.arange(3), (np.int8(0), 1, -2)]
    for indices in several:
        assert positions(indices, 4).tolist()[:2] == [0, 1]
    assert positions([], 4).dtype == np.int64
    assert positions([], 4).size == 0
    assert positions(3, 4).tolist() == [3]
    with pytest.raises(TypeError):
        positions([0, True], 4)
    with pytest.raises(TypeError):
        positions(np.array([0.0]), 4)
    with pytest.raises(TypeError):
        positions(np.array([True, False]), 4)


def test_all_of_a_dataset_can_be_iterated_and_ends() -> None:
    assert len(list(FormulaDataset(RECIPE))) == 12  # type: ignore[call-overload]
