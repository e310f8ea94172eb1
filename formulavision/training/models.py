"""timm models: building and checking them, their input, and files that timm loads."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save

from formulavision.training.randomness import own_randomness
from formulavision.training.segmentation import SegmentationModel
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import Task
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError, one_line
from formulavision.util.files import atomic_write, write_text

__all__ = ["build_model", "check_model", "check_training", "save_timm_model", "save_weights", "to_input"]

_FAILURES = (AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError)
"""Exceptions that models raise for arguments and images that they do not accept."""


def build_model(settings: TrainSettings, num_classes: int) -> torch.nn.Module:
    """A timm model with new weights, for 3 x crop x crop images.

    For the target ``semantic`` it is a segmentation model, whose encoder is the timm model. The weights are drawn with
    torch's global random state, which is afterwards as before.

    Raises:
        ConfigError: timm has no such model, or the model has no classification head, does not accept images of this
            size, has no stochastic depth although the settings ask for it, or does not fit the decoder.
    """
    if not timm.is_model(settings.model):
        near = did_you_mean(settings.model, timm.list_models())
        raise ConfigError(f"model: timm has no model '{settings.model}'{near}")
    arguments: dict[str, Any] = {}
    if timm.models.get_pretrained_cfg_value(settings.model, "fixed_input_size"):
        arguments["img_size"] = settings.crop
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    segments = settings.target == "semantic"
    wrong_size = f"crop: '{settings.model}' takes no {settings.crop}-pixel images"
    try:
        with own_randomness():
            model = timm.create_model(
                settings.model, pretrained=False, num_classes=0 if segments else num_classes, **arguments
            )
    except _FAILURES as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise ConfigError(f"drop_path: '{settings.model}' has no stochastic depth: must be 0") from None
        what = wrong_size if "img_size" in arguments else f"model: '{settings.model}' cannot be built"
        raise ConfigError(f"{what} ({_reason(error)})") from None
    source: Any = getattr(model, "pretrained_cfg", None) or {}
    if not source.get("classifier"):
        raise ConfigError(f"model: '{settings.model}' has no classification head to train")
    if segments:
        decoder = settings.decoder or "fpn"
        try:
            with own_randomness():
                return SegmentationModel(model, decoder, num_classes, settings.crop)
        except ConfigError:
            raise
        except _FAILURES as error:
            raise ConfigError(
                f"decoder: '{decoder}' does not fit '{settings.model}' at {settings.crop} pixels ({_reason(error)})"
            ) from None
    try:
        with own_randomness(), torch.no_grad():
            model.eval()(torch.zeros(1, 3, settings.crop, settings.crop))
    except _FAILURES as error:
        raise ConfigError(f"{wrong_size} ({_reason(error)})") from None
    return model.train()


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__


def check_model(settings: TrainSettings) -> None:
    """Raise the errors of :func:`build_model` without memory for weights, before categories or data are read.

    Raises:
        ConfigError: as :func:`build_model` does.
    """
    with torch.device("meta"):
        build_model(settings, num_classes=2)


def check_training(model: torch.nn.Module, settings: TrainSettings, task: Task, *, processes: int = 1) -> None:
    """Refuse a model that cannot be trained, before its first step: a copy of it is called with two black images.

    Raises:
        ConfigError: the model fails in training or evaluation mode, or its output has not the task's shape; or, with
            several processes, a parameter that is to be trained gets no gradient.
    """
    images = torch.zeros(2, 3, settings.crop, settings.crop)
    trial = copy.deepcopy(model)
    try:
        if settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
            trial.to(memory_format=torch.channels_last)
        with own_randomness():
            logits: Any = trial(images)
            if isinstance(logits, torch.Tensor):
                logits.float().sum().backward()
            with torch.no_grad():
                evaluated = trial.eval()(images)
    except Exception as error:  # models raise exceptions of many kinds
        raise ConfigError(f"model: '{settings.model}' cannot be trained ({_reason(error)})") from None
    wanted = task.output_shape(2, settings.crop)
    for scores in (logits, evaluated):
        if not isinstance(scores, torch.Tensor) or scores.shape != wanted or not scores.is_floating_point():
            given = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ConfigError(
                f"model: '{settings.model}' gives {given} for two images, not scores of {task.num_classes} classes: "
                f"it must give float {list(wanted)}"
            )
    unused = [
        name for name, parameter in trial.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    if processes > 1 and unused:
        raise ConfigError(
            f"model: {unused[0]} of '{settings.model}' gets no gradient, which several processes cannot share: set its "
            "requires_grad to False, or devices to 1"
        )


def to_input(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """The model's input: images in three channels, normalised.

    Args:
        images: uint8 [b, c, h, w], c is 1 (gray, expanded to 3 channels) or 3.
        mean, std: float [1, 3, 1, 1], of channels scaled to 0..1.

    Returns:
        float32 [b, 3, h, w].
    """
    # One multiplication and one addition, in one pass over the memory.
    return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))


def _crop_pct(crop: int, resize: int) -> float:
    """timm's ``crop_pct``, chosen so that timm's floor(crop / crop_pct) is ``resize``."""
    share = crop / resize
    while math.floor(crop / share) < resize:
        share = math.nextafter(share, 0)
    return share


def save_weights(model: torch.nn.Module, file: Path) -> None:
    """Write a model's weights as safetensors, atomically."""
    # Copies: safetensors refuses tensors that share memory, as layers with shared weights have them.
    copied = {"memory_format": torch.contiguous_format}
    state = {name: tensor.detach().cpu().clone(**copied) for name, tensor in model.state_dict().items()}
    # Not by safetensors' save_file, which makes files that only their owner may read.
    with atomic_write(file) as stream:
        stream.write(save(state, metadata={"format": "pt"}))


def save_timm_model(
    model: torch.nn.Module, folder: Path, *, settings: TrainSettings, class_names: Sequence[str]
) -> None:
    """Write ``model.safetensors`` and ``config.json`` so that timm alone loads them.

    ``timm.create_model(f"local-dir:{folder}", pretrained=True)`` loads the model, and
    ``timm.data.create_transform(**timm.data.resolve_model_data_config(model))`` is the preprocessing of its evaluation.
    Without class names, the model has no head.
    """
    save_weights(model, folder / "model.safetensors")
    source: Any = model.pretrained_cfg
    config: dict[str, Any] = {
        "architecture": settings.model,
        "num_classes": len(class_names),
        "num_features": model.num_features,
        "label_names": list(class_names),
        "pretrained_cfg": {
            "num_classes": len(class_names),
            "input_size": [3, settings.crop, settings.crop],
            "fixed_input_size": bool(source.get("fixed_input_size", False)),
            "crop_pct": _crop_pct(settings.crop, settings.resize),
            "crop_mode": settings.resize_mode,
            "interpolation": settings.interpolation,
            "mean": list(settings.mean),
            "std": list(settings.std),
            "first_conv": source.get("first_conv"),
            "classifier": source["classifier"],
            "license": None,
        },
    }
    arguments = {"img_size": settings.crop} if source.get("fixed_input_size") else {}
    if not class_names:
        arguments["num_classes"] = 0
    if arguments:
        config["model_args"] = arguments
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
