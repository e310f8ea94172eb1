"""The random streams of the published program Visual Atoms: categories, centres, and walks along the streams.

Source: Takashima et al., "Visual Atoms", CVPR 2023, and the program that they published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt32
from numpy.typing import NDArray

from formulavision.rendering import kernel, python_random

from .parameters import WaveRanges

__all__ = ["advance", "read_category", "read_centre", "walk"]

_WORDS_BETWEEN = 1 << 22
"""Random words from a checkpoint to the next: a millisecond of walking."""

_CHECKPOINT = np.dtype([("image", "<i8"), ("category", "<f8", 9), ("centre", "<f8", 2), ("state", "<u4", 625)])


@kernel
def read_category(state: UInt32[np.ndarray, " 625"], ranges: WaveRanges, category: Float64[np.ndarray, " 9"]) -> None:
    """Draw a category: V, L, P, w, R, n1, n2, and the stretch along x and y."""
    (
        vertices_min, vertices_max, lines_min, lines_max, perlin_min, perlin_max, line_width,
        radius_min, radius_max, wave_1_min, wave_1_max, wave_2_min, wave_2_max, oval_rate, _, _,
    ) = ranges  # fmt: skip
    category[0] = python_random.randint(state, vertices_min, vertices_max)
    category[1] = python_random.randint(state, lines_min, lines_max)
    category[2] = python_random.uniform(state, perlin_min, perlin_max)
    category[3] = python_random.uniform(state, 0.0, line_width)
    category[4] = python_random.randint(state, radius_min, radius_max)
    category[5] = python_random.randint(state, wave_1_min, wave_1_max)
    category[6] = python_random.randint(state, wave_2_min, wave_2_max)
    while category[5] != 0 and category[6] == category[5]:
        category[6] = python_random.randint(state, wave_2_min, wave_2_max)
    category[7] = python_random.uniform(state, 1.0, oval_rate)
    category[8] = python_random.uniform(state, 1.0, oval_rate)


@kernel
def read_centre(state: UInt32[np.ndarray, " 625"], ranges: WaveRanges, centre: Float64[np.ndarray, " 2"]) -> None:
    """Draw a centre: y, then x. A category has one for its first instance, and one is drawn behind each image."""
    start_pos, size = ranges[14], ranges[15]
    centre[0] = (size + python_random.randint(state, -start_pos, start_pos)) / 2
    centre[1] = (size + python_random.randint(state, -start_pos, start_pos)) / 2


@kernel
def advance(
    state: UInt32[np.ndarray, " 625"],
    ranges: WaveRanges,
    category: Float64[np.ndarray, " 9"],
    centre: Float64[np.ndarray, " 2"],
    instances: int,
    images: Int64[np.ndarray, " checkpoints"],
    centres: Float64[np.ndarray, "checkpoints 2"],
    states: UInt32[np.ndarray, "checkpoints 625"],
) -> int:
    """Walk over instances of a category, and note checkpoints as long as there is room for them.

    Args:
        state: where the first instance begins, is moved on behind the last.
        category: its parameters.
        centre: of the first instance, becomes that of the next.
        instances: number of instances.
        images, centres, states: numbers of instances, with the centre and the state that each begins with.

    Returns:
        Number of checkpoints.
    """
    found, words = 0, _WORDS_BETWEEN
    vertices, lines = int(category[0]), int(category[1])
    for instance in range(instances):
        if words >= _WORDS_BETWEEN and found < len(images):
            images[found], centres[found], states[found] = instance, centre, state
            found += 1
            words = 0
        for _ in range(lines):
            python_random.below(state, 256)
            python_random.skip(state, 4 * vertices)
        words += 4 * vertices * lines
        read_centre(state, ranges, centre)
    return found


def walk(ranges: WaveRanges, instances: int, state: UInt32[np.ndarray, " 625"], images: int) -> NDArray[Any]:
    """Checkpoints along whole categories, each of ``instances`` images; one at least where each begins."""
    parts = []
    category, centre = np.empty(9), np.empty(2)
    for first in range(0, images, instances):
        read_category(state, ranges, category)
        read_centre(state, ranges, centre)
        room = min(instances, 2 + int(4 * category[0] * category[1]) * instances // _WORDS_BETWEEN)
        part = np.empty(room, _CHECKPOINT)
        part["category"] = category
        numbers, centres, states = np.empty(room, np.int64), np.empty((room, 2)), np.empty((room, 625), np.uint32)
        found = advance(state, ranges, category, centre, instances, numbers, centres, states)
        part["image"], part["centre"], part["state"] = numbers + first, centres, states
        parts.append(part[:found])
    end = np.zeros(1, _CHECKPOINT)
    end["image"], end["state"] = images, state
    return np.concatenate([*parts, end])
