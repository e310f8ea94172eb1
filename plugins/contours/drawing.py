"""Drawing single contours on the CPU: polygons of a category's instances, and their pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8
from numpy.typing import NDArray

from formulavision import Category, ConfigError, WalkedStreams

from . import published, shapes
from .independent import frames, gray_levels
from .parameters import ContourParams, RcdbParams

__all__ = ["Contour", "independent_contours", "instance_counter", "published_contours", "scratch"]

Contour = tuple[int, Int32[np.ndarray, "lines 2 vertices"], UInt8[np.ndarray, " lines"]]
"""Place of an instance in its batch, the polygons of its lines in pixels, and their gray levels."""


def instance_counter(instance: int, category: int) -> tuple[int, int, int]:
    """The last three words of the counter of an instance's random numbers in kernels."""
    return instance & 0xFFFF_FFFF, category, instance >> 32


def independent_contours(
    params: ContourParams,
    size: int,
    key: tuple[int, int],
    category: Category,
    instances: Int64[np.ndarray, " n"],
    shapes_of_instances: Float64[np.ndarray, "n 3"],
    uniform: Float64[np.ndarray, "n numbers"],
) -> Iterator[Contour]:
    """Contours with counter-based random numbers.

    Args:
        params: the recipe's.
        size: of the canvas.
        key: of the random numbers in kernels.
        category, instances: the instances.
        shapes_of_instances: radius, stretch along x and along y.
        uniform: random numbers of each instance: centre y and x, and the gray level of each line.

    Yields:
        One contour after the other; the next one overwrites its polygons.
    """
    vertices, lines = category.parameters[0, :2].astype(int).tolist()
    directions = shapes.angles(vertices).astype(np.float32)
    contours = np.broadcast_to(category.parameters, (len(instances), category.parameters.shape[1]))
    placed = frames(params, size, contours, shapes_of_instances, uniform[:, :2])
    grays = gray_levels(uniform[:, 2:])
    polygons = scratch("polygons", (lines, 2, vertices), np.int32)
    for i, instance in enumerate(instances.tolist()):
        counter = instance_counter(instance, category.index)
        shapes.independent_polygons(directions, placed[i], counter, key, polygons)
        yield i, polygons, grays[i]


def published_contours(
    params: RcdbParams, size: int, streams: WalkedStreams, category: Category, instances: Int64[np.ndarray, " n"]
) -> Iterator[Contour]:
    """Contours of the published RCDB, in the order of their numbers.

    Raises:
        ConfigError: the category is not the published set's, so it was read from files.
    """
    ranges, first = params.ranges(), category.index * params.published_instances
    vertices, lines = category.parameters[0, :2].astype(int).tolist()
    grays, brightest = np.empty(lines, np.uint8), params.image_size // 2
    corners, nowhere = np.empty((lines, 2, vertices)), np.zeros(2)
    none = np.empty(0, np.int64), np.empty((0, 5)), np.empty((0, 625), np.uint32)
    at, state, placement = -1, none[2], none[1]
    for i in np.argsort(instances, kind="stable"):
        instance = int(instances[i])
        checkpoint = streams.checkpoint(first + instance)
        nearest = int(checkpoint["image"]) - first
        if not nearest <= at <= instance:
            at, state, placement = nearest, checkpoint["state"].copy(), checkpoint["placement"].copy()
        if not np.array_equal(checkpoint["category"], category.parameters[0]):
            raise ConfigError(
                f"categories.folder: {category.name} is not category {category.index} of the published set, whose "
                "images depend on the order of its categories: use random: independent for categories from files"
            )
        published.advance(state, ranges, brightest + 1, category.parameters[0], placement, instance - at, *none)
        published_shape, centre = placement[:3].copy(), placement[3:].copy()
        perlin, width = category.parameters[0, 2:].tolist()
        shapes.published_vertices(
            state, shapes.angles(vertices), perlin, width, published_shape, nowhere, brightest, grays, corners
        )
        published.read_next_placement(state, ranges, placement)
        at = instance + 1
        yield int(i), shapes.to_polygons(corners, centre, size / params.image_size), grays


_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Memory of this thread, zeros at first, which the next contour uses again: new pages cost more than drawing."""
    length = int(np.prod(shape))
    buffer = getattr(_buffers, name, None)
    if buffer is None or len(buffer) < length or buffer.dtype != dtype:
        buffer = np.zeros(length, dtype)
        setattr(_buffers, name, buffer)
    return buffer[:length].reshape(shape)
