"""What ``pretrain`` and ``finetune`` take: recipes in any form, stores, and datasets of Python programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import FakeData

from formulavision import (
    FormulaDataset,
    Recipe,
    Store,
    StoredDataset,
    evaluate,
    export_model,
    finetune,
    first_layer_filters,
    generate,
    grad_cam_sheet,
    load_checkpoint,
    pretrain,
    probe,
    verify,
)
from formulavision.util.errors import ConfigError

RECIPE = {"generator": {"name": "perlin", "grid": 2}, "instances": 4, "canvas": {"size": 32, "padding": 0}}
FAKE = FakeData(24, (3, 32, 32), 3, random_offset=1)


@pytest.fixture(scope="module")
def one_epoch(small: dict[str, Any]) -> dict[str, Any]:
    return {**small, "epochs": 1, "milestones": [], "batch_size": 8}


def settings_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "settings.yaml").read_text())
    return found


def test_pretrain_takes_a_recipe_in_any_form_and_a_store(one_epoch: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe.from_dict(RECIPE)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    store = generate(recipe, tmp_path / "store")
    for i, data in enumerate((RECIPE, str(tmp_path / "recipe.yaml"), tmp_path / "store", store)):
        run = pretrain(data, out=tmp_path / f"run{i}", settings=one_epoch, show_progress=False)
        assert settings_of(run.folder)["data"]["images"] == len(recipe)
        assert settings_of(run.folder)["data"]["recipe"]["generator"]["grid"] == 2
    assert isinstance(store, Store)


def test_both_take_torchs_datasets(one_epoch: dict[str, Any], tmp_path: Path) -> None:
    run = pretrain(FAKE, out=tmp_path / "pre", settings=one_epoch, show_progress=False)
    found = settings_of(run.folder)["data"]
    assert (found["images"], found["classes"], len(found["digest"])) == (24, 3, 16)
    pair = (Subset(FAKE, range(16)), Subset(FAKE, range(16, 24)))
    for i, data in enumerate((pair, FAKE)):
        tuned = finetune(tmp_path / "pre", data, out=tmp_path / f"ft{i}", settings=one_epoch, show_progress=False)
        told = settings_of(tuned.folder)["downstream"]
        assert (told["train_images"] + told["test_images"], told["kind"]) == (24, "python")
    probe(tmp_path / "pre", FAKE, method="knn", out=tmp_path / "knn")
    with pytest.raises(ConfigError, match="digest"):
        other = FakeData(24, (3, 32, 32), 3, random_offset=2)
        pretrain(other, out=tmp_path / "pre", settings=one_epoch, resume=True, show_progress=False)


def test_what_a_function_returns_is_taken_by_the_next(one_epoch: dict[str, Any], tmp_path: Path) -> None:
    """Recipe, store, run, fine-tuned run, and the datasets of a program, without a path in between."""
    pair = (Subset(FAKE, range(16)), Subset(FAKE, range(16, 24)))
    store = generate(RECIPE, tmp_path / "store")
    run = pretrain(store, out=tmp_path / "run", settings=one_epoch, show_progress=False)
    tuned = finetune(run, pair, out=tmp_path / "tuned", settings=one_epoch, show_progress=False)
    assert settings_of(tuned.folder)["checkpoint"]["name"] == str(run.folder)
    assert evaluate(tuned, pair, show_progress=False).images == 8
    assert probe(run, pair, method="knn", show_progress=False).folder == run.folder / "knn-python"
    assert grad_cam_sheet({"mine": tuned}, pair, count=2).width > 32
    assert first_layer_filters(run).width > 0
    assert load_checkpoint(tuned).run == tuned
    assert export_model(tuned, tmp_path / "exported").is_dir()
    verification = verify(StoredDataset(store).store)
    assert verification.ok


def test_a_formula_driven_dataset_is_pretrained_on_as_its_recipe(one_epoch: dict[str, Any], tmp_path: Path) -> None:
    runs = [
        pretrain(data, out=tmp_path / f"run{i}", settings=one_epoch, show_progress=False)
        for i, data in enumerate((RECIPE, FormulaDataset(RECIPE)))
    ]
    assert runs[0].weights_sha256 == runs[1].weights_sha256
    whole = FormulaDataset(RECIPE)
    part = pretrain(Subset(whole, range(8)), out=tmp_path / "part", settings=one_epoch, show_progress=False)
    assert part.classes == whole.classes


@pytest.mark.parametrize("data", [3, object(), {1, 2}, Image.new("L", (8, 8)), 0.5])
def test_anything_else_is_refused_by_its_type(data: Any, one_epoch: dict[str, Any], tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: pretrain(data, out=tmp_path / "run", settings=one_epoch, show_progress=False),
        lambda: finetune(None, data, out=tmp_path / "run", settings=one_epoch, show_progress=False),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=f"a {type(data).__name__} is not allowed"):
            call()
    assert not (tmp_path / "run").exists()


def test_images_without_labels_are_no_dataset(one_epoch: dict[str, Any], tmp_path: Path) -> None:
    from formulavision.util.errors import DownstreamError

    with pytest.raises(DownstreamError, match="an item must be"):
        pretrain(np.zeros((4, 8, 8)), out=tmp_path / "run", settings=one_epoch, show_progress=False)
    assert not (tmp_path / "run").exists()
