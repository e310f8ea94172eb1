"""Datasets of scenes: the targets as tensors, held-out and fresh scenes, and parts without a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from formulavision import ConfigError, FormulaDataModule, FormulaDataset, StoredDataset, generate
from formulavision.data.items import target_of
from formulavision.recipes.targets import Target, semantic_target

DATA: dict[str, Any] = {
    "parts": [
        {"generator": {"name": "ifs", "dots": 2000}, "categories": 4},
        {"generator": "bezier", "categories": 3},
    ],
    "scene": {"objects": [1, 5]},
    "images": 12,
    "canvas": {"size": 64},
}


def test_the_target_of_a_dataset_is_the_recipes_or_the_one_asked_for() -> None:
    dataset = FormulaDataset(DATA)
    assert dataset.target == "semantic" and dataset.classes[:2] == ["background", "ifs-00000"]
    image, mask = dataset[3]
    assert image.shape == (1, 64, 64) and mask.dtype == torch.uint8
    scene = dataset.drawer.draw_scenes([3])[0]
    np.testing.assert_array_equal(mask.numpy(), semantic_target(scene, 7, 10))
    labels = FormulaDataset(DATA, target="labels")
    assert labels.num_classes == 7 and labels.classes[0] == "ifs-00000"
    found = labels[3][1]
    assert found.dtype == torch.int8 and set(np.flatnonzero(found.numpy()) + 1) == set(mask.unique().tolist()) - {0}
    with pytest.raises(ConfigError, match="target: class is not allowed with scenes of several objects"):
        FormulaDataset(DATA, target="class")
    single = FormulaDataset({**DATA, "scene": {"objects": 1}}, target="class")
    assert 0 <= single[0][1] < 7


def test_objects_are_what_torchvision_learns_detection_from() -> None:
    dataset = FormulaDataset({**DATA, "canvas": {"size": 64, "channels": 3}}, target="objects")
    image, target = dataset[1]
    assert {name: str(value.dtype) for name, value in target.items()} == {
        "boxes": "torch.float32", "labels": "torch.int64", "masks": "torch.uint8"
    }  # fmt: skip
    assert dataset.num_classes == 8 and target["labels"].min() >= 1
    for (left, top, right, bottom), mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum() > 0 and inside[0].any() and inside[:, -1].any()
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=8, min_size=64, max_size=64)
    losses = model([image / 255], [target])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_more_than_254_categories_give_int32_masks() -> None:
    data = {
        "generator": {"name": "bezier", "grid": 18},
        "categories": 300,
        "scene": {"objects": 9},
        "images": 20,
        "canvas": {"size": 64},
    }
    dataset = FormulaDataset(data)
    masks = torch.stack([dataset[i][1] for i in range(20)])
    assert masks.dtype == torch.int32 and masks.max() > 255


def test_held_out_and_fresh_scenes_are_no_scenes_of_the_recipe() -> None:
    dataset = FormulaDataset(DATA)
    assert dataset.find_scenes([(0, 0), (0, 11)], fresh=False).tolist() == [0, 11]
    assert dataset.find_scenes([(0, 0), (2, 5)], fresh=True).tolist() == [12, 41]
    assert dataset.held_out(4, fresh=False).find_scenes([(0, 0), (0, 3)], fresh=False).tolist() == [12, 15]
    assert len(dataset.held_out(4, fresh=False)) == 4
    assert dataset.held_out(4, fresh=True).find_scenes([(0, 0)], fresh=False).tolist() == [0]
    dataset.set_epoch(2)
    scene = dataset.drawer.draw_scenes([41])[0]
    np.testing.assert_array_equal(dataset[5][0].numpy(), scene.image.transpose(2, 0, 1))
    with pytest.raises(ConfigError, match="held_out: is 13, and must be at most the recipe's number of scenes, 12"):
        dataset.held_out(13, fresh=True)


def test_a_finite_set_of_scenes_has_no_fresh_ones_and_none_to_hold_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulavision_plugins.bezier.Bezier.scene", lambda self, categories, index: None)
    monkeypatch.setattr("formulavision_plugins.bezier.Bezier.max_scenes", lambda self: 20)
    dataset = FormulaDataset({"generator": "bezier", "scene": "own", "images": 18})
    assert not dataset.endless
    for count in (1, 3):
        with pytest.raises(ConfigError, match="held_out: must be 0: the scenes of 'bezier' are a finite published set"):
            dataset.held_out(count, fresh=False)


@pytest.mark.parametrize("format", ["parquet", "webdataset", "imagefolder"])
def test_a_store_gives_the_same_targets_as_drawing(format: str, tmp_path: Path) -> None:
    store = generate(DATA, tmp_path / "store", format=format)
    assert StoredDataset(store).target == "semantic"
    targets: list[Target] = ["labels", "semantic", "objects"]
    for target in targets:
        drawn, stored = FormulaDataset(DATA, target=target), StoredDataset(store, target=target)
        assert stored.classes == drawn.classes and len(stored) == 12
        for index in (0, 7, -1):
            (image, one), (other_image, other) = drawn[index], stored[index]
            assert torch.equal(image, other_image)
            pairs = [(one[name], other[name]) for name in one] if target == "objects" else [(one, other)]
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    with pytest.raises(
        ConfigError, match="target: 'class' is not allowed for this store: must be labels, semantic, obj"
    ):
        StoredDataset(store, target="class")


def test_a_data_module_validates_the_target_that_it_trains(tmp_path: Path) -> None:
    stored = StoredDataset(generate(DATA, tmp_path / "store"), target="labels")
    module = FormulaDataModule(stored, {"held_out": 4, "crop": 64, "resize": 64})
    assert module.validation is not None
    assert target_of(module.train) == target_of(module.validation) == "labels"


def test_a_store_of_single_images_has_labels_only(tmp_path: Path) -> None:
    store = generate({"generator": "bezier", "categories": 2, "instances": 3, "canvas": {"size": 16}}, tmp_path / "s")
    assert StoredDataset(store).targets == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match="target: 'semantic' is not allowed for this store: must be class"):
        StoredDataset(store, target="semantic")


def test_a_store_of_several_parts_has_their_labels(tmp_path: Path) -> None:
    parts = [{**DATA["parts"][0], "instances": 3}, {**DATA["parts"][1], "instances": 2}]
    recipe = {"parts": parts, "canvas": {"size": 32}}
    stored, drawn = StoredDataset(generate(recipe, tmp_path / "store")), FormulaDataset(recipe)
    assert stored.targets == drawn.targets and stored.classes == drawn.classes
    for index in (0, 11, 12, 17):
        assert torch.equal(stored[index][0], drawn[index][0]) and stored[index][1] == drawn[index][1]


def test_targets_of_scenes_are_not_listed() -> None:
    assert not hasattr(FormulaDataset(DATA), "targets")


def test_parts_without_a_scene_have_their_own_numbers_of_instances() -> None:
    parts = [{**DATA["parts"][0], "instances": 3}, {**DATA["parts"][1], "instances": 2}]
    dataset = FormulaDataset({"parts": parts, "canvas": {"size": 32}})
    assert dataset.targets == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 2 + [5] * 2 + [6] * 2
    numbers = dataset.find_instances([(1, 2), (1, 13)], fresh=True)
    assert [one.tolist() for one in numbers] == [[0, 4], [0, 4], [2 + 2 * 3, 1 + 2 * 2]]
    held_out = dataset.held_out(1, fresh=False)
    assert len(held_out) == 7
    assert [one.tolist() for one in held_out.find_instances([(0, 0), (0, 6)], fresh=False)] == [[0, 6], [0, 6], [3, 2]]
    assert "18 images of 7 classes" in repr(dataset)
