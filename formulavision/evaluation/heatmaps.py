"""Where in an image a model sees its class: Grad-CAM (the paper's figure 6f)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import interpolate

from formulavision.data.downstream import Downstream, DownstreamSettings, open_for_run
from formulavision.data.loading import centre, to_square
from formulavision.evaluation.classification import check_classes, open_finetuned
from formulavision.evaluation.inference import choose_device, without_augmentation
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.models import build_model, to_input
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import CheckpointError, ConfigError

__all__ = ["class_activation", "grad_cam", "grad_cam_sheet"]

_BATCH = 64
_FEWEST_CELLS = 4
"""Down and across: with fewer, a heat map is hardly more than a constant."""


def grad_cam(checkpoint: str | Path, images: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Where a fine-tuned model sees a class in images, by Grad-CAM.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization" (ICCV 2017),
    equations 1 and 2, on the last feature map of convolutional networks that has at least 4 x 4 cells, and on the
    tokens before the last block's attention of vision transformers. Of a ResNet this is layer4, as in their paper, from
    97 pixels on; below, layer4 has so few cells that it says nothing of where (at 32 pixels a single one), and the map
    is that of layer3 or, up to 48 pixels, of layer2. Where no map has 4 x 4 cells it is the last one.

    Args:
        checkpoint: the folder of a fine-tuning run.
        images: uint8 [n, 3, h, w], or of one channel; they are resized and cropped as the model's test images are.
        labels: int64 [n], the class to look for in each image; None: the one that the model takes for the likeliest.

    Returns:
        float32 [n, crop, crop] in 0..1, each map divided by its highest value; 0 everywhere where nothing in the image
        speaks for the class. On the CPU.

    Raises:
        CheckpointError: the checkpoint is no run, or its model has no feature map.
        ConfigError: images or labels are not what they must be.
    """
    model = _Model.open(checkpoint)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ConfigError(f"images: must be uint8 [n, 3, h, w] with n > 0, are {images.dtype} {list(images.shape)}")
    classes = len(model.class_names)
    if labels is not None and (len(labels) != len(images) or labels.min() < 0 or labels.max() >= classes):
        raise ConfigError(f"labels: must be {len(images)} numbers from 0 to {classes - 1}")
    maps, _ = model.look(centre(to_square(images, **model.settings.resizing()), model.settings.crop), labels)
    return maps


