"""The random streams of the published programs for clouds and views of MV-FractalDB.

One stream of numpy has 10,000 numbers for each cloud, and one of Python has a number for each view, in the order of
categories, clouds and views. A cloud that diverges takes its numbers of the first stream, but is not written: there are
no views of it, and the next cloud that is written gets its number and its turns.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt32
from numpy.typing import NDArray

from formulavision import Category, WalkedStreams
from formulavision.rendering import mersenne, python_random

from .clouds import POINTS, cloud

__all__ = ["cloud_draws", "turns", "walked_clouds", "written_clouds"]

VIEWS = 12
"""Number of views of a cloud."""
_BETWEEN = 29
"""Number of clouds from a checkpoint to the next."""
_STRETCH = 20 * _BETWEEN
"""Number of clouds of a stretch of the stream."""
_WORDS = 2 * (POINTS + 1)
_CHECKPOINT = np.dtype([("image", "<i8"), ("state", "<u4", mersenne.WORDS + 2), ("written", "?", _BETWEEN)])
"""Where a cloud begins, and which clouds are written from there on. A state is that of numpy's generator, the number of
clouds before it, and the number of those that are written."""


def walked_clouds(
    name: str,
    version: int,
    seed: int,
    table: Float64[np.ndarray, "rows 12"],
    seen: Int64[np.ndarray, " seen"],
    categories: Sequence[Category],
) -> WalkedStreams:
    """The stream that the clouds of all categories share; an image of it is a cloud.

    Args:
        name, version: of the generator.
        seed: of numpy's generator.
        table: weights of the clouds of a category.
        seen: rows of the table whose clouds are written; the others take their numbers only.
    """
    systems = np.concatenate([category.parameters for category in categories])
    sizes = [len(category.parameters) for category in categories]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in (systems, table, seen))).hexdigest()
    return WalkedStreams(
        name,
        {"version": version, "seed": seed, "rows": len(table), "systems": [digest, sizes]},
        streams=1,
        length=len(categories) * len(table),
        stretch=_STRETCH,
        start=functools.partial(_start, seed),
        walk=functools.partial(_walk, categories, table, frozenset(seen.tolist())),
    )


def _start(seed: int, stream: int) -> UInt32[np.ndarray, " 626"]:
    return np.append(mersenne.stream(seed), np.zeros(2, np.uint32))


def _walk(
    categories: Sequence[Category],
    table: Float64[np.ndarray, "rows 12"],
    seen: frozenset[int],
    state: UInt32[np.ndarray, " 626"],
    clouds: int,
) -> NDArray[Any]:
    numbers = [*range(0, clouds, _BETWEEN), clouds]
    found = np.zeros(len(numbers), _CHECKPOINT)
    for checkpoint, number in zip(found, numbers, strict=True):
        checkpoint["image"], checkpoint["state"] = number, state
        for place in range(min(_BETWEEN, clouds - number)):
            category, row = divmod(int(state[-2]), len(table))
            draws = cloud_draws(state[: mersenne.WORDS], 0)
            written = row in seen and cloud(np.array(categories[category].parameters), table[row], draws).size > 0
            checkpoint["written"][place] = written
            state[-2:] += np.array([1, written], np.uint32)
    return found


@functools.lru_cache(maxsize=16)
def written_clouds(streams: WalkedStreams, category: int, rows: int) -> tuple[int, Int64[np.ndarray, " clouds"]]:
    """The clouds that the program writes: how many of all categories before, and rows of the table of a category's own.

    The last answers are kept: points and views of a cloud ask for the same.

    Args:
        streams: from ``walked_clouds``.
        category: its index.
        rows: number of rows of the table.
    """
    first = category * rows
    skipped = first % _BETWEEN
    checkpoints = [streams.checkpoint(number) for number in range(first - skipped, first + rows, _BETWEEN)]
    written = np.concatenate([checkpoint["written"] for checkpoint in checkpoints])
    before = int(checkpoints[0]["state"][-1]) + int(written[:skipped].sum())
    return before, np.flatnonzero(written[skipped : skipped + rows])


def cloud_draws(state: UInt32[np.ndarray, " 624"], clouds: int) -> Float64[np.ndarray, " draws"]:
    """The random numbers of a cloud, ``clouds`` clouds behind a state, which is moved on behind them."""
    mersenne.skip(state, clouds * _WORDS)
    draws = np.empty(POINTS + 1)
    mersenne.random_sample(state, draws)
    return draws


def turns(seed: int, cloud: int) -> Float64[np.ndarray, " 12"]:
    """Angles in degrees by which the views of a cloud are turned; the original takes radians for degrees.

    Args:
        seed: of Python's generator.
        cloud: number of the cloud, of those that are written, over all categories.
    """
    state, fractions = python_random.seeded(seed), np.empty(VIEWS)
    python_random.skip(state, 2 * VIEWS * cloud)
    python_random.fractions(state, np.empty(2 * VIEWS, np.uint32), fractions)
    return -np.pi + (np.pi - -np.pi) * fractions
