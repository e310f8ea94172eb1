"""The generator ``rcdb``: radial contours."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy.typing import NDArray

from formulavision import Canvas, Category, Generator, WalkedStreams

from .independent import CONTOUR_COLUMNS, check_contour, independent_contour, shapes_of
from .parameters import RcdbParams

if TYPE_CHECKING:
    from .drawing import Contour

__all__ = ["Rcdb"]

_STRETCH = 16
"""Number of categories of a stretch of a published stream."""


class Rcdb(Generator):
    """Radial contours (RCDB: Kataoka et al., CVPR 2022): polygons around a centre, each moved by noise from the last.

    A category has numbers of vertices and lines, a coefficient of the noise, and a line width. Radius, stretch, centre
    and noise vary in each instance. On a canvas of three channels, all have the same gray.
    """

    name = "rcdb"
    version = 1
    Params = RcdbParams
    columns = CONTOUR_COLUMNS
    category_params = frozenset(RcdbParams.model_fields) - {"outline", "gray"}
    default_instances = 1000
    draws_masks = True

    params: RcdbParams

    def __init__(self, params: RcdbParams, canvas: Canvas, seed: int) -> None:
        super().__init__(params, canvas, seed)
        self.background = 255 if params.gray == "dark-on-white" else 0

    # Categories ------------------------------------------------------------------------------------------------------

    def default_categories(self) -> int:
        return self.max_categories() or 1000

    def max_categories(self) -> int | None:
        return self.params.published_categories if self.params.random == "published" else None

    def max_instances(self) -> int | None:
        return self.params.published_instances if self.params.random == "published" else None

    def categories_are_independent(self) -> bool:
        return self.params.random == "independent"

    def category(self, index: int) -> Sequence[float]:
        return independent_contour(self.params, self.stream(index))

    def categories(self, count: int) -> Iterator[Any]:
        if self.params.random == "independent":
            yield from (self.category(index) for index in range(count))
            return
        instances = self.params.published_instances
        found = self.streams.walked(count * instances, functools.partial(_categories, instances))
        yield from itertools.islice(itertools.chain.from_iterable(found), count)

    def check_category(self, parameters: Float64[np.ndarray, "rows 4"]) -> None:
        check_contour(parameters)

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

    def render(
        self, category: Category, instance: int
    ) -> tuple[UInt8[np.ndarray, "size size channels"], UInt8[np.ndarray, "size size"]]:
        out, masks = np.zeros((1, *self.canvas.shape), np.uint8), np.zeros((1, *self.canvas.shape[:2]), np.uint8)
        self.render_batch(category, np.array([instance]), out, masks)
        return out[0], masks[0]

    def render_batch(
        self,
        category: Category,
        instances: Int64[np.ndarray, " n"],
        out: UInt8[np.ndarray, "n size size channels"],
        masks: UInt8[np.ndarray, "n size size"] | None = None,
    ) -> None:
        from . import shapes
        from .drawing import scratch

        area, background = shapes.AREAS[self.params.outline], self.background
        odd, plane = (scratch(name, self.canvas.shape[:2], np.uint8) for name in ("odd", "plane"))
        for i, polygons, grays in self._contours(category, instances):
            values = grays if background else 255 - grays
            image = out[i, :, :, 0] if self.canvas.channels == 1 else plane
            image[:] = background
            shapes.fill_area(image, polygons, area, int(values[-1]), background, odd)
            shapes.draw_lines(image, polygons, values)
            if self.canvas.channels == 3:
                out[i] = image[:, :, None]
            if masks is not None:
                shapes.fill_area(masks[i], polygons, area, 1, 0, odd)
                shapes.draw_lines(masks[i], polygons, np.ones_like(values))

    def _contours(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        from . import drawing, shapes

        size, lines = self.canvas.size, int(category.parameters[0, 1])
        if self.params.random == "published":
            return drawing.published_contours(self.params, size, self.streams, category, instances)
        indices = np.full(len(instances), category.index)
        uniform = self.uniforms(indices, instances, 5 + lines).reshape(len(instances), -1)
        key = shapes.kernel_key(self.seed, b"inst")
        placed = shapes_of(self.params, uniform[:, :3])
        return drawing.independent_contours(self.params, size, key, category, instances, placed, uniform[:, 3:])


def _categories(instances: int, checkpoints: NDArray[Any]) -> Float64[np.ndarray, "categories 4"]:
    """Parameters of the categories that begin in a stretch; its last checkpoint is where the next one begins."""
    begins = checkpoints["image"][:-1] % instances == 0
    return np.array(checkpoints["category"][:-1][begins])
