"""Segmentation: timm's encoders under decoders of segmentation-models-pytorch, and runs of them."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from cases import slow
from comparing_runs import comparable, same, stopped_and_resumed
from safetensors.torch import load_file, save_file
from striped_images import Squares, Stripes, write_squares

from formulavision.training import Run, TrainSettings, export_model, finetune, freeze, load_checkpoint, pretrain
from formulavision.training.models import build_model
from formulavision.training.optimization import make_optimizer
from formulavision.training.segmentation import SegmentationModel
from formulavision.util.errors import ConfigError

LIBRARY: Any = {"fpn": smp.FPN, "unet": smp.Unet, "upernet": smp.UPerNet, "dpt": smp.DPT}


def built(name: str, decoder: str, crop: int = 64, classes: int = 5) -> SegmentationModel:
    settings = TrainSettings.model_validate({"model": name, "decoder": decoder, "target": "semantic", "crop": crop})
    model = build_model(settings, classes)
    assert isinstance(model, SegmentationModel)
    return model


def sized(name: str) -> Any:
    """Arguments of timm for images of 64 pixels."""
    return {"img_size": 64} if timm.models.get_pretrained_cfg_value(name, "fixed_input_size") else {}


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        *(("test_resnet", decoder) for decoder in ("fpn", "unet", "upernet")),
        *(("test_convnext", decoder) for decoder in ("fpn", "unet", "upernet")),
        ("pvt_v2_b0", "unet"),
        ("dla34", "unet"),
        ("test_vit", "dpt"),
        *slow(
            ("swin_tiny_patch4_window7_224", "upernet"),
            ("mobilenetv3_small_050", "fpn"),
            ("deit_tiny_distilled_patch16_224", "dpt"),
        ),
    ],
)
def test_a_model_is_that_of_the_library(name: str, decoder: str) -> None:
    ours = built(name, decoder).eval()
    theirs = LIBRARY[decoder](f"tu-{name}", encoder_weights=None, classes=5, **sized(name))
    # The library's encoders have timm's names with a prefix, and with "_" for some dots.
    names = {key.replace(".", "_"): key for key in theirs.state_dict()}
    state = ours.state_dict()
    found = {key.replace("encoder.", "encoder.model.", 1).replace(".", "_"): key for key in state}
    heads = {key for key in names if key.startswith(("encoder_model_head_", "encoder_model_head_dist"))}
    assert names.keys() - heads <= found.keys()
    theirs.load_state_dict({names[key]: state[found[key]] for key in names.keys() - heads}, strict=not heads)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(theirs.eval()(images), ours(images))


BACKBONES = [
    ("resnet18", "fpn"),
    ("convnext_atto", "upernet"),
    ("mobilenetv3_small_100", "unet"),
    ("vit_tiny_patch16_224", "dpt"),
    *slow(("resnet50", "unet"), ("swin_tiny_patch4_window7_224", "fpn"), ("deit_tiny_patch16_224", "dpt")),
]


@pytest.mark.parametrize(("name", "decoder"), BACKBONES)
@pytest.mark.slow
def test_all_tensors_of_an_encoder_go_to_a_segmentation_model_and_back(name: str, decoder: str, tmp_path: Path) -> None:
    plain: Any = timm.create_model(name, num_classes=7, **sized(name))
    with torch.no_grad():
        for number, tensor in enumerate(plain.state_dict().values()):
            tensor.fill_(number % 100)
    before = plain.state_dict()
    head = {f"{layer}.{kind}" for layer in (plain.pretrained_cfg["classifier"],) for kind in ("weight", "bias")}
    save_file(before, tmp_path / "class.safetensors")
    model = built(name, decoder)
    kept = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("encoder.")}
    loaded = load_checkpoint(tmp_path / "class.safetensors").load_into(model)
    state = model.state_dict()
    assert {key for key in before if f"encoder.{key}" not in state} == head == set(loaded.skipped)
    assert all(torch.equal(state[f"encoder.{key}"], value) for key, value in before.items() if key not in head)
    assert all(torch.equal(state[key], value) for key, value in kept.items()), "decoder and head keep their own"

    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "masks.safetensors")
    again = timm.create_model(name, num_classes=3, **sized(name))
    loaded = load_checkpoint(tmp_path / "masks.safetensors").load_into(again)
    assert not loaded.missing and loaded.place == "encoder"
    after = again.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if key not in head)
    other = built(name, decoder, classes=2)
    load_checkpoint(tmp_path / "masks.safetensors").load_into(other)
    assert all(torch.equal(other.state_dict()[f"encoder.{key}"], before[key]) for key in before if key not in head)


def test_layers_of_the_encoder_that_no_decoder_uses_are_not_trained() -> None:
    model = built("test_vit", "dpt")
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "encoder.norm.weight",
        "encoder.norm.bias",
    ]
    assert all(p.requires_grad for p in built("test_resnet", "fpn").parameters())


def test_adamw_decays_the_parameters_of_an_encoder_as_timm_does() -> None:
    model = built("test_vit", "dpt")
    groups = make_optimizer(
        model, TrainSettings.model_validate({"optimizer": "adamw", "weight_decay": 0.1})
    ).param_groups
    kept = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    decayed = {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in kept}
    assert not decayed & {"encoder.pos_embed", "encoder.cls_token"} and "encoder.blocks.0.attn.qkv.weight" in decayed


@pytest.mark.parametrize(
    ("name", "decoder", "spec"),
    [
        ("test_resnet", "fpn", "conv1-3"),
        ("test_resnet", "unet", "stage1-2"),
        ("test_vit", "dpt", "stage1-3"),
        ("test_convnext", "upernet", "stage1-5"),
    ],
)
def test_frozen_layers_are_the_encoders_by_the_same_words(name: str, decoder: str, spec: str) -> None:
    model = built(name, decoder)
    expected = freeze(timm.create_model(name, num_classes=4, **sized(name)), spec)
    assert freeze(model, spec) == [f"encoder.{layer}" for layer in expected] != []
    last = timm.create_model(name, num_classes=4, **sized(name))
    with pytest.raises(ConfigError) as plain:
        freeze(last, "stage1-99")
    with pytest.raises(ConfigError) as ours:
        freeze(model, "stage1-99")
    assert str(ours.value) == str(plain.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"model": "test_vit", "decoder": "fpn"},
            "decoder: 'fpn' needs feature maps of several sizes: 'test_vit' ",
        ),
        ({"model": "test_vit"}, "decoder: 'fpn' needs feature maps of several sizes: 'test_vit' needs dpt"),
        ({"model": "test_resnet", "decoder": "dpt"}, "decoder: 'dpt' is for plain vision transformers: 'test_resnet' "),
        ({"model": "levit_128", "decoder": "unet"}, "decoder: 'unet' does not fit 'levit_128', whose .* 16, 32, 64"),
        ({"model": "test_resnet", "crop": 40}, "crop: 40 is not a multiple of 32, .*as 'fpn' needs it: take 32 or 64"),
        ({"model": "test_resnet", "crop": 20}, "crop: 20 is not a multiple of 32, .*: take 32$"),
        (
            {"model": "eva02_tiny_patch14_224", "decoder": "dpt", "crop": 56},
            "decoder: 'dpt' does not fit 'eva02_tiny_",
        ),
        ({"model": "xcit_nano_12_p16_224", "decoder": "dpt"}, "decoder: 'dpt' does not fit 'xcit_nano_12_p16_224' at"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_before_the_work(
    small: Any, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    given = {**small, "crop": 64, "resize": 64, **settings}
    with pytest.raises(ConfigError, match=f"^{told}"):
        pretrain(Squares(), out=tmp_path / "run", settings=given, show_progress=False)
    assert not (tmp_path / "run").exists()


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("squares")
    write_squares(root)
    return root


@pytest.fixture(scope="module")
def segmented(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {**small, "epochs": 3, "milestones": [], "batch_size": 8, "learning_rate": 0.02}
    return pretrain(Squares(), out=tmp_path_factory.mktemp("runs") / "masks", settings=settings, show_progress=False)


def test_a_run_on_masks_tells_miou_and_pixel_accuracy(segmented: Run) -> None:
    assert segmented.history[-1]["train_loss"] < segmented.history[0]["train_loss"]  # type: ignore[operator]
    assert segmented.target == "semantic" and segmented.settings["settings"]["decoder"] == "fpn"
    with (segmented.folder / "metrics.csv").open() as stream:
        assert next(csv.reader(stream))[1:7] == [
            *("train_loss", "train_miou", "train_pixel_accuracy"),
            *("validation_loss", "validation_miou", "validation_pixel_accuracy"),
        ]
    assert f"mIoU {segmented.final['train_miou']:.2%} on training images" in repr(segmented)
    log = (segmented.folder / "logs" / "log.txt").read_text()
    assert (
        f"mIoU {segmented.final['train_miou']:.2%}  pixel accuracy {segmented.final['train_pixel_accuracy']:.2%}" in log
    )


def test_the_encoders_weights_go_from_any_task_to_any_other(
    pretrained: Run, segmented: Run, folder: Path, small: Any, tmp_path: Path
) -> None:
    settings = {name: value for name, value in small.items() if name != "model"} | {"epochs": 1, "milestones": []}
    arguments: dict[str, Any] = {"settings": settings, "freeze": "conv1-5", "show_progress": False}
    masks = finetune(pretrained.folder, folder, out=tmp_path / "masks", **arguments)
    digits: Any = {"kind": "digits", "train_per_class": 4, "test_per_class": 2}
    classes = finetune(segmented.folder, digits, out=tmp_path / "class", **arguments)
    back = finetune(masks.folder, digits, out=tmp_path / "back", **arguments)
    a, b, c, d, e = (
        load_file(run.folder / "model.safetensors") for run in (pretrained, masks, segmented, classes, back)
    )
    layers = [name for name in a if not name.startswith("fc.")]
    assert all(torch.equal(a[name], b[f"encoder.{name}"]) for name in layers), "class to masks"
    assert all(torch.equal(c[f"encoder.{name}"], d[name]) for name in layers), "masks to class"
    assert all(torch.equal(a[name], e[name]) for name in layers), "and back"
    assert all(name.startswith("encoder.") for name in masks.frozen) and len(masks.frozen) == len(classes.frozen)
    assert masks.best_epoch == 1 and 0 <= masks.final["validation_miou"] <= 1  # type: ignore[operator]


def test_the_best_epoch_is_that_of_the_highest_miou(folder: Path, small: Any, tmp_path: Path) -> None:
    settings = {**small, "epochs": 5, "milestones": [], "batch_size": 8, "learning_rate": 0.02}
    run = finetune(None, folder, out=tmp_path / "run", settings=settings, show_progress=False)
    scores = [row["validation_miou"] or 0.0 for row in run.history]
    assert run.best_epoch == 1 + scores.index(max(scores))
    model = built("test_resnet", "fpn", 32, 3)
    run.load_into(model, best=True)
    best = load_file(run.folder / "model_best.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("more", [{"ema": 0.9, "grad_accum_steps": 2, "workers": 2}, *slow({})], ids=str)
def test_a_run_on_masks_resumes_exactly(folder: Path, small: Any, tmp_path: Path, more: dict[str, Any]) -> None:
    settings = {**small, "batch_size": 8, "checkpoint_minutes": 0, "learning_rate": 0.01, **more}
    whole = pretrain(Squares(), out=tmp_path / "whole", settings=settings, show_progress=False)
    run = stopped_and_resumed(Squares(), tmp_path / "run", settings, [2, 2] if not more else [1])
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_a_complete_run_is_not_trained_again(segmented: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = pretrain(Squares(), out=segmented.folder, resume=True)
    assert "the run is complete already" in capsys.readouterr().out and run == segmented


def test_timm_loads_the_exported_encoder(segmented: Run, tmp_path: Path) -> None:
    export_model(segmented, tmp_path / "export")
    encoder: Any = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    assert encoder.num_classes == 0
    whole = load_file(segmented.folder / "model.safetensors")
    assert all(torch.equal(value, whole[f"encoder.{name}"]) for name, value in encoder.state_dict().items())
    assert "encoder of a segmentation model" in (tmp_path / "export" / "README.md").read_text()
    with pytest.raises(ConfigError, match="layout: torchvision has no model with the weights of"):
        export_model(segmented, tmp_path / "other", layout="torchvision")


def test_the_code_in_a_runs_card_loads_the_whole_model(segmented: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (segmented.folder / "README.md").read_text()
    (code,) = (part.partition("```")[0] for part in text.split("```python\n")[1:])
    monkeypatch.chdir(segmented.folder)
    found: dict[str, Any] = {}
    exec(code, found)
    model = built("test_resnet", "fpn", 32, 3).eval()
    segmented.load_into(model)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(found["model"](images), model(images))
    assert f"| mIoU on training images, as trained | {segmented.final['train_miou']:.2%} |" in text


class Net(torch.nn.Module):
    """A user's own model."""

    def __init__(self, classes: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride, 1)
        self.head = torch.nn.Conv2d(8, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.stem(images).relu())
        return logits


