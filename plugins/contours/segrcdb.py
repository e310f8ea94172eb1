"""The generator ``segrcdb``: scenes of radial contours, with their masks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from formulavision import Category, ConfigError, Scene, WalkedStreams
from formulavision.rendering.memory import scratch

from .base import ContourGenerator
from .independent import CONTOUR_COLUMNS, PUBLISHED_NAMES, SHAPE_COLUMNS, independent_contour, independent_shape
from .parameters import SegRcdbParams

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceScenes

    from .drawing import Contour, IndependentScenes

__all__ = ["SegRcdb"]

_STRETCH = 256
"""Number of scenes of a stretch of a published stream."""


class SegRcdb(ContourGenerator):
    """Scenes of radial contours (SegRCDB: Shinoda et al., ICCV 2023), light on black, for semantic segmentation.

    A category is a contour's numbers of vertices and lines, coefficient of the noise, line width, radius and stretch.
    A scene (``scene: own``) draws contours of random categories at random centres one over the other. An instance of a
    category is one such contour, with counter-based random numbers also where the scenes are published ones: the
    published program draws scenes only.
    """

    name = "segrcdb"
    version = 1
    Params = SegRcdbParams
    columns = CONTOUR_COLUMNS + SHAPE_COLUMNS
    published_names = PUBLISHED_NAMES
    category_params = frozenset(SegRcdbParams.model_fields) - {"mask", "objects", "published_images", "threads"}
    default_instances = 1000

    params: SegRcdbParams
    _prepared: IndependentScenes | None = None

    # Categories ------------------------------------------------------------------------------------------------------

    def category(self, index: int) -> Sequence[float]:
        random = self.stream(index)
        return independent_contour(self.params, random) + independent_shape(self.params, random)

    def categories(self, count: int) -> Iterator[Any]:
        return iter(self._published[:count]) if self.is_published else super().categories(count)

    @functools.cached_property
    def _published(self) -> Float64[np.ndarray, "categories 7"]:
        """Parameters of the published categories."""
        from . import published

        return published.published_classes(self.params.ranges(), self.params.published_categories)

    # Instances -------------------------------------------------------------------------------------------------------

    def contours(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        from . import drawing, shapes

        indices, lines = np.full(len(instances), category.index), int(category.parameters[0, 1])
        uniform = self.uniforms(indices, instances, 2 + lines).reshape(len(instances), -1)
        key = shapes.kernel_key(self.seed, b"inst")
        shape = np.broadcast_to(category.parameters[0, 4:], (len(instances), 3))
        return drawing.independent_contours(self.params, self.canvas.size, key, category, instances, shape, uniform)

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

        shapes.mark_object(mask, polygons, shapes.AREAS[self.params.mask], 1, odd)

    # Scenes ----------------------------------------------------------------------------------------------------------

    def max_scenes(self) -> int | None:
        return self.params.drawn("published_images") if self.is_published else None

    def scene(self, categories: Sequence[Category], index: int) -> Scene:
        from . import drawing, shapes

        size = self.canvas.size
        image, object_map = np.empty((size, size), np.uint8), np.zeros((size, size), np.uint16)
        # Each line of the scene has a number: a pixel belongs to the last line, and with it to its object.
        owners = scratch("owners", (size, size), np.int32)
        owners[:] = 0
        if self.is_published:
            if len(categories) != len(self._published):
                raise ConfigError(f"categories: scenes of the published set need all {len(self._published)} categories")
            drawn = drawing.draw_published_scene(self.params, self.streams, self._published, index, owners, object_map)
        else:
            # The stream of an instance of a category -1, which there is not.
            drawn = self._scenes(categories).draw(self.stream(-1, index, 1), index, owners, object_map)
        shapes.look_up(owners, np.append(np.uint8(0), drawn.grays), image)
        if shapes.AREAS[self.params.mask] == 0:
            objects = np.repeat(np.arange(1, len(drawn.labels) + 1, dtype=np.uint16), drawn.lines)
            shapes.look_up(owners, np.append(np.uint16(0), objects), object_map)
        image = image[:, :, None]
        return Scene(np.repeat(image, 3, axis=2) if self.canvas.channels == 3 else image, object_map, drawn.labels)

    def _scenes(self, categories: Sequence[Category]) -> IndependentScenes:
        """Tables of the categories, which are the same for all scenes of a recipe."""
        from .drawing import IndependentScenes

        prepared = self._prepared  # another thread may replace it
        if prepared is None or prepared.categories is not categories:
            prepared = IndependentScenes(self.params, self.canvas.size, self.seed, categories)
            self._prepared = prepared
        return prepared

    def device_scenes(self, categories: Sequence[Category], device: torch.device) -> DeviceScenes | None:
        from formulavision.rendering.triton_support import runs_on

        if self.is_published or not runs_on(device):
            return None
        from .drawing_on_device import SegRcdbScenes

        return SegRcdbScenes(self.params, self.canvas.size, self.seed, self.uniforms, categories, device)

    @functools.cached_property
    def streams(self) -> WalkedStreams:
        """The random streams of the published set."""
        from . import published

        params = self.params
        ranges, contours = params.ranges(), self._published[:, :2].astype(np.int64)
        vertices, lines = np.ascontiguousarray(contours.T)
        return WalkedStreams(
            self.name,
            {
                "version": self.version,
                "ranges": ranges,
                "categories": params.published_categories,
                "objects": params.objects,
            },
            streams=params.threads,
            length=params.published_images // params.threads,
            stretch=_STRETCH,
            start=published.start,
            walk=functools.partial(published.walk_scenes, ranges, vertices, lines, params.objects),
        )
