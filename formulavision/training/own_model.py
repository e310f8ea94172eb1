"""Models of a user's own: any ``torch.nn.Module`` that turns float32 images [b, 3, h, w] into logits [b, classes]."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from formulavision.training.freezing import freeze_names
from formulavision.training.models import check_model
from formulavision.training.runs import own_class
from formulavision.training.settings import TrainSettings
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError, one_line

__all__ = ["freeze_parts", "read_model"]


def read_model(
    model: Any, settings: TrainSettings, recorded: Mapping[str, Any] | None
) -> tuple[torch.nn.Module | None, TrainSettings, dict[str, Any]]:
    """Check the model of a run before its data are read.

    Args:
        model: a module; None or the name of a timm model: the settings name the model.
        settings: of the run.
        recorded: the content of settings.yaml, where a run is resumed.

    Returns:
        A copy of the module to be trained, settings with the name of its class, and its entry of settings.yaml; None,
        the same settings and no entry for a timm model.

    Raises:
        ConfigError: the model cannot be trained, or is another one than the run's.
    """
    module = None if model is None or isinstance(model, str) else model
    if module is not None and not isinstance(module, torch.nn.Module):
        raise ConfigError(
            f"model: a {type(module).__name__} is not allowed: must be the name of a timm model or a torch.nn.Module"
        )
    if recorded is not None:
        _check_same(recorded, module)
    if module is None:
        check_model(settings)
        return None, settings, {}
    copied = _copied(module, settings)
    described = {"class": type(module).__name__, "tensors": _digest(module)}
    return copied, settings.model_copy(update={"model": described["class"]}), {"module": described}


def _copied(model: torch.nn.Module, settings: TrainSettings) -> torch.nn.Module:
    """A copy on the CPU that can be trained; the user's object stays as it is.

    The copy has the module's weights. Parameters without ``requires_grad`` are not trained. If the module is in
    training mode, parts of it in evaluation mode stay in that mode; otherwise all of it is set to training mode.

    Raises:
        ConfigError: it cannot be copied, or has parameters or buffers that cannot be trained or kept.
    """
    name = type(model).__name__
    tensors = [*model.parameters(), *model.buffers()]
    if any(is_lazy(tensor) or tensor.is_meta for tensor in tensors):
        raise ConfigError(f"model: {name} has tensors without values: call it on an image first")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model: {name} has no parameter to train: at least one must have requires_grad=True")
    extra = [key for key, value in model.state_dict().items() if not isinstance(value, torch.Tensor)]
    sparse = [key for key, value in model.state_dict(keep_vars=True).items() if key not in extra and not _dense(value)]
    if extra or sparse:
        raise ConfigError(f"model: {(extra + sparse)[0]} of {name} must be a dense tensor: files hold nothing else")
    if settings.drop_path:
        raise ConfigError(f"drop_path: must be 0: {name} has its own stochastic depth, if it has any")
    try:
        copied = copy.deepcopy(model).cpu()
    except Exception as error:  # the module's own code
        raise ConfigError(f"model: {name} cannot be copied by copy.deepcopy ({one_line(error)})") from None
    return copied if copied.training else copied.train()


def _dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_complex() and not tensor.is_quantized


def _digest(model: torch.nn.Module) -> str:
    """A digest of the names, shapes and types of all tensors, and of which are trained."""
    digest = hashlib.sha256()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype} {name in trained}\n".encode())
    return digest.hexdigest()


def _check_same(recorded: Mapping[str, Any], model: torch.nn.Module | None) -> None:
    """Refuse to resume a run with another module than its own, or without it."""
    own = own_class(recorded)
    if own is None and model is not None:
        raise ConfigError(
            f"resume: model is a {type(model).__name__} and was timm's {recorded['settings']['model']} in the run"
        )
    if own is not None and model is None:
        raise ConfigError(f"model: is missing: the run was started with a module of your own, {own}: give it again")
    if model is not None and recorded["module"] != {"class": type(model).__name__, "tensors": _digest(model)}:
        raise ConfigError(
            f"resume: model is another {type(model).__name__} than the run's {own}: class, and names, shapes, types "
            "and requires_grad of all tensors must be equal"
        )


def freeze_parts(model: torch.nn.Module, spec: str) -> None:
    """Freeze parts of a module in place: their parameters get no gradient, and they stay in evaluation mode.

    Args:
        spec: ``none``, or names of parts or parameters, separated by commas: ``stem,layers.0``.

    Raises:
        ConfigError: the module has no such part, or nothing is left to train.
    """
    if spec == "none":
        return
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for part in (part.strip() for part in spec.split(",")):
        found = {name for name in names if name == part or name.startswith(f"{part}.")}
        if not found:
            parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ConfigError(
                f"freeze: the model has no part '{part}'{did_you_mean(part, parts)}: it has {', '.join(parts)}"
            )
        chosen |= found
    if not any(parameter.requires_grad and name not in chosen for name, parameter in model.named_parameters()):
        raise ConfigError(f"freeze: {spec!r} leaves no parameter to train")
    freeze_names(model, chosen)
