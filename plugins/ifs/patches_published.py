"""The random patches of 2D-OFDB and 1p-frac, from CPython's ``random``: ``randrange(1, 512)`` for each point.

The program of 2D-OFDB (Nakamura et al., ICCV 2023) draws the only images of all categories from one stream, so an image
begins behind the points of all categories before it. A fractal that diverges has fewer points: of the 1,000 published
categories with a times 0.2 one does, 203.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt16, UInt32
from numpy.typing import NDArray

from formulavision import Category, WalkedStreams
from formulavision.rendering import kernel, python_random

from .parameters import IfsParams

__all__ = ["published_masks", "skip_masks", "walked_patches"]

_STRETCH = 128
"""Number of images of a stretch of the stream."""
_MASKS = 511
_CHECKPOINT = np.dtype([("image", "<i8"), ("state", "<u4", 626)])
"""The state of Python's random where an image begins, and the image's number behind it."""


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


def walked_patches(
    name: str, version: int, params: IfsParams, categories: Sequence[Category], length: Callable[[Category], int]
) -> WalkedStreams:
    """The stream that the images of all categories share, one image a category.

    Args:
        name, version: of the generator.
        length: gives the number of points of a category's image.
    """
    digest = hashlib.sha256()
    for category in categories:
        digest.update(len(category.parameters).to_bytes(8, "little") + category.parameters.tobytes())
    systems = [digest.hexdigest(), params.weight_interval]
    return WalkedStreams(
        name,
        {"patches": version, "seed": params.patch_seed, "dots": params.dots, "systems": systems},
        streams=1,
        length=len(categories),
        stretch=_STRETCH,
        start=partial(_start, params.patch_seed),
        walk=partial(_walk, categories, length),
    )


def _start(seed: int, stream: int) -> UInt32[np.ndarray, " 626"]:
    return np.append(python_random.seeded(seed), np.uint32(0))


def _walk(
    categories: Sequence[Category],
    length: Callable[[Category], int],
    state: UInt32[np.ndarray, " 626"],
    images: int,
) -> NDArray[Any]:
    found = np.zeros(images + 1, _CHECKPOINT)
    for image in range(images + 1):
        found[image] = image, state
        if image < images:
            skip_masks(state[:-1], length(categories[state[-1]]))
            state[-1] += 1
    return found
