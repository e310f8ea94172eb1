"""Preprocessing travels with the weights: what timm's own transform and model say of an image, ours say, and back."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from cases import slow
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from formulavision import export_model
from formulavision.data.downstream import Downstream, DownstreamSettings, LabelledImages
from formulavision.data.loading import Prepared
from formulavision.evaluation import evaluate, grad_cam, probe
from formulavision.evaluation.inference import over_dataset
from formulavision.training import Checkpoint, TrainSettings, finetune, load_checkpoint
from formulavision.training.checkpoints import load_preprocessing
from formulavision.training.models import build_model, save_timm_model, to_input
from formulavision.training.settings import PREPROCESSING
from formulavision.util.errors import CheckpointError, ConfigError

SHAPES = [(80, 240), (240, 80), (33, 47), (64, 64), (100, 101)]
"""Height and width of images."""

TAGS = [
    "vit_small_patch16_224.dino",  # ImageNet's mean and deviation, where the default tag has 0.5
    "efficientnet_b0.ra4_e3600_r224_in1k",  # 0.5, where the default tag has ImageNet's
    "mobilenetv3_large_100.miil_in21k",  # mean 0, deviation 1, bilinear
    "resnet18.tv_in1k",  # bilinear, where the default tag is bicubic
    "convnextv2_nano.fcmae_ft_in22k_in1k_384",  # squash, 384 pixels and all of them
    "test_vit.r160_in1k",
]


def pictures() -> list[np.ndarray]:
    """Smooth colours with noise, uint8 [h, w, 3], of many shapes."""
    random = np.random.default_rng(0)
    result = []
    for height, width in SHAPES:
        y, x = np.mgrid[0:height, 0:width]
        smooth = np.stack([128 + 100 * np.sin(y / 9 + c) * np.cos(x / (7 + c)) for c in range(3)], axis=-1)
        result.append((smooth + random.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8))
    return result


class Pictures:
    def __init__(self) -> None:
        self.pictures = pictures()

    def __call__(self, index: int) -> np.ndarray:
        return self.pictures[index]

    def content(self, indices: np.ndarray) -> bytes:
        return b"".join(self.pictures[i].tobytes() for i in indices)


def dataset(labels: list[int] | None = None) -> LabelledImages:
    chosen = np.array(labels or [i % 2 for i in range(len(SHAPES))])
    return LabelledImages(Pictures(), np.arange(len(SHAPES)), chosen, ["a", "b"])


def downstream() -> Downstream:
    # Any settings will do: nothing is opened.
    return Downstream("pictures", DownstreamSettings(kind="digits"), dataset(), dataset([1, 0, 0, 1, 1]))


def inputs_of_timm(config: dict[str, Any]) -> list[torch.Tensor]:
    transform: Any = timm.data.create_transform(**config)
    return [transform(Image.fromarray(picture)) for picture in pictures()]


def inputs_of_ours(settings: TrainSettings) -> list[torch.Tensor]:
    prepared = Prepared(dataset(), **settings.resizing(), augment=False, flip=False, seed=1, cache=None)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (settings.mean, settings.std))
    images, _ = prepared.__getitems__([(0, i) for i in range(len(SHAPES))])
    return list(to_input(images, mean, std))


def logits_of_timm(model: torch.nn.Module) -> torch.Tensor:
    config = timm.data.resolve_model_data_config(model)
    with torch.inference_mode():
        result: torch.Tensor = model.eval()(torch.stack(inputs_of_timm(config)))
    return result


def logits_of_ours(checkpoint: Checkpoint, classes: int) -> torch.Tensor:
    settings = checkpoint.complete(TrainSettings(device="cpu"))
    model = build_model(settings, classes)
    checkpoint.load_into(model, head=True)
    model.eval()
    found, _ = over_dataset(
        model,
        dataset(),
        settings,
        device=torch.device("cpu"),
        console=Console(quiet=True),
        doing="",
    )
    return found


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm downloads, of every tag, the same random weights that its architecture is made with."""

    def download(name: str, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return timm.create_model(name.removeprefix("timm/").removesuffix("/")).state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)


