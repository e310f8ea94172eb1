"""Pre-training on scenes of several objects: the target follows from the recipe, or from the settings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from comparing_runs import comparable, same, stopped_and_resumed
from safetensors.torch import load_file

import formulavision as fv
from formulavision.training import pretrain
from formulavision.util.errors import ConfigError

SCENES: dict[str, Any] = {
    "parts": [
        {"generator": {"name": "perlin"}, "categories": 3, "object": "fill"},
        {"generator": {"name": "bezier"}, "categories": 2},
    ],
    "scene": {"objects": [1, 4]},
    "images": 24,
    "canvas": {"size": 64},
}


@pytest.fixture
def settings(small: Any) -> dict[str, Any]:
    return {**small, "held_out": 7, "batch_size": 8, "learning_rate": 0.01}


@pytest.mark.parametrize("target", [None, "labels", *slow("semantic")])
def test_a_model_learns_the_target_of_scenes(settings: Any, tmp_path: Path, target: str | None) -> None:
    given = {**settings, **({"target": target} if target else {})}
    run = pretrain(SCENES, out=tmp_path / "run", settings=given, show_progress=False)
    assert run.target == (target or "semantic")
    score = "map" if target == "labels" else "miou"
    assert 0 <= run.final[f"validation_{score}"] <= 1  # type: ignore[operator]
    assert (run.classes[0] == "background") == (target != "labels") and len(run.classes) == 5 + (target != "labels")
    assert "drawn by 'perlin' and 'bezier'" in (run.folder / "README.md").read_text()
    again = pretrain(out=tmp_path / "run", resume=True, show_progress=False)
    assert again == run


@pytest.mark.parametrize(("target", "labels"), [("semantic", None), *slow(("labels", {"noise": 0.5}))], ids=str)
@pytest.mark.slow
def test_scenes_are_the_same_from_a_recipe_and_a_store_and_with_any_number_of_workers(
    settings: Any, tmp_path: Path, target: str, labels: Any
) -> None:
    store = fv.generate(SCENES, tmp_path / "store")
    given = {**settings, "target": target, "fresh": False, "epochs": 1, "milestones": []}
    runs = [
        pretrain(data, out=tmp_path / str(i), labels=labels, settings={**given, "workers": workers},
                 show_progress=False)
        for i, (data, workers) in enumerate(((SCENES, 0), (SCENES, 2), (store, 0)))
    ]  # fmt: skip
    assert same(runs[0].folder, runs[1].folder) and same(runs[0].folder, runs[2].folder)
    assert comparable(runs[0]) == comparable(runs[1]) == comparable(runs[2])


@pytest.mark.slow
def test_fresh_scenes_with_noise_resume_exactly(settings: Any, tmp_path: Path) -> None:
    given = {**settings, "checkpoint_minutes": 0, "workers": 0}
    whole = pretrain(
        SCENES, out=tmp_path / "whole", labels={"noise": 0.5}, settings={**given, "workers": 2}, show_progress=False
    )
    plain = pretrain(SCENES, out=tmp_path / "plain", settings=given, show_progress=False)
    run = stopped_and_resumed(SCENES, tmp_path / "run", given, [4], labels={"noise": 0.5})
    assert same(run.folder, whole.folder) and comparable(run) == comparable(whole)
    assert not same(run.folder, plain.folder)


def test_scenes_of_one_object_may_have_one_class(settings: Any, tmp_path: Path) -> None:
    recipe = {**SCENES, "scene": {"objects": 1}, "target": "class"}
    run = pretrain(recipe, out=tmp_path / "run", settings=settings, show_progress=False)
    assert run.target == "class" and run.final["validation_accuracy"] is not None
    # Of a store, whose recipe has another target.
    store = fv.generate({**recipe, "target": "semantic"}, tmp_path / "store")
    given = {**settings, "target": "class", "held_out": 0}
    run = pretrain(store, out=tmp_path / "stored", settings=given, show_progress=False)
    assert run.final["train_accuracy"] is not None and "fc.weight" in load_file(run.folder / "model.safetensors")
    assert pretrain(out=tmp_path / "stored", resume=True, show_progress=False) == run


@pytest.mark.parametrize(
    ("given", "labels", "told"),
    [
        ({"target": "objects"}, None, "target: 'objects' is not allowed: .*see docs/detection.md"),
        ({"target": "class"}, None, "target: class is not allowed with scenes of several objects"),
        ({"target": "labels", "decoder": "unet"}, None, "decoder: must be unset for the target 'labels'"),
        ({"decoder": "dpt"}, None, "decoder: 'dpt' is for plain vision transformers"),
        ({"crop": 33}, None, "crop: 33 is not a multiple of 32"),
        ({"held_out": 0}, {"clusters": 3}, "labels.clusters: the images are scenes of several objects"),
        ({"target": "labels", "held_out": 0}, {"clusters": 3}, "labels.clusters: the images are scenes"),
    ],
)
def test_settings_that_do_not_fit_scenes_are_refused_before_categories_are_searched(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, labels: Any, told: str
) -> None:
    if labels is None:

        def never(*arguments: Any, **named: Any) -> None:
            raise AssertionError("categories were searched")

        monkeypatch.setattr("formulavision.data.datasets.Drawer", never)
    with pytest.raises(ConfigError, match=told):
        pretrain(SCENES, out=tmp_path / "run", labels=labels, settings={**settings, **given}, show_progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("target", ["labels", "semantic"])
def test_images_without_scenes_have_one_class_each(settings: Any, tmp_path: Path, target: str) -> None:
    with pytest.raises(ConfigError, match=f"target: {target} is not allowed"):
        pretrain("perlin", out=tmp_path / "run", settings={**settings, "target": target}, show_progress=False)


def test_batches_of_scenes_for_a_trainer_of_the_users_own(settings: Any, tmp_path: Path) -> None:
    import lightning.pytorch as lightning

    data = fv.FormulaDataModule(SCENES, {**settings, "target": "semantic", "held_out": 0})
    seen: list[Any] = []

    class Looking(lightning.LightningModule):
        def training_step(self, batch: Any, step: int) -> None:
            seen.append(batch)

        def configure_optimizers(self) -> None:
            return None

    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, default_root_dir=tmp_path, enable_checkpointing=False,
        **quiet,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Looking(), data)
    images, masks = seen[0]
    assert images.dtype == torch.float32 and (masks.dtype, masks.shape) == (torch.uint8, (8, 32, 32))
    assert data.classes[0] == "background" and data.task.target == "semantic"
    with pytest.raises(ConfigError, match="target: 'objects' is not allowed"):
        fv.FormulaDataModule(SCENES, {**settings, "target": "objects"})
