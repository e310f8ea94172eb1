"""The generator ``rcdb``: radial contours."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8
from numpy.typing import NDArray

from formulavision import Canvas, Category, WalkedStreams

from .base import ContourGenerator
from .independent import CONTOUR_COLUMNS, PUBLISHED_NAMES, independent_contour, shapes_of
from .parameters import RcdbParams

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer

    from .drawing import Contour

__all__ = ["Rcdb"]

_STRETCH = 16
"""Number of categories of a stretch of a published stream."""


class Rcdb(ContourGenerator):
    """Radial contours (RCDB: Kataoka et al., CVPR 2022): polygons around a centre, each moved by noise from the last.

    A category has numbers of vertices and lines, a coefficient of the noise, and a line width. Radius, stretch, centre
    and noise vary in each instance. On a canvas of three channels, all have the same gray.
    """

    name = "rcdb"
    version = 1
    Params = RcdbParams
    columns = CONTOUR_COLUMNS
    published_names = PUBLISHED_NAMES
    category_params = frozenset(RcdbParams.model_fields) - {"outline", "gray"}
    default_instances = 1000

    params: RcdbParams

    def __init__(self, params: RcdbParams, canvas: Canvas, seed: int) -> None:
        super().__init__(params, canvas, seed)
        self.background = 255 if params.gray == "dark-on-white" else 0

    # Categories ------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        return self.params.published_instances if self.is_published else None

    def category(self, index: int) -> Sequence[float]:
        return independent_contour(self.params, self.stream(index))

    def categories(self, count: int) -> Iterator[Any]:
        if not self.is_published:
            yield from (self.category(index) for index in range(count))
            return
        instances = self.params.published_instances
        found = self.streams.walked(count * instances, functools.partial(_categories, instances))
        yield from itertools.islice(itertools.chain.from_iterable(found), count)

    @functools.cached_property
    def streams(self) -> WalkedStreams:
        """The random streams of the published set."""
        from . import published

        params = self.params
        ranges, grays = params.ranges(), params.image_size // 2 + 1
        return WalkedStreams(
            self.name,
            {"version": self.version, "ranges": ranges, "instances": params.published_instances},
            streams=params.threads,
            length=params.published_categories // params.threads * params.published_instances,
            stretch=_STRETCH * params.published_instances,
            start=published.start,
            walk=functools.partial(published.walk_categories, ranges, grays, params.published_instances),
        )

    # Drawing ---------------------------------------------------------------------------------------------------------

    def contours(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        from . import drawing, shapes

        size, lines = self.canvas.size, int(category.parameters[0, 1])
        if self.is_published:
            return drawing.published_contours(self.params, size, self.streams, category, instances)
        indices = np.full(len(instances), category.index)
        uniform = self.uniforms(indices, instances, 5 + lines).reshape(len(instances), -1)
        key = shapes.kernel_key(self.seed, b"inst")
        placed = shapes_of(self.params, uniform[:, :3])
        return drawing.independent_contours(self.params, size, key, category, instances, placed, uniform[:, 3:])

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if self.is_published or not runs_on(device):
            return None
        from .drawing_on_device import RcdbRenderer

        size, background = self.canvas.size, int(self.background)
        return RcdbRenderer(self.params, size, self.seed, background, self.uniforms, categories, device)

    def draw(
        self,
        image: UInt8[np.ndarray, "size size"],
        polygons: Int32[np.ndarray, "lines 2 vertices"],
        grays: UInt8[np.ndarray, " lines"],
        odd: UInt8[np.ndarray, "size size"],
    ) -> None:
        from . import shapes

        values = grays if self.background else 255 - grays
        shapes.fill_area(image, polygons, shapes.AREAS[self.params.outline], int(values[-1]), int(self.background), odd)
        shapes.draw_lines(image, polygons, values)

    def mark(
        self,
        mask: UInt8[np.ndarray, "size size"],
        polygons: Int32[np.ndarray, "lines 2 vertices"],
        odd: UInt8[np.ndarray, "size size"],
    ) -> None:
        from . import shapes

        shapes.fill_area(mask, polygons, shapes.AREAS[self.params.outline], 1, 0, odd)
        shapes.draw_lines(mask, polygons, np.ones(len(polygons), np.uint8))


def _categories(instances: int, checkpoints: NDArray[Any]) -> Float64[np.ndarray, "categories 4"]:
    """Parameters of the categories that begin in a stretch; its last checkpoint is where the next one begins."""
    begins = checkpoints["image"][:-1] % instances == 0
    return np.array(checkpoints["category"][:-1][begins])
