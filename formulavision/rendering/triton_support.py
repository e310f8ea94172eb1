"""Helpers of the GPU kernels, which are written in Triton; Triton comes with torch on Linux.

The twin of a GPU kernel on the CPU is in the module whose name lacks ``_triton``. Both do the same operations in the
same order, and ``EXACT`` keeps Triton from fusing multiplications with additions, so both give the same bits.
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
"""Options of every kernel launch."""
SCRATCH_BYTES = 32 << 20
"""Size of the arrays that kernels take atomic maxima in: it fits the second-level cache of a large GPU."""


def runs_on(device: torch.device) -> bool:
    """Whether Triton kernels run on a device: on GPUs; in Triton's interpreter (TRITON_INTERPRET=1) on the CPU."""
    if importlib.util.find_spec("triton") is None:
        return False
    return device.type == ("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def in_parts(images: int, pixels: int, scratch: int | None = None) -> Iterator[slice]:
    """Divide a batch into parts that need at most so much scratch memory, or into single images.

    Args:
        images: number of images in the batch.
        pixels: number of pixels of an image; each takes 4 bytes.
        scratch: bytes; unset: ``SCRATCH_BYTES``.
    """
    step = max(1, (SCRATCH_BYTES if scratch is None else scratch) // (4 * pixels))
    return (slice(start, start + step) for start in range(0, images, step))


def keep(array: ArrayLike, device: torch.device) -> torch.Tensor:
    """Copy an array to a device to stay there; when this returns, all streams can use it."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def upload(array: ArrayLike, device: torch.device) -> torch.Tensor:
    """Copy an array to a device for one drawing: a GPU copies it on its current stream, and the host does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def signed(word: int) -> int:
    """The lower 32 bits of an integer as an int32, the type in which kernels take a uint32."""
    word &= 0xFFFF_FFFF
    return word - (1 << 32) if word >= 1 << 31 else word
