"""The random streams of the published programs for clouds and views of MV-FractalDB.

One stream of numpy has 10,000 numbers for each cloud, and one of Python has a number for each view, in the order of
categories, clouds and views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, UInt32
from numpy.typing import NDArray

from formulavision.rendering import mersenne, python_random

from .clouds import POINTS

__all__ = ["cloud_draws", "start", "turns", "walk"]

VIEWS = 12
"""Number of views of a cloud."""
BETWEEN = 29
"""Number of clouds from a checkpoint to the next."""
_WORDS = 2 * (POINTS + 1)
_CHECKPOINT = np.dtype([("image", "<i8"), ("state", "<u4", mersenne.WORDS)])


def start(seed: int, stream: int) -> UInt32[np.ndarray, " 624"]:
    """The stream of all clouds at its beginning."""
    return mersenne.stream(seed)


def walk(state: UInt32[np.ndarray, " 624"], clouds: int) -> NDArray[Any]:
    """Checkpoints along the stream of clouds, for ``WalkedStreams``."""
    numbers = [*range(0, clouds, BETWEEN), clouds]
    found = np.empty(len(numbers), _CHECKPOINT)
    before = 0
    for checkpoint, number in zip(found, numbers, strict=True):
        mersenne.skip(state, (number - before) * _WORDS)
        checkpoint["image"], checkpoint["state"], before = number, state, number
    return found


def cloud_draws(state: UInt32[np.ndarray, " 624"], clouds: int) -> Float64[np.ndarray, " draws"]:
    """The random numbers of a cloud, ``clouds`` clouds behind a state, which is moved on behind them."""
    mersenne.skip(state, clouds * _WORDS)
    random = mersenne.legacy_random(0)
    random.set_state({"bit_generator": "MT19937", "state": {"key": state, "pos": 0}})
    mersenne.skip(state, _WORDS)
    return random.random_sample(POINTS + 1)


def turns(seed: int, cloud: int) -> Float64[np.ndarray, " 12"]:
    """Angles in degrees by which the views of a cloud are turned; the original takes radians for degrees.

    Args:
        seed: of Python's generator.
        cloud: number of the cloud, over all categories.
    """
    state, fractions = python_random.seeded(seed), np.empty(VIEWS)
    python_random.skip(state, 2 * VIEWS * cloud)
    python_random.fractions(state, np.empty(2 * VIEWS, np.uint32), fractions)
    return -np.pi + (np.pi - -np.pi) * fractions
