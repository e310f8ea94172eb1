"""Freezing the first layers of a model (the paper's table 8)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import group_parameters

from formulavision.training.segmentation import SegmentationModel
from formulavision.training.settings import FREEZE_CONV, FREEZE_STAGE, check_freeze
from formulavision.util.errors import ConfigError

__all__ = ["freeze", "freeze_names", "frozen_names", "head_prefixes", "is_head"]


def freeze(model: torch.nn.Module, spec: str) -> list[str]:
    """Freeze the first layers of a timm model in place (the paper's table 8).

    Frozen parameters get no gradient. Frozen layers stay in evaluation mode, also after ``model.train()``, so that
    batch normalisation keeps its running statistics. The classification head is never frozen. The layers of a
    segmentation model are those of its encoder, as if it were the whole model; its decoder is never frozen.

    Args:
        spec: ``none``; for ResNets, as in the paper, ``conv1``, ``conv1-2`` ... ``conv1-5``, where conv1
            is the stem and conv2 to conv5 are layer1 to layer4; for every architecture ``stage1``, ``stage1-2`` ...
            by timm's coarse groups, where stage1 is the stem.

    Returns:
        Names of the frozen parameters, in the model's order.

    Raises:
        ConfigError: ``spec`` is unknown, or the model has no such stage.
    """
    check_freeze(spec)
    if spec == "none":
        return []
    classifier, prefix = model, ""
    if isinstance(model, SegmentationModel):
        classifier, prefix = _with_head(model.encoder), "encoder."
    own = _resnet_names(classifier, spec) if spec.startswith("conv") else _stage_names(classifier, spec)
    names = {f"{prefix}{name}" for name in own}
    freeze_names(model, names)
    return [name for name, _ in model.named_parameters() if name in names]


def freeze_names(model: torch.nn.Module, names: set[str]) -> None:
    """Freeze parameters of any module in place, and keep the layers all of whose parameters these are in evaluation
    mode."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    for prefix, module in model.named_modules():
        own = [f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters()]
        if own and names.issuperset(own):
            for inner in module.modules():
                # A hook, because a later call of model.train() would undo a call of eval().
                inner.training = False
                if _stay_in_evaluation_mode not in inner._forward_pre_hooks.values():
                    inner.register_forward_pre_hook(_stay_in_evaluation_mode)


def frozen_names(model: torch.nn.Module) -> list[str]:
    """Names of the parameters that are not trained, in the model's order."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def _stay_in_evaluation_mode(module: torch.nn.Module, inputs: Any) -> None:
    module.training = False


def head_prefixes(model: Any) -> tuple[str, ...]:
    """Names of the modules of a timm model's classification head; distilled transformers have two. () for others."""
    classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def is_head(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a parameter or buffer belongs to the head."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _with_head(encoder: Any) -> torch.nn.Module:
    """The model that an encoder is without its head, without values: timm's stages depend on the head."""
    with torch.device("meta"):
        return timm.create_model(encoder.pretrained_cfg["architecture"], num_classes=1)


def _resnet_names(model: torch.nn.Module, spec: str) -> list[str]:
    match = FREEZE_CONV.fullmatch(spec)
    assert match
    if not isinstance(model, timm.models.ResNet):
        stages = len(_stages(model))
        raise ConfigError(
            f"freeze: {spec!r} is for ResNets, this model is a {type(model).__name__}: "
            f"use none or stage1 to stage1-{stages}"
        )
    layers = [f"layer{k - 1}." for k in range(2, int(match[1] or 1) + 1)]
    return [name for name, _ in model.named_parameters() if name.startswith(("conv1.", "bn1.", *layers))]


def _stage_names(model: torch.nn.Module, spec: str) -> list[str]:
    match = FREEZE_STAGE.fullmatch(spec)
    assert match
    stages = _stages(model)
    last = int(match[1] or 1)
    if not 1 <= last <= len(stages):
        raise ConfigError(f"freeze: {spec!r} is not allowed: this model has stage1 to stage1-{len(stages)}")
    return [name for stage in stages[:last] for name in stage]


def _stages(model: Any) -> list[list[str]]:
    if not hasattr(model, "group_matcher"):
        raise ConfigError(f"freeze: timm does not divide a {type(model).__name__} into stages: must be none")
    groups = group_parameters(model, model.group_matcher(coarse=True))
    head = head_prefixes(model)
    # timm may put a last norm into the group of the head: that group is trained as a whole.
    last = max(groups)
    return [
        names
        for key, names in sorted(groups.items())
        if not (key == last and any(is_head(name, head) for name in names))
    ]
