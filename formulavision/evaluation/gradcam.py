"""Grad-CAM: heat maps of the regions of an image that a fine-tuned model recognises a class by (figure 6f)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from formulavision.data.downstream import DownstreamLike, LabelledImages, open_for_run
from formulavision.data.resizing import centre, to_square
from formulavision.evaluation.columns import INK, Column, channels_last, side_by_side
from formulavision.evaluation.evaluating import build_finetuned, check_classes, open_finetuned
from formulavision.evaluation.inference import without_augmentation
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.models import to_input
from formulavision.util.errors import CheckpointError, ConfigError

__all__ = ["class_activation", "grad_cam", "grad_cam_sheet"]

_BATCH = 64
_FEWEST_CELLS = 4
"""Height and width of a feature map, at least: with fewer cells, a heat map is nearly constant."""


def grad_cam(
    checkpoint: str | PathLike[str],
    images: torch.Tensor | NDArray[np.uint8],
    labels: torch.Tensor | Sequence[int] | None = None,
) -> torch.Tensor:
    """Heat maps of the regions of images that a fine-tuned model recognises a class by.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization" (ICCV 2017),
    equations 1 and 2, on the last feature map of convolutional networks that has at least 4 x 4 cells, and on the
    tokens before the last block's attention of vision transformers. For a ResNet this is layer4, as in their paper,
    from 97 pixels on. On smaller images layer4 has too few cells to show a place (at 32 pixels a single one), and the
    map is that of layer3 or, up to 48 pixels, of layer2. Where no map has 4 x 4 cells, it is the last one.

    Args:
        checkpoint: the folder of a fine-tuning run.
        images: uint8 [n, 3, h, w], or of one channel; they are resized and cropped as the model's test images are.
        labels: int64 [n], a class for each image; None: the class with the highest logit.

    Returns:
        float32 [n, crop, crop] in 0..1 on the CPU, each map divided by its highest value; a map is 0 where no region
        raises the logit of the class.

    Raises:
        CheckpointError: the checkpoint is no run, or its model has no feature map.
        ConfigError: the type, shape or values of images or labels are not allowed.
    """
    model = _FinetunedModel(checkpoint)
    images = torch.as_tensor(images)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ConfigError(f"images: must be uint8 [n, 3, h, w] with n > 0, are {images.dtype} {list(images.shape)}")
    classes = len(model.classes)
    chosen = None if labels is None else torch.as_tensor(labels)
    if chosen is not None:
        whole = not (chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool)
        if not whole or chosen.shape != (len(images),) or chosen.min() < 0 or chosen.max() >= classes:
            raise ConfigError(f"labels: must be {len(images)} whole numbers from 0 to {classes - 1}")
        chosen = chosen.long()
    maps, _ = model.heat_maps(centre(to_square(images, **model.settings.resizing()), model.settings.crop), chosen)
    return maps


def class_activation(
    model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grad-CAM at the size of the model's feature map, the last one of at least 4 x 4 cells where there is one.

    Args:
        model: of timm, in evaluation mode.
        inputs: float32 [n, 3, h, w], normalised.
        labels: int64 [n]; None: the classes with the highest logits.

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
    # Equation 1: a channel's weight is the mean of its gradient. Equation 2: only what raises the logit is kept.
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * channels).sum(1).relu(), logits.detach()


def _features_and_logits(model: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tensor that the map is made of, and the logits that are computed from it."""
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