def class_activation(
    model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grad-CAM at the size of the model's feature map, the last one of at least 4 x 4 cells where there is one.

    Args:
        model: of timm, in evaluation mode.
        inputs: float32 [n, 3, h, w], normalised.
        labels: int64 [n]; None: the likeliest classes.

    Returns:
        Maps, float32 [n, h', w'], not negative, and logits, float32 [n, classes].

    Raises:
        CheckpointError: the model has neither a feature map nor a grid of tokens.
    """
    with torch.enable_grad():
        features, logits = _features_and_logits(model, inputs)
        chosen = logits.argmax(1) if labels is None else labels
        (gradients,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), features)
    channels, gradients = _as_map(model, features.detach()), _as_map(model, gradients)
    # Equation 1: a channel counts by the mean of its gradient; equation 2: what speaks against the class does not.
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * channels).sum(1).relu(), logits.detach()


def _features_and_logits(model: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tensor that the map is made of, and the logits that follow from it."""
    tokens = _has_tokens(model)
    # After the last attention, only the class token has a gradient.
    layers = [model.blocks[-1].norm1] if tokens else _stages(model)
    kept: list[torch.Tensor] = []
    handles = [layer.register_forward_hook(lambda module, given, output: kept.append(output)) for layer in layers]
    try:
        features = model.forward_features(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if tokens:
        return kept[0], model.forward_head(features)
    maps = [each for each in (features, *reversed(kept)) if isinstance(each, torch.Tensor) and each.ndim == 4]
    if not maps or maps[0] is not features:
        raise CheckpointError(f"{type(model).__name__} has neither a feature map nor a grid of tokens to look at")
    large = (each for each in maps if min(_as_map(model, each).shape[2:]) >= _FEWEST_CELLS)
    return next(large, features), model.forward_head(features)


def _stages(model: Any) -> list[torch.nn.Module]:
    """The layers of a timm model after which its feature maps shrink, in order."""
    return [model.get_submodule(stage["module"]) for stage in getattr(model, "feature_info", ())]


def _has_tokens(model: Any) -> bool:
    """Whether it is a vision transformer: blocks of one grid of tokens, normalised before attention."""
    blocks = getattr(model, "blocks", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if blocks is None or grid is None or not hasattr(model, "num_prefix_tokens"):
        return False
    return hasattr(blocks[-1], "norm1")


def _as_map(model: Any, features: torch.Tensor) -> torch.Tensor:
    """[n, channels, h', w'] of a feature map in either layout, or of tokens without class and register tokens."""
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else features
    return features[:, model.num_prefix_tokens :].transpose(1, 2).unflatten(2, model.patch_embed.grid_size)


@dataclass(frozen=True)
class _Model:
    """A fine-tuned model that is ready to look at images."""

    model: torch.nn.Module
    settings: TrainSettings
    device: torch.device
    class_names: list[str]

    @classmethod
    def open(cls, checkpoint: str | Path, opened: Downstream | None = None) -> _Model:
        weights, run = open_finetuned(checkpoint)
        if opened is not None:
            check_classes(run, opened)
        settings = TrainSettings.model_validate(run.settings["settings"])
        device = choose_device(settings)
        model = build_model(settings, len(run.class_names))
        weights.load_into(model, head=True)
        return cls(model.eval().to(device), settings, device, run.class_names)

    def look(self, images: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps, float32 [n, crop, crop] in 0..1, and logits, float32 [n, classes], of uint8 [n, c, crop, crop]."""
        mean, std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.settings.mean, self.settings.std)
        )
        maps, logits = [], []
        for start in range(0, len(images), _BATCH):
            inputs = to_input(images[start : start + _BATCH].to(self.device), mean, std)
            chosen = None if labels is None else labels[start : start + _BATCH].to(self.device)
            found, said = class_activation(self.model, inputs, chosen)
            large = interpolate(found[:, None], size=tuple(inputs.shape[2:]), mode="bilinear")[:, 0]
            highest = large.amax(dim=(1, 2), keepdim=True)
            maps.append((large / highest.clamp(min=torch.finfo(large.dtype).tiny)).cpu())
            logits.append(said.cpu())
        return torch.cat(maps), torch.cat(logits)


# The sheet -----------------------------------------------------------------------------------------------------------

_CELL = 160
_GAP = 8
_MARGIN = 16
_FONT = 15
_INK = (20, 20, 20)
_RIGHT, _WRONG = (0, 110, 50), (190, 20, 20)
_PAPER = (255, 255, 255)
_COLOURS = "turbo"
_OPACITY = 0.5


def grad_cam_sheet(
    checkpoints: Mapping[str, str | Path],
    downstream: Downstream | DownstreamSettings | str,
    *,
    count: int = 6,
    seed: int = 0,
) -> Image.Image:
    """Grad-CAM of several fine-tuned models side by side, on the same test images (the paper's figure 6f).

    All look for the image's true class (with several labels the first), from blue, nothing, to red, the most of this
    image; what a model takes the image for, and with which probability, is written below, in red where it is wrong.

    Args:
        checkpoints: name of an arm -> folder of its fine-tuning run, a column each, behind the image itself.
        downstream: what they were fine-tuned on, or how to open it.
        count: number of test images, a row each.
        seed: draws them; fewer are the first of more.

    Returns:
        An RGB image.

    Raises:
        CheckpointError: a checkpoint is no run of this dataset, or its model has no feature map.
        DownstreamError: the dataset cannot be used as it is.
        ConfigError: there are no checkpoints, or ``count`` is out of range.
    """
    if not checkpoints:
        raise ConfigError("checkpoints: give at least one fine-tuned run")
    if count < 1:
        raise ConfigError(f"count: {count} is not allowed: must be at least 1")
    opened: Any = downstream
    for checkpoint in checkpoints.values():
        opened = open_for_run(opened, open_finetuned(checkpoint)[1])
    models = {name: _Model.open(checkpoint, opened) for name, checkpoint in checkpoints.items()}
    known = opened.test.labels
    showing = np.flatnonzero((known == 1).any(axis=1)) if known.ndim == 2 else np.arange(len(known))
    chosen = random_stream(seed, Stream.SHOWN).permutation(showing)[:count].tolist()
    labels = torch.from_numpy((known[chosen] == 1).argmax(axis=1) if known.ndim == 2 else known[chosen])
    columns = [_inputs(next(iter(models.values())), opened, chosen, labels)]
    columns += [_column(name, model, opened, chosen, labels) for name, model in models.items()]
    return _sheet(columns)


@dataclass(frozen=True)
class _Column:
    """Pictures, uint8 [n, h, w, 3], and below each a line: its text and its colour."""

    title: str
    pictures: np.ndarray[Any, np.dtype[np.uint8]]
    captions: list[tuple[str, tuple[int, int, int]]]


def _inputs(model: _Model, opened: Downstream, chosen: list[int], labels: torch.Tensor) -> _Column:
    captions = [(opened.class_names[label], _INK) for label in labels.tolist()]
    return _Column("input", _pictures(_crops(model, opened, chosen)), captions)


def _column(name: str, model: _Model, opened: Downstream, chosen: list[int], labels: torch.Tensor) -> _Column:
    images = _crops(model, opened, chosen)
    maps, logits = model.look(images, labels)
    colours = matplotlib.colormaps[_COLOURS](maps.numpy())[..., :3] * 255
    blended = (1 - _OPACITY) * _pictures(images) + _OPACITY * colours
    several = opened.test.labels.ndim == 2
    probabilities, predicted = (logits.sigmoid() if several else logits.softmax(1)).max(1)
    captions = []
    for row, (label, share) in enumerate(zip(predicted.tolist(), probabilities.tolist(), strict=True)):
        right = opened.test.labels[chosen[row], label] == 1 if several else label == labels[row]
        captions.append((f"{opened.class_names[label]} {share:.0%}", _RIGHT if right else _WRONG))
    return _Column(name, np.round(blended).astype(np.uint8), captions)


def _crops(model: _Model, opened: Downstream, chosen: list[int]) -> torch.Tensor:
    prepared = without_augmentation(opened.test, model.settings)
    return prepared.__getitems__([(0, index) for index in chosen])[0]


def _pictures(images: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()


def _sheet(columns: list[_Column]) -> Image.Image:
    font = ImageFont.load_default(size=_FONT)
    line = _FONT + _GAP
    across, down = _CELL + _GAP, _CELL + line + _GAP
    rows = len(columns[0].pictures)
    size = (2 * _MARGIN + len(columns) * across - _GAP, 2 * _MARGIN + line + rows * down - _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, column in enumerate(columns):
        left = _MARGIN + i * across
        pen.text((left + _CELL // 2, _MARGIN), _fitting(column.title, font), fill=_INK, font=font, anchor="ma")
        for row, (picture, (text, colour)) in enumerate(zip(column.pictures, column.captions, strict=True)):
            top = _MARGIN + line + row * down
            cell = Image.fromarray(picture).resize((_CELL, _CELL), Image.Resampling.BICUBIC)
            sheet.paste(cell, (left, top))
            pen.text(
                (left + _CELL // 2, top + _CELL + _GAP // 2), _fitting(text, font), fill=colour, font=font, anchor="ma"
            )
    return sheet


def _fitting(text: str, font: Any) -> str:
    """The text, or as much of its beginning and its end as is no wider than a picture."""
    if font.getlength(text) <= _CELL:
        return text
    keep = len(text)
    while font.getlength(shortened := f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}") > _CELL:
        keep -= 1
    return shortened
