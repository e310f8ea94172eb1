"""Which of several processes this is, and what they have to share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm

from formulavision.util.errors import ConfigError

__all__ = ["Processes", "launched", "sum_over_processes", "synchronise_batch_norm"]


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together.

    Attributes:
        rank: this one's number among all; 0 writes the files and speaks.
        local_rank: this one's number on this machine, and that of its GPU.
        world_size: how many there are.
        local_size: how many of them are on this machine.
    """

    rank: int
    local_rank: int
    world_size: int
    local_size: int

    @property
    def nodes(self) -> int:
        return self.world_size // self.local_size


def launched() -> Processes | None:
    """What torchrun says of this process; None where it did not start it.

    Raises:
        ConfigError: the machines have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    rank, local_rank, world_size, local_size = (int(os.environ[name]) for name in names)
    if world_size % local_size:
        raise ConfigError(f"torchrun: {world_size} processes are not {local_size} on each machine")
    return Processes(rank, local_rank, world_size, local_size)


def synchronise_batch_norm(model: torch.nn.Module, device: torch.device) -> None:
    """Make batch normalisation take its statistics over the images of all processes, as one process would.

    On GPUs that is torch's ``SyncBatchNorm``, or timm's where a layer holds an activation besides; they do not run on
    the CPU, where this is for trying things out. Frozen layers stay as they are: they take no statistics.
    """
    for name, child in model.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            if child.training:
                on_cpu = device.type == "cpu"
                setattr(model, name, _SynchronisedBatchNorm(child) if on_cpu else convert_sync_batchnorm(child))
        else:
            synchronise_batch_norm(child, device)


class _SynchronisedBatchNorm(torch.nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) over the images of all processes, in plain operations.

    It shares parameters and buffers with the module whose place it takes, under the same names.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, norm: torch.nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, 0.1 if norm.momentum is None else norm.momentum
        # timm's layers hold an activation besides.
        self.drop: Any = getattr(norm, "drop", torch.nn.Identity())
        self.act: Any = getattr(norm, "act", torch.nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised images of the same shape, [b, c, h, w]; b may differ between processes."""
        if self.training:
            count = x.new_tensor([float(x.numel() // x.shape[1])])
            sums: torch.Tensor = _Sum.apply(torch.cat([x.sum((0, 2, 3)), count]))
            n = sums[-1]
            mean = sums[:-1] / n
            # In a pass of its own: the difference of two large numbers would be rounding.
            variance = _Sum.apply((x - mean[:, None, None]).square().sum((0, 2, 3))) / n
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * n / (n - 1), self.momentum)
                self.num_batches_tracked += 1
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        out = (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]
        return self.act(self.drop(out))


class _Sum(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(value)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(gradient)


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes; the tensor itself where there is one."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value