class _FinetunedModel:
    """A fine-tuned model that gives heat maps."""

    def __init__(self, checkpoint: str | PathLike[str]) -> None:
        weights, self.run = open_finetuned(checkpoint)
        if self.run.target == "semantic":
            raise CheckpointError(
                f"{self.run.folder}: has learned masks: Grad-CAM shows where one class of an image is seen; "
                "prediction_sheet() shows predicted masks"
            )
        self.classes = self.run.classes
        self.model, self.settings = build_finetuned(weights, self.run)

    def heat_maps(self, images: torch.Tensor, labels: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps, float32 [n, crop, crop] in 0..1, and logits, float32 [n, classes], of uint8 [n, c, crop, crop]."""
        device = next(self.model.parameters()).device
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (self.settings.mean, self.settings.std))
        maps, logits = [], []
        for start in range(0, len(images), _BATCH):
            inputs = to_input(images[start : start + _BATCH].to(device), mean, std)
            chosen = None if labels is None else labels[start : start + _BATCH].to(device)
            activation, batch_logits = class_activation(self.model, inputs, chosen)
            large = interpolate(activation[:, None], size=tuple(inputs.shape[2:]), mode="bilinear")[:, 0]
            highest = large.amax(dim=(1, 2), keepdim=True)
            maps.append((large / highest.clamp(min=torch.finfo(large.dtype).tiny)).cpu())
            logits.append(batch_logits.cpu())
        return torch.cat(maps), torch.cat(logits)

    def crops(self, images: LabelledImages, chosen: list[int]) -> torch.Tensor:
        """Some images of a dataset as the model sees them, uint8 [n, 3, crop, crop]."""
        return without_augmentation(images, self.settings).__getitems__([(0, index) for index in chosen])[0]


# The sheet -----------------------------------------------------------------------------------------------------------

_CORRECT, _WRONG = (0, 110, 50), (190, 20, 20)
_COLOURS = "turbo"
_OPACITY = 0.5


def grad_cam_sheet(
    checkpoints: Mapping[str, str | PathLike[str]],
    downstream: DownstreamLike,
    *,
    count: int = 6,
    seed: int = 0,
) -> Image.Image:
    """Grad-CAM of several fine-tuned models side by side, on the same test images (the paper's figure 6f).

    All maps are of the image's true class (with several labels the first one), from blue, 0, to red, the map's highest
    value. The line below shows the model's class and its probability, in red where the class is wrong; "blank" if the
    map is 0 everywhere, because equation 2 gives no positive value, which can happen even where the class is right.

    Args:
        checkpoints: name of a column -> folder of a fine-tuning run; the first column is the image itself.
        downstream: the dataset that the models were fine-tuned on, or how to open it. A folder without test images is
            divided as the first run divided it, unless ``test_share`` or ``test_seed`` is given.
        count: number of test images, a row each.
        seed: seed of the choice of images; fewer are the first of more.

    Returns:
        An RGB image.

    Raises:
        CheckpointError: a checkpoint is no run of this dataset, or its model has no feature map.
        DownstreamError: the dataset cannot be used as it is, or a run was trained on a test image.
        ConfigError: there are no checkpoints, or ``count`` is out of range.
    """
    if not checkpoints:
        raise ConfigError("checkpoints: give at least one fine-tuned run")
    if count < 1:
        raise ConfigError(f"count: {count} is not allowed: must be at least 1")
    models = {name: _FinetunedModel(checkpoint) for name, checkpoint in checkpoints.items()}
    opened: Any = downstream
    for model in models.values():
        opened = open_for_run(opened, model.run)
        check_classes(model.run, opened)
    test: LabelledImages = opened.test
    present = test.labels == 1 if test.multi_label else np.eye(test.num_classes, dtype=bool)[test.labels]
    showing = np.flatnonzero(present.any(axis=1))
    chosen = random_stream(seed, Stream.SHOWN).permutation(showing)[:count].tolist()
    labels = torch.from_numpy(present[chosen].argmax(axis=1))
    columns = [_input_column(next(iter(models.values())).crops(test, chosen), [test.classes[i] for i in labels])]
    columns += [_model_column(name, model, test, chosen, labels, present) for name, model in models.items()]
    return side_by_side(columns)


def _input_column(crops: torch.Tensor, names: list[str]) -> Column:
    return Column("input", channels_last(crops), [(name, INK) for name in names])


def _model_column(
    name: str,
    model: _FinetunedModel,
    test: LabelledImages,
    chosen: list[int],
    labels: torch.Tensor,
    present: NDArray[np.bool_],
) -> Column:
    crops = model.crops(test, chosen)
    maps, logits = model.heat_maps(crops, labels)
    colours = matplotlib.colormaps[_COLOURS](maps.numpy())[..., :3] * 255
    blended = (1 - _OPACITY) * channels_last(crops) + _OPACITY * colours
    probabilities, predicted = (logits.sigmoid() if test.multi_label else logits.softmax(1)).max(1)
    blank = ["" if has_evidence else ", blank" for has_evidence in maps.flatten(1).any(1).tolist()]
    captions = [
        (f"{test.classes[label]} {probability:.0%}{mark}", _CORRECT if present[index, label] else _WRONG)
        for index, label, probability, mark in zip(
            chosen, predicted.tolist(), probabilities.tolist(), blank, strict=True
        )
    ]
    return Column(name, np.round(blended).astype(np.uint8), captions)
