"""What the kernels for GPUs have in common. They are written in Triton, which comes with torch on Linux.

A kernel's twin on the CPU lies in the module whose name lacks ``_triton``. Both do the same operations in the same
order, and ``EXACT`` keeps Triton from fusing multiplications with additions, so that they give the same bits.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["EXACT", "SCRATCH_BYTES", "in_parts", "keep", "runs_on", "signed", "upload"]

EXACT: dict[str, Any] = {"enable_fp_fusion": False}
"""Options of every launch."""
SCRATCH_BYTES = 32 << 20
"""Memory for what atomic maxima are taken in: it stays in the second-level cache of a large GPU."""


def runs_on(device: torch.device) -> bool:
    """Whether kernels run on a device: on GPUs, and in Triton's interpreter (TRITON_INTERPRET=1) on the CPU."""
    if importlib.util.find_spec("triton") is None:
        return False
    return device.type == ("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def in_parts(images: int, pixels: int) -> Iterator[slice]:
    """Parts of a batch whose scratch memory, 4 bytes a pixel, is ``SCRATCH_BYTES``, or one image's if that is more."""
    step = max(1, SCRATCH_BYTES // (4 * pixels))
    return (slice(start, start + step) for start in range(0, images, step))


def keep(array: ArrayLike, device: torch.device) -> torch.Tensor:
    """An array that stays on a device, there for every stream when this returns."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def upload(array: ArrayLike, device: torch.device) -> torch.Tensor:
    """An array for one drawing; a GPU copies it when its stream gets there, and nothing waits for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def signed(word: int) -> int:
    """An integer's lower 32 bits as an int32, which is how kernels take a uint32 whatever its value."""
    word &= 0xFFFF_FFFF
    return word - (1 << 32) if word >= 1 << 31 else word
