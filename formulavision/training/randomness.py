"""Global random generators of Python, numpy and torch, kept for the caller."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["own_randomness"]


@contextmanager
def own_randomness() -> Iterator[None]:
    """Restore Python's, numpy's and torch's global generators after the block, whatever it seeds or draws."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # Reading the state of a GPU that is not in use would initialise CUDA.
    used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=used):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
