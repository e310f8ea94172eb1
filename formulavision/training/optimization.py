"""The optimizer and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

from formulavision.training.settings import TrainSettings

__all__ = ["count_steps", "learning_rate_factor", "make_optimizer"]


def make_optimizer(
    model: torch.nn.Module, settings: TrainSettings, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """SGD with weight decay of every parameter, or AdamW without that of biases, norms and the model's exceptions.

    With ``layer_decay``, layers have learning rates of their own (Clark et al., "ELECTRA", ICLR 2020; timm's groups).

    Args:
        fused: whether one kernel updates all parameters with AdamW; None: torch's choice. (That of SGD fails where only
            some parameters have a momentum yet.)
    """
    rate, sgd = settings.learning_rate, settings.optimizer == "sgd"
    exempt = () if sgd else tuple(getattr(model, "no_weight_decay", set)())
    groups: Any
    if settings.layer_decay < 1:
        groups = param_groups_layer_decay(
            model,
            settings.weight_decay,
            no_weight_decay_list=exempt,
            weight_decay_exclude_1d=not sgd,
            layer_decay=settings.layer_decay,
        )
        for group in groups:
            group["lr"] = rate * group.pop("lr_scale")
    elif sgd:
        groups = [p for p in model.parameters() if p.requires_grad]
    else:
        groups = param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=exempt)
    if sgd:
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(groups, lr=rate, fused=fused)


def count_steps(batches: int, settings: TrainSettings) -> int:
    """Number of steps of the optimizer in an epoch of so many batches; the last step may have fewer batches."""
    return math.ceil(batches / settings.grad_accum_steps)


def learning_rate_factor(
    settings: TrainSettings, steps_per_epoch: float, total: int | None = None
) -> Callable[[int], float]:
    """The factor on the learning rate in each step, as a function of the step's number, counted from 0.

    The rate first rises linearly for ``warmup_steps`` or ``warmup_epochs``. Then ``step`` multiplies it by ``gamma``
    after each milestone, and ``cosine`` lowers it so that a step after the last would have ``min_learning_rate``
    (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts).

    Args:
        steps_per_epoch: unit of ``warmup_epochs`` and, in a run of so many epochs, of ``milestones``.
        total: steps of the run; None: those of ``epochs``.
    """
    unit = 1 if settings.epochs is None else steps_per_epoch
    if total is None:
        total = round((settings.epochs or 1) * steps_per_epoch)
    warmup = settings.warmup_steps or round(settings.warmup_epochs * steps_per_epoch)
    floor = settings.min_learning_rate / settings.learning_rate

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "cosine":
            falling = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
            return floor + (1 - floor) * falling
        return float(settings.gamma ** sum(step >= milestone * unit for milestone in settings.milestones))

    return factor
