"""What several processes compute together: statistics of batch normalisation, and sums."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torchmetrics.utilities.distributed import gather_all_tensors

__all__ = ["join_over_processes", "sum_over_processes", "synchronise_batch_norm"]


def synchronise_batch_norm(model: torch.nn.Module, device: torch.device) -> None:
    """Synchronised batch normalisation: its statistics are over the images of all processes, as one process has them.

    On GPUs the layers become torch's ``SyncBatchNorm``, or timm's where a layer also holds an activation. These do not
    run on the CPU, where layers of ours stand in. Frozen layers stay as they are: they compute no statistics.
    """
    for name, child in model.named_children():
        if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
            if child.training:
                on_cpu = device.type == "cpu"
                setattr(model, name, _SynchronisedBatchNorm(child) if on_cpu else convert_sync_batchnorm(child))
        else:
            synchronise_batch_norm(child, device)


class _SynchronisedBatchNorm(torch.nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) over the images of all processes, for the CPU.

    It shares parameters and buffers with the module that it replaces, under the same names.
    """

    running_mean: torch.Tensor | None
    running_var: torch.Tensor | None
    num_batches_tracked: torch.Tensor | None

    def __init__(self, norm: torch.nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, norm.momentum
        # timm's layers also hold an activation.
        self.drop: Any = getattr(norm, "drop", torch.nn.Identity())
        self.act: Any = getattr(norm, "act", torch.nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised inputs of the same shape and dtype, [b, c, ...]; b may differ between processes.

        Numbers of 16 bits are computed in float32, as torch does.
        """
        given, x = x.dtype, x.to(torch.promote_types(x.dtype, torch.float32))
        others, shape = [d for d in range(x.ndim) if d != 1], (1, -1, *(1 for _ in x.shape[2:]))
        if self.training or self.running_mean is None:
            count = x.new_tensor([float(x.numel() // x.shape[1])])
            sums: torch.Tensor = _Sum.apply(torch.cat([x.sum(others), count]))
            n = sums[-1]
            mean = sums[:-1] / n
            # A second pass over the images: a difference of two large numbers would lose its digits to rounding.
            variance = _Sum.apply((x - mean.view(shape)).square().sum(others)) / n
        else:
            assert self.running_var is not None
            mean, variance = self.running_mean, self.running_var
        if self.training and self.running_mean is not None:
            assert self.running_var is not None and self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                # Without a momentum, the statistics are means over all batches.
                share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * n / (n - 1), share)
        out = (x - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return self.act(self.drop(out.to(given)))


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
    if not _are_several():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def join_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, of which each may have another number; the tensor itself where there is one."""
    if not _are_several():
        return value
    return torch.cat(gather_all_tensors(value))


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
