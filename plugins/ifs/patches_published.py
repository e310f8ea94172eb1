"""The random patches of 2D-OFDB and 1p-frac, from CPython's ``random``: ``randrange(1, 512)`` for each point.

The program of 2D-OFDB (Nakamura et al., ICCV 2023) draws the only images of all categories from one stream. A fractal
that diverges takes fewer numbers there, one for each point before that; here each takes ``dots``, since an image is
drawn without the categories before it. Of the 1,000 published categories with a times 0.2 one diverges, 203.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt16, UInt32
from numpy.typing import NDArray

from formulavision.rendering import kernel, python_random

__all__ = ["STRETCH", "published_masks", "skip_images", "skip_masks", "start", "walk"]

STRETCH = 128
"""Number of images of a stretch of the stream."""
_BETWEEN = 8
"""Number of images from a checkpoint to the next."""
_MASKS = 511
_CHECKPOINT = np.dtype([("image", "<i8"), ("state", "<u4", 625)])


@kernel
def published_masks(state: UInt32[np.ndarray, " 625"], masks: UInt16[np.ndarray, " masks"]) -> None:
    """Fill ``masks`` with the next values of ``randrange(1, 512)``, and move the stream on."""
    for i in range(len(masks)):
        masks[i] = 1 + python_random.below(state, _MASKS)


@kernel
def skip_masks(state: UInt32[np.ndarray, " 625"], masks: int) -> None:
    """Move the stream on behind a number of masks."""
    for _ in range(masks):
        python_random.below(state, _MASKS)


def skip_images(state: UInt32[np.ndarray, " 625"], images: int, dots: int) -> UInt32[np.ndarray, " 625"]:
    """The state behind a number of images of ``dots`` points."""
    state = state.copy()
    skip_masks(state, images * dots)
    return state


def start(seed: int, stream: int) -> UInt32[np.ndarray, " 625"]:
    """The stream at its beginning, for ``WalkedStreams``."""
    return python_random.seeded(seed)


def walk(dots: int, state: UInt32[np.ndarray, " 625"], images: int) -> NDArray[Any]:
    """Checkpoints along the stream, for ``WalkedStreams``."""
    numbers = [*range(0, images, _BETWEEN), images]
    found = np.empty(len(numbers), _CHECKPOINT)
    before = 0
    for checkpoint, number in zip(found, numbers, strict=True):
        state = skip_images(state, number - before, dots)
        checkpoint["image"], checkpoint["state"], before = number, state, number
    return found
