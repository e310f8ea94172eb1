"""Bezier curves: a category is how many control points a curve has, and how many curves an image has.

Bezier-144 and Bezier-1024 of the FractalDB paper (table 9) are grids of 12 x 12 and 32 x 32. The paper's supplement,
which describes them, is not at hand: what is counted along the grid, and from where on, is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from formulavision import Category, ConfigError, Generator, Params, hookimpl, rendering

if TYPE_CHECKING:
    import torch

    from formulavision.generators.contract import DeviceRenderer


MOST_CONTROL_POINTS, MOST_CURVES = 256, 10_000
"""Of a category read from a file."""


class BezierParams(Params):
    grid: int = Field(
        12,
        ge=1,
        le=64,
        description="numbers of control points, and of curves: 12 gives Bezier-144, 32 gives Bezier-1024",
        json_schema_extra={"unit": "numbers"},
    )
    thickness_min: float = Field(
        1.0, ge=0.5, le=64, description="width of the thinnest curve", json_schema_extra={"unit": "pixels"}
    )
    thickness_max: float = Field(
        2.0, ge=0.5, le=64, description="width of the thickest curve", json_schema_extra={"unit": "pixels"}
    )
    extent_min: float = Field(
        0.2,
        gt=0,
        le=1,
        description="larger side of the smallest curve's bounding box",
        json_schema_extra={"unit": "share of the canvas without its padding"},
    )
    extent_max: float = Field(
        0.6,
        gt=0,
        le=1,
        description="larger side of the largest curve's bounding box",
        json_schema_extra={"unit": "share of the canvas without its padding"},
    )

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> BezierParams:
        for what in ("thickness", "extent"):
            smallest, largest = getattr(self, f"{what}_min"), getattr(self, f"{what}_max")
            if smallest > largest:
                raise ConfigError(f"{what}_min: {smallest} is not allowed: must not be above {what}_max {largest}")
        return self


class Bezier(Generator):
    """Random Bezier curves (Farin 1993, section 4.1), white on black, or each in a hue of its own in colour.

    Category i has 3 + i div grid control points a curve and 1 + i mod grid curves. An instance draws, for each curve
    and uniformly, the control points in a square, the thickness, the extent that the curve is scaled to (curves with
    many control points would otherwise shrink to the middle of the square), its position, and in colour its hue.
    Nothing is drawn on the canvas's padding, unless a curve is thicker than what the padding leaves.
    """

    name = "bezier"
    version = 1
    Params = BezierParams
    columns = ("control_points", "curves")
    category_params = frozenset({"grid"})

    params: BezierParams

    def max_categories(self) -> int:
        return self.params.grid**2

    def category(self, index: int) -> list[float]:
        row, column = divmod(index, self.params.grid)
        return [3 + row, 1 + column]

    def check_category(self, parameters: NDArray[np.float64]) -> None:
        low, high = np.array([2, 1]), np.array([MOST_CONTROL_POINTS, MOST_CURVES])
        within = (parameters == np.floor(parameters)) & (parameters >= low) & (parameters <= high)
        if len(parameters) != 1 or not within.all():
            raise ValueError(
                f"must be one row of two whole numbers: 2 to {MOST_CONTROL_POINTS} control points, "
                f"1 to {MOST_CURVES:,} curves"
            )

    def render(self, category: Category, instance: int) -> NDArray[np.uint8]:
        image = np.zeros(self.canvas.shape, dtype=np.uint8)
        self._draw(category, instance, image)
        return image

    def render_batch(self, category: Category, instances: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        out[:] = 0
        for image, instance in zip(out, instances, strict=True):
            self._draw(category, int(instance), image)

    def _draw(self, category: Category, instance: int, image: NDArray[np.uint8]) -> None:
        from . import curves

        control_points, count = category.parameters[0].astype(int)
        random = self.random(category, instance)
        control = random.random((count, control_points, 2))
        widths, extents = self.widths(random.random(count)), self.extents(random.random(count))
        points = curves.curve_points(self.basis(control_points), control)
        low, high = self.square
        points = curves.place(points, extents, random.random((count, 2)), low, high)
        colors = self.colors(random.random(count) if self.canvas.channels == 3 else np.empty(count))
        rendering.polylines.draw_polylines(image, points, widths, colors)

    @property
    def _side(self) -> float:
        """Of the square that curves lie in: the widest line and its soft edge stay clear of the padding."""
        return max(self.canvas.size - 2 * self.canvas.padding - (self.params.thickness_max + 1), 0.0)

    @property
    def square(self) -> tuple[float, float]:
        """The square that curves lie in, from where to where, in pixels along x and along y."""
        low = (self.canvas.size - self._side) / 2
        return low, low + self._side

    # What uniform numbers, float64 [n], stand for ---------------------------------------------------------------------

    def widths(self, uniform: NDArray[np.float64]) -> NDArray[np.float32]:
        """Widths of curves, float32 [n], in pixels."""
        thinnest, thickest = self.params.thickness_min, self.params.thickness_max
        return (thinnest + uniform * (thickest - thinnest)).astype(np.float32)

    def extents(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """Larger sides of curves' bounding boxes, float64 [n], in pixels."""
        smallest, largest = self.params.extent_min, self.params.extent_max
        return self._side * (smallest + uniform * (largest - smallest))

    def colors(self, uniform: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Colours of curves, uint8 [n, channels]: white, or on a canvas of three channels a hue."""
        return _hues(uniform) if self.canvas.channels == 3 else np.full((len(uniform), 1), 255, dtype=np.uint8)

    def basis(self, control_points: int) -> NDArray[np.float64]:
        """Bernstein polynomials for curves of so many control points, float64 [points, control points]."""
        from . import curves

        degree = control_points - 1
        return curves.bernstein(degree, curves.segments_for(degree, self._side * self.params.extent_max))

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if not runs_on(device):
            return None
        from .on_device import BezierRenderer

        return BezierRenderer(self, categories, device)


def _hues(hue: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Fully saturated colours, uint8 [n, 3], of hues from 0 to 1 around the colour circle: 0 is red, 1/3 green."""
    distance = np.abs((hue[:, None] - np.array([0, 1, 2]) / 3 + 0.5) % 1 - 0.5)
    return (255 * np.clip(2 - 6 * distance, 0, 1) + 0.5).astype(np.uint8)


@hookimpl
def register_generators(register) -> None:  # type: ignore[no-untyped-def]
    register(Bezier)
