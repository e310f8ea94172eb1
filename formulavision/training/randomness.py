"""Random numbers of our own beside the caller's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["own_randomness"]


@contextmanager
def own_randomness() -> Iterator[None]:
    """Whatever the block seeds or draws: Python's, numpy's and torch's global generators are afterwards as before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    # A device that nobody has used yet has no state, and reading it would start it.
    used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=used):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
