"""The random streams of the published programs RCDB and SegRCDB: categories, positions, and walks along the streams.

Sources: Kataoka et al., "Replacing Labeled Real-Image Datasets With Auto-Generated Contours", CVPR 2022; Shinoda et
al., "SegRCDB", ICCV 2023; and the programs that they published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt32
from numpy.typing import NDArray

from formulavision.rendering import kernel, python_random

from .parameters import Ranges

__all__ = [
    "advance",
    "advance_scenes",
    "published_classes",
    "read_category",
    "read_next_placement",
    "read_position",
    "read_shape",
    "start",
    "walk_categories",
    "walk_scenes",
]

_WORDS_BETWEEN = 1 << 22
"""Random words from a checkpoint to the next: a millisecond of walking."""


def start(stream: int) -> UInt32[np.ndarray, " 625"]:
    """The state of a process of the original at its beginning."""
    return python_random.seeded(stream + 1)


# Kernels -------------------------------------------------------------------------------------------------------------


@kernel
def read_category(state: UInt32[np.ndarray, " 625"], ranges: Ranges, category: Float64[np.ndarray, " 4"]) -> None:
    """Draw a category: numbers of vertices V and lines L, coefficient of the noise P, line width w."""
    vertices_max, vertices_rate, lines_min, lines_max, perlin_min, perlin_max, line_width, _, _, _, _, _ = ranges
    vertices = 0
    while vertices <= 2 or vertices > vertices_max:
        vertices = int(python_random.expovariate(state, vertices_rate))
    category[0] = vertices
    category[1] = python_random.randint(state, lines_min, lines_max)
    category[2] = python_random.uniform(state, perlin_min, perlin_max)
    category[3] = python_random.uniform(state, 0.0, line_width)


@kernel
def read_shape(state: UInt32[np.ndarray, " 625"], ranges: Ranges, shape: Float64[np.ndarray, " 3"]) -> None:
    """Draw a shape as a category's first one is: radius, stretch along x and along y."""
    _, _, _, _, _, _, _, radius_min, radius_max, oval_rate, _, _ = ranges
    shape[0] = python_random.randint(state, radius_min, radius_max)
    shape[1] = python_random.uniform(state, 1.0, oval_rate)
    shape[2] = python_random.uniform(state, 1.0, oval_rate)


@kernel
def read_position(state: UInt32[np.ndarray, " 625"], ranges: Ranges, position: Float64[np.ndarray, " 2"]) -> None:
    """Draw a centre: y, then x."""
    _, _, _, _, _, _, _, _, _, _, start_pos, size = ranges
    position[0] = (size + python_random.randint(state, -start_pos, start_pos)) / 2
    position[1] = (size + python_random.randint(state, -start_pos, start_pos)) / 2


@kernel
def read_next_placement(
    state: UInt32[np.ndarray, " 625"], ranges: Ranges, placement: Float64[np.ndarray, " 5"]
) -> None:
    """Draw shape and centre of the next instance, as RCDB does behind each image."""
    _, _, _, _, _, _, _, radius_min, radius_max, oval_rate, _, _ = ranges
    placement[1] = python_random.uniform(state, 1.0, oval_rate)
    placement[2] = python_random.uniform(state, 1.0, oval_rate)
    placement[0] = python_random.randint(state, radius_min, radius_max)
    read_position(state, ranges, placement[3:])


@kernel
def _skip_lines(state: UInt32[np.ndarray, " 625"], vertices: int, lines: int, grays: int) -> None:
    """Skip the random numbers of a contour."""
    for _ in range(lines):
        python_random.below(state, grays)
        python_random.skip(state, 4 * vertices)


@kernel
def advance(
    state: UInt32[np.ndarray, " 625"],
    ranges: Ranges,
    grays: int,
    category: Float64[np.ndarray, " 4"],
    placement: Float64[np.ndarray, " 5"],
    instances: int,
    images: Int64[np.ndarray, " checkpoints"],
    placements: Float64[np.ndarray, "checkpoints 5"],
    states: UInt32[np.ndarray, "checkpoints 625"],
) -> int:
    """Walk over instances of a category of RCDB, and note checkpoints as long as there is room for them.

    Args:
        state: where the first instance begins, is moved on behind the last.
        grays: number of gray levels that a line's is drawn from.
        category: its parameters.
        placement: of the first instance (radius, stretch along x and y, centre y and x), becomes that of the next.
        instances: number of instances.
        images, placements, states: numbers of instances, with the placement and the state that each begins with.

    Returns:
        Number of checkpoints.
    """
    found, words = 0, _WORDS_BETWEEN
    vertices, lines = int(category[0]), int(category[1])
    for instance in range(instances):
        if words >= _WORDS_BETWEEN and found < len(images):
            images[found], placements[found], states[found] = instance, placement, state
            found += 1
            words = 0
        _skip_lines(state, vertices, lines, grays)
        words += 4 * vertices * lines
        read_next_placement(state, ranges, placement)
    return found


