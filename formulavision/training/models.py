"""Models by their timm names, and weights in the layout that timm reads."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save

from formulavision.training.randomness import own_randomness
from formulavision.training.settings import TrainSettings
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError
from formulavision.util.files import atomic_write, write_text

__all__ = ["build_model", "check_model", "check_training", "save_timm_model", "to_input"]

_FAILURES = (AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError)
"""What models raise for arguments and images that they cannot take."""


def build_model(settings: TrainSettings, num_classes: int) -> torch.nn.Module:
    """A timm model with new weights, for 3 x crop x crop images.

    The weights are drawn with torch's global random state as it is, which is left so.

    Raises:
        ConfigError: timm has no such model, it has no classification head, or no stochastic depth where the settings
            ask for it, or it cannot take images of this size.
    """
    if not timm.is_model(settings.model):
        near = did_you_mean(settings.model, timm.list_models())
        raise ConfigError(f"model: timm has no model '{settings.model}'{near}")
    arguments: dict[str, Any] = {}
    if timm.models.get_pretrained_cfg_value(settings.model, "fixed_input_size"):
        arguments["img_size"] = settings.crop
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    wrong_size = f"crop: '{settings.model}' takes no {settings.crop}-pixel images"
    try:
        with own_randomness():
            model = timm.create_model(settings.model, pretrained=False, num_classes=num_classes, **arguments)
    except _FAILURES as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise ConfigError(f"drop_path: '{settings.model}' has no stochastic depth: must be 0") from None
        what = wrong_size if "img_size" in arguments else f"model: '{settings.model}' cannot be built"
        raise ConfigError(f"{what} ({_reason(error)})") from None
    source: Any = getattr(model, "pretrained_cfg", None) or {}
    if not source.get("classifier"):
        raise ConfigError(f"model: '{settings.model}' has no classification head to train")
    try:
        with own_randomness(), torch.no_grad():
            model.eval()(torch.zeros(1, 3, settings.crop, settings.crop))
    except _FAILURES as error:
        raise ConfigError(f"{wrong_size} ({_reason(error)})") from None
    return model.train()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_model(settings: TrainSettings) -> None:
    """Refuse what :func:`build_model` would, without memory for weights: before data are searched or read.

    Raises:
        ConfigError: timm has no such model, it cannot take images of this size, or it has no classification head.
    """
    with torch.device("meta"):
        build_model(settings, num_classes=2)


def check_training(model: torch.nn.Module, settings: TrainSettings, num_classes: int) -> None:
    """Refuse a model that could not be trained, before its first step: two black images are passed through it.

    Raises:
        ConfigError: it fails in training mode, or gives something else than logits of ``num_classes`` classes.
    """
    images = torch.zeros(2, 3, settings.crop, settings.crop)
    # Statistics of batch normalisation are taken in copies.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with own_randomness(), torch.no_grad():
            logits: Any = torch.func.functional_call(model, buffers, (images,))
    except _FAILURES as error:
        raise ConfigError(f"model: '{settings.model}' cannot be trained ({_reason(error)})") from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            f"model: '{settings.model}' gives {given} for two images, not scores of {num_classes} classes: "
            "choose another model"
        )


def to_input(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Images as the model takes them.

    Args:
        images: uint8 [b, c, h, w], c is 1 (gray, expanded to 3 channels) or 3.
        mean, std: float [1, 3, 1, 1], of channels scaled to 0..1.

    Returns:
        float32 [b, 3, h, w].
    """
    # One multiplication and one addition, in one pass over the memory.
    return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))


def _crop_pct(crop: int, resize: int) -> float:
    """The share of which timm, which takes floor(crop / share), makes ``resize`` again."""
    share = crop / resize
    while math.floor(crop / share) < resize:
        share = math.nextafter(share, 0)
    return share


def save_timm_model(
    model: torch.nn.Module, folder: Path, *, settings: TrainSettings, class_names: Sequence[str]
) -> None:
    """Write ``model.safetensors`` and ``config.json`` so that timm alone loads them.

    ``timm.create_model(f"local-dir:{folder}", pretrained=True)`` gives the model back, and
    ``timm.data.create_transform(**timm.data.resolve_model_data_config(model))`` its images as they are evaluated here.
    """
    # Each a copy: safetensors takes no tensors that share memory, as those of layers that share weights do.
    copied = {"memory_format": torch.contiguous_format}
    state = {name: tensor.detach().cpu().clone(**copied) for name, tensor in model.state_dict().items()}
    # Not by its save_file, whose files nobody else may read.
    with atomic_write(folder / "model.safetensors") as file:
        file.write(save(state, metadata={"format": "pt"}))
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
    if source.get("fixed_input_size"):
        config["model_args"] = {"img_size": settings.crop}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
