"""What is known to fail at a run's end fails before its first step."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import formulavision as fv
from formulavision.training import Run, finetune, pretrain
from formulavision.training.fit import new_model
from formulavision.training.models import check_training, save_timm_model
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import ClassTask
from formulavision.util.errors import CheckpointError, ConfigError, FormulaVisionError

# Models whose layers share weights ------------------------------------------------------------------------------------


def test_a_model_whose_layers_share_weights_is_exported_and_loads_in_timm(tmp_path: Path) -> None:
    settings = TrainSettings(model="coat_tiny", crop=32, resize=36)
    model = new_model(settings, 4).eval()
    save_timm_model(model, tmp_path, settings=settings, class_names=list("abcd"))
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))


class Tied(torch.nn.Module):
    """A timm model, two layers of which have one weight, and a third that is a view of it."""

    def __new__(cls) -> Any:
        model: Any = timm.create_model("test_vit", num_classes=4, img_size=32)
        blocks = model.blocks
        blocks[1].mlp.fc1.weight = blocks[0].mlp.fc1.weight
        blocks[1].mlp.fc1.bias = torch.nn.Parameter(blocks[0].mlp.fc1.bias[:])
        return model


def test_a_run_of_a_model_whose_layers_share_weights_ends_well(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("formulavision.training.fit.build_model", lambda *a: Tied())
    settings = {**small, "model": "test_vit", "epochs": 1, "milestones": [], "ema": 0.5, "learning_rate": 0.01}
    run = pretrain(stripes(), out=tmp_path / "run", settings=settings, show_progress=False)
    state = load_file(run.folder / "model.safetensors")
    assert torch.equal(state["blocks.0.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])


# Models that cannot be trained ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "resnet81"}, "model: timm has no model 'resnet81'"),
        ({"model": "test_vit", "crop": 10, "resize": 10}, "crop: .test_vit. takes no 10-pixel images"),
    ],
)
def test_a_model_is_refused_before_data_are_searched_or_read(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError("data were opened")

    monkeypatch.setattr("formulavision.training.train.open_data", never)
    monkeypatch.setattr("formulavision.data.downstream.open_downstream", never)
    for train in (lambda **k: pretrain(fv.Recipe.from_dict({"generator": {"name": "perlin"}}), **k),
                  lambda **k: finetune(None, "digits", **k)):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            train(out=tmp_path / "run", settings={**small, **change}, show_progress=False)
    assert not (tmp_path / "run").exists()


class Twofold(torch.nn.Module):
    """Gives two heads' scores in training, as distilled models do, and one in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> Any:
        scores = self.head(images.mean((2, 3)))
        return (scores, scores) if self.training else scores


class Failing(Twofold):
    def forward(self, images: torch.Tensor) -> Any:
        raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")


class Few(Twofold):
    def forward(self, images: torch.Tensor) -> Any:
        return self.head(images.mean((2, 3)))[:, :2]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Twofold(), "gives tuple for two images, not scores of 4 classes"),
        (Few(), r"gives \[2, 2\] for two images"),
        (Failing(), "cannot be trained .mat1 and mat2 shapes cannot be multiplied."),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_before_its_first_step(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, told: str
) -> None:
    monkeypatch.setattr("formulavision.training.fit.build_model", lambda *a: model)
    with pytest.raises(ConfigError, match=f"^model: 'test_resnet' {told}"):
        pretrain(stripes(), out=tmp_path / "run", settings=small, show_progress=False)
    assert not (tmp_path / "run").exists()


def test_the_first_check_leaves_a_model_as_it_is(small: Any) -> None:
    settings = TrainSettings.model_validate(small)
    model = new_model(settings, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_training(model, settings, ClassTask(4))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("where", ["conv1.0.weight", "bn1.running_var"])
def test_weights_that_hold_nan_are_refused_before_training(
    small: Any, tmp_path: Path, value: float, where: str
) -> None:
    state = timm.create_model("test_resnet", num_classes=4).state_dict()
    state[where].view(-1)[3] = value
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"^.*weights\.pth: {where} holds NaN or infinite numbers"):
        finetune(tmp_path / "weights.pth", "digits", out=tmp_path / "run", settings=small, show_progress=False)
    assert not (tmp_path / "run").exists()


# The caller's random numbers ------------------------------------------------------------------------------------------


def random_states() -> list[bytes]:
    return [
        repr(random.getstate()).encode(),
        repr(np.random.get_state()).encode(),  # noqa: NPY002
        torch.get_rng_state().numpy().tobytes(),
    ]


def test_random_numbers_of_the_caller_are_left_alone(stripes: Any, small: Any, tmp_path: Path) -> None:
    from formulavision.data.downstream import DownstreamSettings

    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 4, "test_per_class": 2})
    recipe = fv.Recipe.from_dict({"generator": {"name": "perlin", "grid": 2}, "categories": 2, "instances": 2})
    settings = {**small, "epochs": 1, "milestones": [], "learning_rate": 0.01}
    seen = {name: small[name] for name in ("model", "resize", "crop", "device")}
    quiet: dict[str, Any] = {"show_progress": False}
    runs: dict[str, Run] = {}

    def train(name: str, run: Any) -> None:
        runs[name] = run

    calls: dict[str, Any] = {
        "new_model": lambda: new_model(TrainSettings.model_validate(small), 4),
        "pretrain": lambda: train(
            "pre", pretrain(stripes(), out=tmp_path / "pre", settings={**settings, **{"mixup": 0.5}}, **quiet)
        ),
        "clusters": lambda: pretrain(
            stripes(), out=tmp_path / "c", settings=settings, labels={"clusters": 3}, **quiet
        ),
        "finetune": lambda: train(
            "ft", finetune(runs["pre"].folder, digits, out=tmp_path / "ft", settings=settings, **quiet)
        ),
        "evaluate": lambda: fv.evaluate(runs["ft"].folder, digits, **quiet),
        "linear probe": lambda: fv.probe(runs["pre"].folder, digits, **quiet),
        "probe of new weights": lambda: fv.probe(
            None, digits, method="knn", settings=seen, out=tmp_path / "p", **quiet
        ),
        "load_checkpoint": lambda: fv.load_checkpoint(runs["pre"].folder),
        "export_model": lambda: fv.export_model(runs["ft"].folder, tmp_path / "export"),
        "first_layer_filters": lambda: fv.first_layer_filters(runs["pre"].folder),
        "label_noise": lambda: fv.label_noise(np.arange(9), 0.5, 9, seed=1),
        "generate": lambda: fv.generate(recipe, tmp_path / "store"),
        "deepcluster_labels": lambda: fv.deepcluster_labels(np.eye(9, dtype=np.float32), 3, seed=1),
    }  # fmt: skip
    changed = []
    for name, call in calls.items():
        torch.manual_seed(7)
        before = random_states()
        call()
        if random_states() != before:
            changed.append(name)
    assert changed == []


class Random:
    """Another image each time."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randint(256, (3, 32, 32), dtype=torch.uint8), index % 2


class RandomWithClasses(Random):
    classes = ("a", "b")
    num_classes = 2


@pytest.mark.parametrize("data", [Random(), RandomWithClasses()])
def test_images_that_differ_each_time_are_refused(small: Any, tmp_path: Path, data: Any) -> None:
    with pytest.raises(FormulaVisionError, match="item 0 differs when it is read again: leave random transforms"):
        pretrain(data, out=tmp_path / "run", settings=small, show_progress=False)
    assert not (tmp_path / "run").exists()
