"""Contours of a batch of instances, and those of a scene, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8
from numpy.typing import NDArray

from formulavision import Category, ConfigError, WalkedStreams
from formulavision.rendering import python_random

from . import published, shapes
from .independent import frames, gray_levels
from .parameters import ContourParams, RcdbParams, SegRcdbParams

__all__ = [
    "Contour",
    "independent_contours",
    "independent_objects",
    "instance_counter",
    "published_contours",
    "published_objects",
    "scratch",
]

Contour = tuple[int, Int32[np.ndarray, "lines 2 vertices"], UInt8[np.ndarray, " lines"]]
"""Place of an instance in its batch, or category of an object; polygons of its lines in pixels; their gray levels."""


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


# Objects of scenes ---------------------------------------------------------------------------------------------------


def independent_objects(
    params: SegRcdbParams,
    size: int,
    key: tuple[int, int],
    categories: Float64[np.ndarray, "categories 7"],
    random: np.random.Generator,
    scene: int,
) -> Iterator[Contour]:
    """Objects of a scene with counter-based random numbers: category, polygons and gray levels of each.

    Args:
        params: the recipe's.
        size: of the canvas.
        key: of the random numbers in kernels.
        categories: parameters of all categories.
        random: the scene's stream: of each object the category and the centre's y and x, then all gray levels.
        scene: number of the scene.
    """
    uniform = random.random((params.objects, 3))
    labels = (uniform[:, 0] * len(categories)).astype(np.int64)
    contours = categories[labels]
    placed = frames(params, size, contours, contours[:, 4:], uniform[:, 1:])
    lines = contours[:, 1].astype(int)
    grays = np.split(gray_levels(random.random(lines.sum())), np.cumsum(lines)[:-1])
    for number, label in enumerate(labels.tolist()):
        vertices = int(contours[number, 0])
        polygons = scratch("polygons", (len(grays[number]), 2, vertices), np.int32)
        directions = shapes.angles(vertices).astype(np.float32)
        shapes.independent_polygons(directions, placed[number], instance_counter(scene, number), key, polygons)
        yield label, polygons, grays[number]


def published_objects(
    params: SegRcdbParams,
    size: int,
    streams: WalkedStreams,
    categories: Float64[np.ndarray, "categories 7"],
    scene: int,
) -> Iterator[Contour]:
    """Objects of a published scene: category, polygons and gray levels of each."""
    ranges, checkpoint = params.ranges(), streams.checkpoint(scene)
    state, position, nowhere = checkpoint["state"].copy(), np.empty(2), np.zeros(2)
    sizes = np.ascontiguousarray(categories[:, :2].astype(np.int64).T)
    none = np.empty(0, np.int64), np.empty((0, 625), np.uint32)
    before = scene - int(checkpoint["image"])
    published.advance_scenes(state, ranges, sizes[0], sizes[1], params.objects, before, *none)
    for _ in range(params.objects):
        label = python_random.below(state, len(categories))
        published.read_position(state, ranges, position)
        vertices, lines = sizes[:, label].tolist()
        grays, corners = np.empty(lines, np.uint8), np.empty((lines, 2, vertices))
        perlin, width = categories[label, 2:4].tolist()
        shapes.published_vertices(
            state, shapes.angles(vertices), perlin, width, categories[label, 4:], position, 255, grays, corners
        )
        yield label, shapes.to_polygons(corners, nowhere, size / params.image_size), grays


_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Memory of this thread, zeros at first, which the next contour uses again: new pages cost more than drawing."""
    length = int(np.prod(shape))
    buffer = getattr(_buffers, name, None)
    if buffer is None or len(buffer) < length or buffer.dtype != dtype:
        buffer = np.zeros(length, dtype)
        setattr(_buffers, name, buffer)
    return buffer[:length].reshape(shape)
