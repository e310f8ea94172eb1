"""The generator ``visual-atoms``: contours of noise and sine waves."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8
from numpy.typing import NDArray

from formulavision import Category, WalkedStreams
from formulavision.rendering.memory import scratch

from .base import ContourGenerator
from .independent import gray_levels
from .parameters import VisualAtomsParams

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer

    from .drawing import Contour

__all__ = ["VisualAtoms"]

_STRETCH = 2000
"""Least number of images of a stretch of a published stream, which has whole categories."""

_LOWEST = np.array([3, 1, 0, 0, 0, 0, 0, 1, 1])
_HIGHEST = np.array([4000, 1000, 100, 100, 4096, 2000, 2000, 10, 10])
"""Limits of a category's parameters."""


class VisualAtoms(ContourGenerator):
    """Visual atoms (VisualAtom: Takashima et al., CVPR 2023): lines of sine waves and noise that grow out of a circle.

    A category has numbers of vertices and lines, a coefficient of the noise, a line width, a radius, the frequencies of
    two sines, and a stretch along x and y. Centre, gray levels and noise vary in each instance. On a canvas of three
    channels, all have the same gray.
    """

    name = "visual-atoms"
    version = 1
    Params = VisualAtomsParams
    columns = ("vertices", "lines", "perlin", "line_width", "radius", "wave_1", "wave_2", "oval_x", "oval_y")
    default_instances = 1000

    params: VisualAtomsParams

    # Categories ------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        return self.params.published_instances if self.is_published else None

    def category(self, index: int) -> Float64[np.ndarray, " 9"]:
        params, random = self.params, self.stream(index)
        vertices = random.integers(params.vertices_min, params.vertices_max + 1)
        lines = random.integers(params.lines_min, params.lines_max + 1)
        perlin = random.uniform(params.perlin_min, params.perlin_max)
        width = random.uniform(0, params.line_width)
        radius = random.uniform(params.radius_min, params.radius_max)
        wave_1 = random.integers(params.wave_1_min, params.wave_1_max + 1)
        wave_2 = random.integers(params.wave_2_min, params.wave_2_max + 1)
        while wave_1 != 0 and wave_2 == wave_1:
            wave_2 = random.integers(params.wave_2_min, params.wave_2_max + 1)
        oval_x, oval_y = random.uniform(1, params.oval_rate, 2)
        return np.array([vertices, lines, perlin, width, radius, wave_1, wave_2, oval_x, oval_y])

    def categories(self, count: int) -> Iterator[Any]:
        if not self.is_published:
            yield from (self.category(index) for index in range(count))
            return
        instances = self.params.published_instances
        found = self.streams.walked(count * instances, functools.partial(_categories, instances))
        yield from itertools.islice(itertools.chain.from_iterable(found), count)

    def check_category(self, parameters: Float64[np.ndarray, "rows 9"]) -> None:
        whole = parameters[:, [0, 1, 5, 6]]
        inside = (parameters >= _LOWEST).all() and (parameters <= _HIGHEST).all()
        if len(parameters) != 1 or (whole != np.floor(whole)).any() or not inside:
            ranges = (f"{name} {a} to {b}" for name, a, b in zip(self.columns, _LOWEST, _HIGHEST, strict=True))
            raise ValueError(f"must be one row, with whole numbers of vertices, lines and waves: {', '.join(ranges)}")

    @functools.cached_property
    def streams(self) -> WalkedStreams:
        """The random streams of the published set."""
        from . import published, published_waves

        params = self.params
        instances, ranges = params.published_instances, params.ranges()
        return WalkedStreams(
            self.name,
            {"version": self.version, "ranges": ranges, "instances": instances},
            streams=params.threads,
            length=params.published_categories // params.threads * instances,
            stretch=-(-_STRETCH // instances) * instances,
            words=(params.vertices_min + params.vertices_max) * (params.lines_min + params.lines_max),
            start=published.start,
            walk=functools.partial(published_waves.walk, ranges, instances),
        )

    # Drawing ---------------------------------------------------------------------------------------------------------

    def contours(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        return (self._published if self.is_published else self._independent)(category, instances)

    def draw(
        self,
        image: UInt8[np.ndarray, "size size"],
        polygons: Int32[np.ndarray, "lines 2 vertices"],
        grays: UInt8[np.ndarray, " lines"],
        odd: UInt8[np.ndarray, "size size"],
    ) -> None:
        from . import shapes

        shapes.draw_lines(image, polygons, grays)

    def mark(
        self,
        mask: UInt8[np.ndarray, "size size"],
        polygons: Int32[np.ndarray, "lines 2 vertices"],
        odd: UInt8[np.ndarray, "size size"],
    ) -> None:
        from . import shapes

        shapes.draw_lines(mask, polygons, np.ones(len(polygons), np.uint8))

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if self.is_published or not runs_on(device):
            return None
        from .drawing_on_device import VisualAtomsRenderer

        return VisualAtomsRenderer(self.params, self.canvas.size, self.seed, self.uniforms, categories, device)

    def _independent(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        from . import shapes
        from .waves import wave_frames, wave_shifts

        size = self.canvas.size
        vertices, lines = category.parameters[0, :2].astype(int).tolist()
        directions = shapes.angles(vertices).astype(np.float32)
        shifts = wave_shifts(self.params, size, np.array(category.parameters[0]))
        indices = np.full(len(instances), category.index)
        uniform = self.uniforms(indices, instances, 2 + lines).reshape(len(instances), -1)
        categories = np.repeat(category.parameters, len(instances), axis=0)
        frames, grays = wave_frames(self.params, size, categories, uniform[:, :2]), gray_levels(uniform[:, 2:])
        key = shapes.kernel_key(self.seed, b"inst")
        polygons = scratch("polygons", (lines, 2, vertices), np.int32)
        for i, instance in enumerate(instances.tolist()):
            counter = (instance & 0xFFFF_FFFF, category.index, instance >> 32)
            shapes.independent_wave_polygons(directions, shifts, frames[i], counter, key, polygons)
            yield i, polygons, grays[i]

    def _published(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        from . import published_waves, shapes
        from .waves import half_sines, published_wave_polygons

        ranges, first = self.params.ranges(), category.index * self.params.published_instances
        parameters = np.array(category.parameters[0])
        vertices, lines, wave_1, wave_2 = parameters[[0, 1, 5, 6]].astype(int).tolist()
        directions, sines = shapes.angles(vertices), half_sines(vertices, wave_1, wave_2)
        scale = self.canvas.size / self.params.image_size
        grays, polygons = np.empty(lines, np.uint8), scratch("polygons", (lines, 2, vertices), np.int32)
        none = np.empty(0, np.int64), np.empty((0, 2)), np.empty((0, 625), np.uint32)
        at, state, centre = -1, none[2], none[1]
        for i in np.argsort(instances, kind="stable"):
            instance = int(instances[i])
            checkpoint = self.streams.checkpoint(first + instance)
            nearest = int(checkpoint["image"]) - first
            if not nearest <= at <= instance:
                at, state, centre = nearest, checkpoint["state"].copy(), checkpoint["centre"].copy()
            published_waves.advance(state, ranges, parameters, centre, instance - at, *none)
            published_wave_polygons(state, directions, sines, parameters, centre, scale, grays, polygons)
            published_waves.read_centre(state, ranges, centre)
            at = instance + 1
            yield int(i), polygons, grays


def _categories(instances: int, checkpoints: NDArray[Any]) -> Float64[np.ndarray, "categories 9"]:
    """Parameters of the categories that begin in a stretch; its last checkpoint is where the next one begins."""
    begins = checkpoints["image"][:-1] % instances == 0
    return np.array(checkpoints["category"][:-1][begins])
