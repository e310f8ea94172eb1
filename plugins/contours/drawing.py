"""Contours of a batch of instances, and those of a scene, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8, UInt16

from formulavision import Category, WalkedStreams
from formulavision.rendering import python_random
from formulavision.rendering.memory import scratch

from . import published, shapes
from .independent import frames, gray_levels
from .parameters import ContourParams, RcdbParams, SegRcdbParams

__all__ = [
    "Contour",
    "DrawnScene",
    "IndependentScenes",
    "draw_published_scene",
    "independent_contours",
    "published_contours",
]

Contour = tuple[int, Int32[np.ndarray, "lines 2 vertices"], UInt8[np.ndarray, " lines"]]
"""Place of an instance in its batch, polygons of its lines in pixels, their gray levels."""


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
        counter = (instance & 0xFFFF_FFFF, category.index, instance >> 32)
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
        published.advance(state, ranges, brightest + 1, category.parameters[0], placement, instance - at, *none)
        published_shape, centre = placement[:3].copy(), placement[3:].copy()
        perlin, width = category.parameters[0, 2:].tolist()
        shapes.published_vertices(
            state, shapes.angles(vertices), perlin, width, published_shape, nowhere, brightest, grays, corners
        )
        published.read_next_placement(state, ranges, placement)
        at = instance + 1
        yield int(i), shapes.to_polygons(corners, centre, size / params.image_size), grays


# Scenes --------------------------------------------------------------------------------------------------------------


class DrawnScene(NamedTuple):
    """What is known of the objects of a scene when its lines are drawn.

    Attributes:
        labels: category of each object.
        lines: number of lines of each object.
        grays: gray levels of all lines, object after object.
    """

    labels: Int64[np.ndarray, " objects"]
    lines: Int64[np.ndarray, " objects"]
    grays: UInt8[np.ndarray, " lines"]


class IndependentScenes:
    """Draws scenes of a list of categories with counter-based random numbers."""

    def __init__(self, params: SegRcdbParams, size: int, seed: int, categories: Sequence[Category]) -> None:
        self.params = params
        self.size = size
        self.key = shapes.kernel_key(seed, b"scen")
        self.categories = categories
        self.parameters = np.concatenate([category.parameters for category in categories])
        self.vertices, self.lines = np.ascontiguousarray(self.parameters[:, :2].astype(np.int64).T)
        self.directions, self.starts = shapes.packed_directions(self.vertices)

    def draw(
        self,
        random: np.random.Generator,
        number: int,
        owners: Int32[np.ndarray, "size size"],
        object_map: UInt16[np.ndarray, "size size"],
    ) -> DrawnScene:
        """Draw a scene's lines.

        Args:
            random: the scene's stream: of each object the category and the centre's y and x, then all gray levels.
            number: of the scene.
            owners: zeros; gets the number of the last line at each pixel, from 1 in the order of drawing.
            object_map: zeros; the areas of the objects are marked in it.
        """
        uniform = random.random((self.params.objects, 3))
        labels = (uniform[:, 0] * len(self.parameters)).astype(np.int64)
        contours, lines, vertices = self.parameters[labels], self.lines[labels], self.vertices[labels]
        shapes.draw_objects(
            self.directions,
            self.starts[vertices],
            vertices,
            lines,
            frames(self.params, self.size, contours, contours[:, 4:], uniform[:, 1:]),
            number,
            self.key,
            shapes.AREAS[self.params.mask],
            owners,
            object_map,
            scratch("odd", owners.shape, np.uint8),
        )
        return DrawnScene(labels, lines, gray_levels(random.random(int(lines.sum()))))


def draw_published_scene(
    params: SegRcdbParams,
    streams: WalkedStreams,
    categories: Float64[np.ndarray, "categories 7"],
    number: int,
    owners: Int32[np.ndarray, "size size"],
    object_map: UInt16[np.ndarray, "size size"],
) -> DrawnScene:
    """Draw the lines of a published scene, as ``IndependentScenes.draw`` does."""
    ranges, checkpoint, area = params.ranges(), streams.checkpoint(number), shapes.AREAS[params.mask]
    state, position, nowhere = checkpoint["state"].copy(), np.empty(2), np.zeros(2)
    sizes = np.ascontiguousarray(categories[:, :2].astype(np.int64).T)
    none = np.empty(0, np.int64), np.empty((0, 625), np.uint32)
    before = number - int(checkpoint["image"])
    published.advance_scenes(state, ranges, sizes[0], sizes[1], params.objects, before, *none)
    labels, grays, first = np.empty(params.objects, np.int64), [], 1
    for k in range(params.objects):
        labels[k] = label = python_random.below(state, len(categories))
        published.read_position(state, ranges, position)
        vertices, lines = sizes[:, label].tolist()
        levels, corners = np.empty(lines, np.uint8), np.empty((lines, 2, vertices))
        perlin, width = categories[label, 2:4].tolist()
        shapes.published_vertices(
            state, shapes.angles(vertices), perlin, width, categories[label, 4:], position, 255, levels, corners
        )
        polygons = shapes.to_polygons(corners, nowhere, len(owners) / params.image_size)
        shapes.draw_lines(owners, polygons, np.arange(first, first + lines, dtype=np.int32))
        if area:
            shapes.mark_published_object(object_map, polygons, area, k + 1)
        grays.append(levels)
        first += lines
    return DrawnScene(labels, sizes[1][labels], np.concatenate(grays))