# From timm -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [*TAGS[:2], *slow(*TAGS[2:])])
def test_of_published_weights_our_inputs_and_logits_are_those_of_timms_own_transform(
    hub: None, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = timm.create_model(tag, pretrained=True)
    settings = TrainSettings(**load_preprocessing(f"timm:{tag}"))
    config = timm.data.resolve_model_data_config(model)
    for ours, theirs in zip(inputs_of_ours(settings), inputs_of_timm(config), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(sys.modules[__name__], "SHAPES", SHAPES[1:3])  # two are enough for large models
    found = logits_of_ours(load_checkpoint(f"timm:{tag}"), model.num_classes)
    torch.testing.assert_close(found, logits_of_timm(model), rtol=1e-4, atol=1e-4)


def test_the_inputs_of_all_published_weights_are_those_of_timms_own_transform() -> None:
    """One of each kind of metadata, of weights whose images are small enough for a test."""
    seen: set[Any] = set()
    others = 0
    for name in timm.list_models(pretrained=True):
        metadata: Any = timm.models.get_pretrained_cfg(name)
        config = timm.data.resolve_data_config({}, pretrained_cfg=metadata.to_dict())
        others += metadata.mean != timm.models.get_pretrained_cfg_value(name.partition(".")[0], "mean")
        kind = tuple(config[key] for key in ("input_size", "interpolation", "crop_pct", "crop_mode"))
        if kind in seen or max(config["input_size"]) > 260:
            continue
        seen.add(kind)
        settings = TrainSettings(**load_preprocessing(f"timm:{name}"))
        # Of bilinear squashing, the only kind that Pillow does not do here, timm has no weights.
        for ours, theirs in zip(inputs_of_ours(settings), inputs_of_timm(config), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=name)
    assert len(seen) > 40 and others > 20, "nothing was compared"


def test_a_tags_own_values_count_and_not_the_default_tags() -> None:
    dino = load_preprocessing("timm:vit_base_patch16_224.dino")
    default = load_preprocessing("timm:vit_base_patch16_224")
    assert (dino["mean"], dino["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (default["mean"], default["std"]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_torchvisions_weights_come_with_torchvisions_transform() -> None:
    for name, weights in (("resnet50", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("swin_v2_t", "DEFAULT")):
        transform = torchvision.models.get_model_weights(name)[weights].transforms()
        settings = TrainSettings(**load_preprocessing(f"torchvision:{name}:{weights}"))
        for picture, ours in zip(pictures(), inputs_of_ours(settings), strict=True):
            torch.testing.assert_close(ours, transform(Image.fromarray(picture)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_of_weights_whose_model_normalises_its_input_again_the_normalisation_is_the_last_one(name: str) -> None:
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    with torch.device("meta"):
        theirs: Any = torchvision.models.get_model(name, init_weights=False, transform_input=True)
    ours = inputs_of_ours(TrainSettings(**load_preprocessing(f"torchvision:{name}")))
    for picture, given in zip(pictures(), ours, strict=True):
        wanted = theirs._transform_input(transform(Image.fromarray(picture))[None])[0]
        torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-5)


NOT_SQUARE = "vit_base_patch16_sapiens2"
IN_TIMM = pytest.mark.skipif(not timm.is_model(NOT_SQUARE), reason=f"timm {timm.__version__} has no {NOT_SQUARE}")


@pytest.mark.parametrize("name", ["timm:volo_d4_448.sail_in1k", pytest.param(f"timm:{NOT_SQUARE}.fb", marks=IN_TIMM)])
def test_images_that_are_no_square_crops_need_a_size(name: str) -> None:
    checkpoint = Checkpoint(name, {}, "", preprocessing=load_preprocessing(name))
    with pytest.raises(ConfigError, match=f"crop: is missing: the images of {name} are not square"):
        checkpoint.complete(TrainSettings())
    assert checkpoint.complete(TrainSettings(crop=448)).mean == checkpoint.preprocessing["mean"]


# Our own -------------------------------------------------------------------------------------------------------------

WAYS: list[dict[str, Any]] = [
    {"resize": 36, "crop": 32},
    {"resize": 43, "crop": 32, "mean": (0.1, 0.4, 0.9), "std": (0.3, 0.2, 1.0)},  # an odd margin
    {"resize": 32, "crop": 32, "resize_mode": "center"},
    {"resize": 35, "crop": 32, "resize_mode": "center", "interpolation": "bicubic"},
    {"resize": 32, "crop": 32, "resize_mode": "border", "mean": (0.1, 0.4, 0.9)},
    {"resize": 55, "crop": 48, "resize_mode": "border", "interpolation": "bicubic"},
    {"resize": 39, "crop": 32, "interpolation": "bicubic"},
]


def write(folder: Path, settings: TrainSettings) -> torch.nn.Module:
    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    model = build_model(settings, 2)
    save_timm_model(model, folder, settings=settings, class_names=["a", "b"])
    return model


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_what_we_export_timm_prepares_and_answers_as_we_do(tmp_path: Path, way: dict[str, Any]) -> None:
    settings = TrainSettings(model="test_resnet", device="cpu", **way)
    write(tmp_path, settings)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    config = timm.data.resolve_model_data_config(model)
    exact = (settings.resize_mode, settings.interpolation) != ("squash", "bilinear")
    for ours, theirs in zip(inputs_of_ours(settings), inputs_of_timm(config), strict=True):
        off = (ours - theirs).abs() * torch.tensor(settings.std).view(3, 1, 1) * 255
        assert off.max() < (0.01 if exact else 1.01), "levels of 255"
        assert (off > 0.01).float().mean() < 0.25
    checkpoint = load_checkpoint(tmp_path)
    assert {name: getattr(checkpoint.complete(TrainSettings()), name) for name in PREPROCESSING} == {
        name: getattr(settings, name) for name in PREPROCESSING
    }
    torch.testing.assert_close(
        logits_of_ours(checkpoint, 2), logits_of_timm(model), rtol=0, atol=1e-5 if exact else 0.01
    )


def test_every_pair_of_sizes_survives_timms_share() -> None:
    from formulavision.training.models import _crop_pct

    for crop in range(8, 520):
        assert all(math.floor(crop / _crop_pct(crop, resize)) == resize for resize in range(crop, 640))


@pytest.mark.slow
def test_all_stations_from_a_tag_to_timm_again(hub: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """timm's tag -> our run -> a run of that -> export -> timm, and -> evaluate, probe and Grad-CAM."""
    tag = "test_vit.r160_in1k"
    metadata: Any = timm.models.get_pretrained_cfg(tag)
    few = {"epochs": 1, "batch_size": 2, "milestones": [], "device": "cpu", "learning_rate": 1e-4}
    first = finetune(f"timm:{tag}", downstream(), out=tmp_path / "first", settings=few)
    told = capsys.readouterr().out
    assert "images as in the checkpoint's own training: resize 168, crop 160, resize_mode center, " in told
    second = finetune(first.folder, downstream(), out=tmp_path / "second", settings=few, show_progress=False)
    export_model(second, tmp_path / "export")
    again = finetune(tmp_path / "export", downstream(), out=tmp_path / "again", settings=few, show_progress=False)
    for run in (first, second, again):
        used = TrainSettings(**run.settings["settings"])
        assert (used.crop, used.resize) == (160, math.floor(160 / metadata.crop_pct))
        assert (used.resize_mode, used.interpolation) == ("center", metadata.interpolation)
        assert (used.mean, used.std) == (metadata.mean, metadata.std)
    model = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    expected = logits_of_timm(model)
    labels = torch.from_numpy(downstream().test.labels)
    evaluation = evaluate(second.folder, downstream(), show_progress=False)
    assert evaluation.loss == pytest.approx(float(cross_entropy(expected, labels)), abs=1e-5)
    assert torch.equal(torch.from_numpy(np.load(second.folder / "predictions.npz")["predicted"]), expected.argmax(1))
    losses = [
        probe(source, downstream(), out=tmp_path / "probe", settings={"device": "cpu"}, show_progress=False).loss
        for source in (second.folder, tmp_path / "export", tmp_path / "export" / "model.safetensors")
    ]
    assert losses[0] == losses[1] == losses[2]
    gray = torch.from_numpy(pictures()[0]).permute(2, 0, 1)[None]
    assert grad_cam(second.folder, gray).shape == (1, 160, 160)


def test_what_is_given_counts_more_than_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, TrainSettings(model="test_resnet", crop=32, mean=(0.4, 0.4, 0.4), resize_mode="center"))
    checkpoint = load_checkpoint(tmp_path)

    def sizes(**given: Any) -> tuple[int, int]:
        chosen = checkpoint.complete(TrainSettings(**given))
        return chosen.resize, chosen.crop

    assert sizes() == (37, 32)
    assert sizes(crop=64) == (73, 64)
    assert sizes(resize=240) == (240, 32)
    assert sizes(crop=64, resize=70) == (70, 64)
    assert checkpoint.complete(TrainSettings(resize_mode="squash")).resize_mode == "squash"
    assert checkpoint.complete(TrainSettings(mean=(0.2, 0.2, 0.2))).mean == (0.2, 0.2, 0.2)
    said = checkpoint.describe_preprocessing(checkpoint.complete(TrainSettings(crop=64, mean=(0.1, 0.2, 0.3))))
    assert said == (
        "images as in the checkpoint's own training: resize_mode center, interpolation bilinear, std 0.5 0.5 0.5"
    )
    said = checkpoint.describe_preprocessing(checkpoint.complete(TrainSettings(preset="finetune-sgd")))
    assert said.endswith(
        "; the preset finetune-sgd replaces the checkpoint's interpolation bilinear, mean 0.4 0.4 0.4, std 0.5 0.5 0.5"
    )


def test_a_folder_that_timm_itself_wrote_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    model: Any = timm.create_model("test_resnet", num_classes=2)
    timm.models.save_for_hf(
        model, str(tmp_path), model_config={"pretrained_cfg": {"crop_pct": 0.9}}, safe_serialization=True
    )
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    torch.testing.assert_close(logits_of_ours(load_checkpoint(tmp_path), 2), logits_of_timm(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"interpolation": "lanczos"}, "interpolation 'lanczos' is not supported: must be bilinear or bicubic"),
        ({"mean": [0.1, 0.2, 0.3, 0.4]}, "mean has 4 values: must have 3, or 1 for gray images"),
        ({"crop_pct": "half"}, "is not the configuration of a timm model"),
        ({"input_size": 3}, "is not the configuration of a timm model"),
    ],
)
def test_preprocessing_that_we_do_not_have_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    write(tmp_path, TrainSettings(model="test_resnet", crop=32))
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config.json: {told}"):
        load_checkpoint(tmp_path)


def test_the_mean_of_gray_weights_counts_for_three_equal_channels(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", in_chans=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    metadata = {"input_size": [1, 28, 28], "mean": [0.1307], "std": [0.3081], "crop_pct": 1.0}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": metadata}))
    found = load_checkpoint(tmp_path).preprocessing
    assert (found["mean"], found["std"], found["crop"]) == ((0.1307,) * 3, (0.3081,) * 3, 28)


# Training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("channels", [1, 3])
def test_kept_images_are_those_that_are_resized_anew(stripes: Callable[..., Any], way: Any, channels: int) -> None:
    from formulavision.data.loading import image_cache

    source = stripes(channels=channels, size=50)
    settings = TrainSettings(**way)
    cache = image_cache(source, settings.resize, workers=0, mode=settings.resize_mode)
    anew, kept = (
        Prepared(source, **settings.resizing(), augment=True, flip=True, seed=1, cache=each) for each in (None, cache)
    )
    keys = [(1, 0), (1, 3), (2, 0)]
    for _ in range(2):
        assert torch.equal(kept.__getitems__(keys)[0], anew.__getitems__(keys)[0])
