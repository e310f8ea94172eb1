"""A user's own module is trained, resumed, fine-tuned, frozen and evaluated as a timm model is."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from cases import slow
from comparing_runs import comparable, die_after, same, weights
from pair import Pair
from safetensors.torch import load_file
from torch import nn

import formulavision as fv
from formulavision.training import Run, TrainSettings, finetune, load_checkpoint, pretrain
from formulavision.util.errors import CheckpointError, ConfigError

EVERY_STEP = {"checkpoint_minutes": 0}
DIGITS: Any = {"kind": "digits", "train_per_class": 4, "test_per_class": 2}


class Net(nn.Module):
    """Two convolutions and a head, with random numbers of three kinds in training."""

    def __init__(self, classes: int = 4, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Conv2d(width, width, 3, 2)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(x)).mean((2, 3))
        if self.training:
            x = self.drop(x) * (1 + 0.1 * random.random() + 0.1 * np.random.rand())  # noqa: NPY002
        return self.head(x)


@pytest.fixture
def own(small: Any) -> dict[str, Any]:
    return {name: value for name, value in small.items() if name != "model"}


def net(classes: int = 4, seed: int = 3) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(classes)


# Training and resuming ------------------------------------------------------------------------------------------------


def test_a_module_is_trained_from_its_own_weights_and_left_as_it_is(stripes: Any, own: Any, tmp_path: Path) -> None:
    module = net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run = pretrain(stripes(), out=tmp_path / "run", model=module, settings=own, show_progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    trained = load_file(run.folder / "model.safetensors")
    assert trained.keys() == before.keys() and not torch.equal(trained["body.weight"], before["body.weight"])
    again = pretrain(stripes(), out=tmp_path / "again", model=module, settings=own, show_progress=False)
    assert same(again.folder, run.folder)
    run.load_into(module)
    assert all(torch.equal(trained[name], tensor) for name, tensor in module.state_dict().items())
    with pytest.raises(ConfigError, match=r"model: head\.weight is not as in .*model\.safetensors"):
        run.load_into(net(5))
    assert run.settings["settings"]["model"] == "Net" and run.settings["module"]["class"] == "Net"
    assert not (run.folder / "config.json").exists()
    card = (run.folder / "README.md").read_text()
    assert "model = Net(...)" in card and "timm alone" not in card
    assert repr(run) == f"Run('{run.folder}', pretrain, Net, 2 epochs, accuracy {run.final['train_accuracy']:.2%} on " \
        "training images)"  # fmt: skip


@pytest.mark.parametrize("stops", [[2], [1, 1, 1], *slow([1], [3])], ids=str)
@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "optimizer": "adamw", "learning_rate": 0.001}], ids=["sgd", "ema"])
def test_a_run_of_a_module_resumes_exactly(
    stripes: Any, own: Any, tmp_path: Path, stops: list[int], more: dict[str, Any]
) -> None:
    settings = {**own, **EVERY_STEP, **more}
    whole = pretrain(stripes(), out=tmp_path / "whole", model=net(), settings=settings, show_progress=False)
    for i, step in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(step, patch)
            # Its weights count in a new run only.
            module = net(seed=3 + i)
            pretrain(
                stripes(), out=tmp_path / "run", model=module, settings=settings, resume=i > 0, show_progress=False
            )
    run = pretrain(stripes(), out=tmp_path / "run", model=net(seed=9), resume=True, show_progress=False)
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


class Other(Net):
    pass


def test_another_module_than_the_runs_is_refused(stripes: Any, own: Any, small: Any, tmp_path: Path) -> None:
    frozen = net()
    frozen.body.requires_grad_(False)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        pretrain(stripes(), out=tmp_path / "run", model=net(), settings={**own, **EVERY_STEP}, show_progress=False)
    told = {
        None: "model: is missing: the run was started with a module of your own, Net: give it again",
        "resnet18": "resume: settings.model is resnet18 and was Net",
        Other(): "resume: model is another Other than the run's Net",
        net(5): "resume: model is another Net than the run's Net: class, and names, shapes",
        frozen: "requires_grad of all tensors must be equal",
    }
    for model, message in told.items():
        with pytest.raises(ConfigError, match=message):
            pretrain(stripes(), out=tmp_path / "run", model=model, resume=True, show_progress=False)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        pretrain(stripes(), out=tmp_path / "timm", settings={**small, **EVERY_STEP}, show_progress=False)
    with pytest.raises(ConfigError, match="resume: model is a Net and was timm's test_resnet in the run"):
        pretrain(stripes(), out=tmp_path / "timm", model=net(), resume=True, show_progress=False)


def test_the_name_of_a_timm_model_may_be_given_as_model(
    stripes: Any, own: Any, pretrained: Run, tmp_path: Path
) -> None:
    run = pretrain(stripes(), out=tmp_path / "run", model="test_resnet", settings=own, show_progress=False)
    assert same(run.folder, pretrained.folder)
    for settings in ({**own, "model": "resnet18"}, TrainSettings(**own, model="resnet18")):
        for model in ("test_resnet", net()):
            with pytest.raises(ConfigError, match="model: is given twice: leave out 'resnet18' in settings"):
                pretrain(stripes(), out=tmp_path / "new", model=model, settings=settings, show_progress=False)


@pytest.mark.slow
def test_two_processes_train_a_module_as_one_does(pair: Pair, stripes: Any, own: Any, tmp_path: Path) -> None:
    settings = {**own, "learning_rate": 0.01}
    one = pretrain(stripes(), out=tmp_path / "one", model=Plain(), settings=settings, show_progress=False)
    two = pair(pretrain, stripes(), out=tmp_path / "two", model=Plain(), settings=settings, show_progress=False)
    assert [row["train_loss"] for row in two.history] == pytest.approx([row["train_loss"] for row in one.history], 1e-4)


class Plain(nn.Module):
    """Nothing random, with batch normalisation of vectors."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.Sequential(
                nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU(), nn.Linear(8, 4)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Viewed(nn.Module):
    """Takes a convolution's output as one piece of memory."""

    def __init__(self, size: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, size, stride)
        self.head = nn.LazyLinear(4)
        self(torch.zeros(1, 3, 32, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head(x.view(len(x), -1))


class Deep(nn.Module):
    """Its weights have five dimensions, for which there is no channels-last format of images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3)
        self.head = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x[:, None]).mean((2, 3, 4)))


@pytest.mark.parametrize(
    "make", [Viewed, lambda: Viewed(8, 8), lambda: Viewed(31, 1), Deep], ids=["conv", "patches", "small map", "3d"]
)
def test_a_module_gets_contiguous_images_and_keeps_its_convolutions(
    stripes: Any, own: Any, tmp_path: Path, make: Any
) -> None:
    settings = {**own, "epochs": 1, "milestones": []}
    pretrain(stripes(), out=tmp_path / "pre", model=make(), settings=settings, show_progress=False)
    arguments: dict[str, Any] = {"settings": settings, "show_progress": False}
    run = finetune(None, (stripes(), stripes(24)), out=tmp_path / "tuned", model=make(), **arguments)
    assert run.final["validation_accuracy"] is not None


@pytest.mark.parametrize(("make", "told"), [(Viewed, "view size is not compatible"), (Deep, "required rank 4 tensor")])
def test_a_module_that_cannot_be_trained_in_the_channels_last_format_is_refused_before_work(
    stripes: Any, own: Any, tmp_path: Path, make: Any, told: str
) -> None:
    settings = {**own, "channels_last": True}
    with pytest.raises(ConfigError, match=f"^model: '{make.__name__}' cannot be trained .{told}"):
        pretrain(stripes(), out=tmp_path / "run", model=make(), settings=settings, show_progress=False)
    assert not (tmp_path / "run").exists()


# What cannot be trained -----------------------------------------------------------------------------------------------


class Shaped(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x)[None]


class Dict(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return {"logits": super().forward(x)}


class DifferentLater(Net):
    def forward(self, x: torch.Tensor) -> Any:
        logits = super().forward(x)
        return logits if self.training else logits.argmax(1)


class Failing(Net):
    def forward(self, x: torch.Tensor) -> Any:
        raise KeyError("position\nembedding")


class Stateful(Net):
    def get_extra_state(self) -> Any:
        return {"epoch": 3}


class NoCopy(Net):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle 'generator' object")


def without_training() -> nn.Module:
    return net().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: net(7), r"'Net' gives \[2, 7\] for two images, not scores of 4 classes"),
        (Shaped, r"'Shaped' gives \[1, 2, 4\] for two images"),
        (Dict, "'Dict' gives dict for two images"),
        (DifferentLater, r"'DifferentLater' gives \[2\] for two images"),
        (Failing, "'Failing' cannot be trained .'position.nembedding'"),
        (nn.Flatten, "Flatten has no parameter to train"),
        (without_training, "Net has no parameter to train: at least one must have requires_grad=True"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "Sequential has tensors without values"),
        (lambda: net().to("meta"), "Net has tensors without values"),
        (lambda: net().double(), "'Net' cannot be trained"),
        (Stateful, "_extra_state of Stateful must be a dense tensor"),
        (NoCopy, "NoCopy cannot be copied by copy.deepcopy .cannot pickle 'generator' object"),
        (lambda: Net, "a type is not allowed: must be the name of a timm model or a torch.nn.Module"),
        (lambda: 18, "a int is not allowed"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused_before_work(
    stripes: Any, own: Any, tmp_path: Path, make: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^model: {told}"):
        pretrain(stripes(), out=tmp_path / "run", model=make(), settings=own, show_progress=False)
    assert not (tmp_path / "run").exists()


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Hooked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.after = lambda x: x


@pytest.mark.parametrize(
    ("make", "told"),
    [(Unused, "spare.weight of 'Unused' gets no gradient"), (Hooked, "cannot be sent to other processes")],
)
def test_a_module_that_several_processes_cannot_train_is_refused(
    stripes: Any, own: Any, tmp_path: Path, make: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^model: {told}"):
        pretrain(stripes(), out=tmp_path / "run", model=make(), settings={**own, "devices": 2}, show_progress=False)
    pretrain(stripes(), out=tmp_path / "one", model=make(), settings={**own, "epochs": 1}, show_progress=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"labels": {"clusters": 3}}, "labels.clusters: the model must be one of timm"),
        ({"settings": {"drop_path": 0.1}}, "drop_path: must be 0: Net has its own stochastic depth"),
    ],
)
def test_settings_that_need_a_timm_model_are_refused(
    stripes: Any, own: Any, tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    settings = {**own, **arguments.pop("settings", {})}
    with pytest.raises(ConfigError, match=f"^{told}"):
        pretrain(stripes(), out=tmp_path / "run", model=net(), settings=settings, show_progress=False, **arguments)


def test_an_object_of_timm_may_be_clustered(stripes: Any, own: Any, tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    settings = {**own, "epochs": 1, "learning_rate": 0.01}
    run = pretrain(
        stripes(), out=tmp_path / "run", model=model, labels={"clusters": 3}, settings=settings, show_progress=False
    )
    assert run.classes == ["cluster 0", "cluster 1", "cluster 2"]


# Fine-tuning and freezing ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(stripes: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {name: value for name, value in small.items() if name != "model"}
    out = tmp_path_factory.mktemp("own") / "run"
    return pretrain(stripes(), out=out, model=net(), settings=settings, show_progress=False)


def tuned(source: Run, out: Path, own: Any, **arguments: Any) -> Run:
    settings = {**own, "epochs": 1, "milestones": [], "learning_rate": 1e-9, **EVERY_STEP}
    return finetune(source.folder, DIGITS, out=out, settings=settings, show_progress=False, **arguments)


def test_fine_tuning_loads_what_fits_and_makes_the_head_anew(
    source: Run, own: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = net(10, seed=5)
    run = tuned(source, tmp_path / "run", own, model=module)
    before, after = weights(source.folder), weights(run.folder)
    assert torch.allclose(after["body.weight"], before["body.weight"], atol=1e-6)
    assert torch.allclose(after["head.weight"], module.head.weight, atol=1e-6)
    loaded = load_checkpoint(source.folder).load_into(net(10))
    assert loaded.skipped == ["head.weight", "head.bias"] and loaded.missing == []
    wide = Net(10, width=9)
    with pytest.raises(CheckpointError, match="these are the weights of another architecture than the requested Net"):
        tuned(source, tmp_path / "wide", own, model=wide)
    with pytest.raises(ConfigError, match=r"model: .* was trained with a module of your own, Net: give"):
        tuned(source, tmp_path / "missing", own)


@pytest.mark.parametrize(
    ("spec", "frozen"), [("stem", ["stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"]),
                         ("body.weight, stem.0", ["stem.0.weight", "stem.0.bias", "body.weight"])],
)  # fmt: skip
def test_parts_of_a_module_are_frozen_by_name(
    source: Run, own: Any, tmp_path: Path, spec: str, frozen: list[str]
) -> None:
    settings = {**own, "epochs": 1, "milestones": [], "learning_rate": 0.1}
    arguments: dict[str, Any] = {"freeze": spec, "settings": settings, "show_progress": False}
    run = finetune(source.folder, DIGITS, out=tmp_path / "run", model=net(10), **arguments)
    assert run.frozen == frozen and run.settings["freeze"] == spec
    before, after = weights(source.folder), weights(run.folder)
    for name in before:
        if not name.startswith(("head", "stem.1")):
            assert torch.equal(after[name], before[name]) == (name in frozen), name
    assert torch.equal(after["stem.1.running_mean"], before["stem.1.running_mean"]) == (spec == "stem")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        arguments["settings"] = {**settings, **EVERY_STEP}
        finetune(source.folder, DIGITS, out=tmp_path / "killed", model=net(10), **arguments)
    again = finetune(out=tmp_path / "killed", model=net(10, seed=8), resume=True, show_progress=False)
    assert same(again.folder, run.folder) and again.frozen == frozen


def test_parameters_that_the_user_froze_stay_frozen(stripes: Any, own: Any, tmp_path: Path) -> None:
    module = net()
    module.stem.requires_grad_(False).eval()
    run = pretrain(stripes(), out=tmp_path / "run", model=module, settings=own, show_progress=False)
    assert run.frozen == ["stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"]
    assert all(
        torch.equal(weights(run.folder)[f"stem.{name}"], value) for name, value in module.stem.state_dict().items()
    )


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("stam", "the model has no part 'stam' .did you mean 'stem'.*: it has stem, body, head"),
        ("conv1-3", "the model has no part 'conv1-3': it has stem"),
        ("stem,body,head", "'stem,body,head' leaves no parameter to train"),
        ("stem,", "the model has no part ''"),
    ],
)
def test_parts_that_a_module_does_not_have_are_refused(
    source: Run, own: Any, tmp_path: Path, spec: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^freeze: {told}"):
        tuned(source, tmp_path / "run", own, model=net(10), freeze=spec)
    assert not (tmp_path / "run").exists()


# Evaluation and export ------------------------------------------------------------------------------------------------


def test_a_run_of_a_module_is_evaluated_with_the_module(source: Run, own: Any, tmp_path: Path) -> None:
    settings = {**own, "milestones": [], "learning_rate": 0.01}
    module = net(10)
    run = finetune(source.folder, DIGITS, out=tmp_path / "run", model=module, settings=settings, show_progress=False)
    before = module.body.weight.clone()
    result = fv.evaluate(run.folder, DIGITS, model=module, show_progress=False)
    assert result.top1 == pytest.approx(run.final["validation_accuracy"])
    assert torch.equal(before, module.body.weight)
    refused = "was trained with a module of your own, Net"
    for call in (
        lambda: fv.evaluate(run.folder, DIGITS, show_progress=False),
        lambda: fv.grad_cam(run.folder, torch.zeros(1, 3, 32, 32, dtype=torch.uint8)),
        lambda: fv.probe(run.folder, DIGITS, show_progress=False),
        lambda: fv.export_model(run.folder, tmp_path / "export"),
    ):
        with pytest.raises((CheckpointError, ConfigError), match=refused):
            call()
    with pytest.raises(ConfigError, match=r"model: head\.weight is not as in"):
        fv.evaluate(run.folder, DIGITS, model=net(3), show_progress=False)


def test_public_objects_say_what_they_are(source: Run) -> None:
    checkpoint = load_checkpoint(source.folder)
    assert repr(checkpoint) == f"Checkpoint('{source.folder}', unknown model, 11 tensors)"
    assert repr(TrainSettings(epochs=3, crop=32)) == "TrainSettings(epochs=3, crop=32)"
    assert repr(TrainSettings(resize=300)) == "TrainSettings(resize=300)"
    assert repr(checkpoint.load_into(net())) == "Loaded(11 tensors loaded)"