@kernel
def advance_scenes(
    state: UInt32[np.ndarray, " 625"],
    ranges: Ranges,
    vertices: Int64[np.ndarray, " classes"],
    lines: Int64[np.ndarray, " classes"],
    objects: int,
    scenes: int,
    images: Int64[np.ndarray, " checkpoints"],
    states: UInt32[np.ndarray, "checkpoints 625"],
) -> int:
    """As ``advance``, over scenes of SegRCDB; each object is of a random class."""
    found, words = 0, _WORDS_BETWEEN
    position = np.empty(2)
    for scene in range(scenes):
        if words >= _WORDS_BETWEEN and found < len(images):
            images[found], states[found] = scene, state
            found += 1
            words = 0
        for _ in range(objects):
            drawn = python_random.below(state, len(vertices))
            read_position(state, ranges, position)
            _skip_lines(state, vertices[drawn], lines[drawn], 256)
            words += 4 * vertices[drawn] * lines[drawn]
    return found


# Categories of SegRCDB -----------------------------------------------------------------------------------------------


def published_classes(ranges: Ranges, count: int) -> Float64[np.ndarray, "{count} 7"]:
    """The classes that the first program of SegRCDB draws: of each the category, then the shape."""
    state = python_random.seeded(0)
    classes = np.empty((count, 7))
    for each in classes:
        read_category(state, ranges, each[:4])
        read_shape(state, ranges, each[4:])
    return classes


# Walks for WalkedStreams ---------------------------------------------------------------------------------------------

CATEGORY_CHECKPOINT = np.dtype(
    [("image", "<i8"), ("category", "<f8", 4), ("placement", "<f8", 5), ("state", "<u4", 625)]
)
SCENE_CHECKPOINT = np.dtype([("image", "<i8"), ("state", "<u4", 625)])


def walk_categories(
    ranges: Ranges, grays: int, instances: int, state: UInt32[np.ndarray, " 625"], images: int
) -> NDArray[Any]:
    """Checkpoints along whole categories of RCDB, each of ``instances`` images; one at least where each begins."""
    parts = []
    category, placement = np.empty(4), np.empty(5)
    for first in range(0, images, instances):
        read_category(state, ranges, category)
        read_shape(state, ranges, placement[:3])
        read_position(state, ranges, placement[3:])
        room = min(instances, 2 + int(4 * category[0] * category[1]) * instances // _WORDS_BETWEEN)
        part = np.empty(room, CATEGORY_CHECKPOINT)
        part["category"] = category
        numbers, placements, states = np.empty(room, np.int64), np.empty((room, 5)), np.empty((room, 625), np.uint32)
        found = advance(state, ranges, grays, category, placement, instances, numbers, placements, states)
        part["image"], part["placement"], part["state"] = numbers + first, placements, states
        parts.append(part[:found])
    end = np.zeros(1, CATEGORY_CHECKPOINT)
    end["image"], end["state"] = images, state
    return np.concatenate([*parts, end])


def walk_scenes(
    ranges: Ranges,
    vertices: Int64[np.ndarray, " classes"],
    lines: Int64[np.ndarray, " classes"],
    objects: int,
    state: UInt32[np.ndarray, " 625"],
    images: int,
) -> NDArray[Any]:
    """Checkpoints along scenes of SegRCDB."""
    numbers, states = np.empty(images, np.int64), np.empty((images, 625), np.uint32)
    found = advance_scenes(state, ranges, vertices, lines, objects, images, numbers, states)
    checkpoints = np.zeros(found + 1, SCENE_CHECKPOINT)
    checkpoints["image"] = [*numbers[:found], images]
    checkpoints["state"] = [*states[:found], state]
    return checkpoints