def test_a_module_of_a_users_own_learns_masks(small: Any, tmp_path: Path) -> None:
    settings = {name: value for name, value in small.items() if name != "model"}
    run = pretrain(Squares(), out=tmp_path / "run", model=Net(), settings=settings, show_progress=False)
    assert run.final["train_miou"] is not None
    run.load_into(Net())
    for model, told in ((Net(4), r"gives \[2, 4, 32, 32\].*must give float \[2, 3, 32, 32\]"),
                        (Net(3, 2), r"gives \[2, 3, 16, 16\]")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"model: 'Net' {told}"):
            pretrain(Squares(), out=tmp_path / "no", model=model, settings=settings, show_progress=False)
    with pytest.raises(ConfigError, match="decoder: must be unset for a module of your own"):
        pretrain(Squares(), out=tmp_path / "no", model=Net(), settings={**settings, "decoder": "fpn"})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target": "class"}, "target: is 'class', and the images have the target 'semantic'"),
        ({"mixup": 0.2}, "mixup: must be 0 for masks"),
    ],
)
def test_settings_that_do_not_fit_the_masks_are_refused(
    small: Any, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        pretrain(Squares(), out=tmp_path / "run", settings={**small, **settings}, show_progress=False)
    with pytest.raises(ConfigError, match="decoder: must be unset for the target 'class'"):
        pretrain(Stripes(), out=tmp_path / "run", settings={**small, "decoder": "fpn"}, show_progress=False)
    assert not (tmp_path / "run").exists()


def test_a_mask_that_does_not_fit_is_refused_before_the_work(small: Any, tmp_path: Path) -> None:
    class Wrong(Squares):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, mask = super().__getitem__(index)
            return image, mask[1:]

    with pytest.raises(ConfigError, match="masks: a mask is 35 x 36 pixels, and its image 36 x 36"):
        pretrain(Wrong(), out=tmp_path / "run", settings=small, show_progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("labels", [{"noise": 0.5}, {"clusters": 3}], ids=str)
def test_masks_of_a_users_dataset_have_no_labels_to_replace(small: Any, tmp_path: Path, labels: Any) -> None:
    with pytest.raises(ConfigError, match=f"^labels.{next(iter(labels))}: "):
        pretrain(Squares(), out=tmp_path / "run", labels=labels, settings=small, show_progress=False)


def test_warnings_of_the_decoders_are_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built("test_resnet", "fpn")
