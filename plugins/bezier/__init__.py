"""The generator ``bezier``: a category is the number of control points of a curve and the number of curves of an image.

Bezier-144 and Bezier-1024 of the FractalDB paper (table 9) are grids of 12 x 12 and 32 x 32. The paper's supplement,
which describes them, was not available: the two axes of the grid and their first numbers are our interpretation.

``curves.py`` computes points on curves on the CPU, ``curves_triton.py`` on a GPU, where ``drawing_on_device.py`` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from pydantic import Field, model_validator

from formulavision import Category, ConfigError, Generator, Params, hookimpl, rendering

if TYPE_CHECKING:
    import torch

    from formulavision.generators.contract import DeviceRenderer


MAX_CONTROL_POINTS, MAX_CURVES = 256, 10_000
"""Largest numbers of a category from a file."""


class BezierParams(Params):
    grid: int = Field(
        12,
        ge=1,
        le=64,
        description="number of different numbers of control points, and of curves; 12 gives the 144 categories of "
        "Bezier-144, 32 the 1,024 of Bezier-1024",
        json_schema_extra={"unit": "numbers"},
    )
    thickness_min: float = Field(
        1.0, ge=0.5, le=64, description="smallest width of a curve", json_schema_extra={"unit": "pixels"}
    )
    thickness_max: float = Field(
        2.0, ge=0.5, le=64, description="largest width of a curve", json_schema_extra={"unit": "pixels"}
    )
    extent_min: float = Field(
        0.2,
        gt=0,
        le=1,
        description="smallest extent of a curve: the larger side of its bounding box",
        json_schema_extra={"unit": "share of the canvas without its padding"},
    )
    extent_max: float = Field(
        0.6,
        gt=0,
        le=1,
        description="largest extent of a curve: the larger side of its bounding box",
        json_schema_extra={"unit": "share of the canvas without its padding"},
    )

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> BezierParams:
        for name in ("thickness", "extent"):
            smallest, largest = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if smallest > largest:
                raise ConfigError(f"{name}_min: {smallest} is not allowed: must not be above {name}_max {largest}")
        return self


class Bezier(Generator):
    """Random Bezier curves (Farin 1993, section 4.1), white on black, or on a canvas of three channels in a hue each.

    Category i has curves of 3 + i div grid control points, and 1 + i mod grid curves. Each curve of an instance has
    uniform random control points in a square, a random thickness, a random extent that it is scaled to (curves with
    many control points would otherwise shrink to the middle of the square), a random position, and in colour a random
    hue. Nothing is drawn on the canvas's padding, unless a curve is thicker than the rest of the canvas.
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

    def check_category(self, parameters: Float64[np.ndarray, "rows 2"]) -> None:
        low, high = np.array([2, 1]), np.array([MAX_CONTROL_POINTS, MAX_CURVES])
        within = (parameters == np.floor(parameters)) & (parameters >= low) & (parameters <= high)
        if len(parameters) != 1 or not within.all():
            raise ValueError(
                f"must be one row of two whole numbers: 2 to {MAX_CONTROL_POINTS} control points, "
                f"1 to {MAX_CURVES:,} curves"
            )

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        image = np.zeros(self.canvas.shape, dtype=np.uint8)
        self._draw(category, instance, image)
        return image

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        out[:] = 0
        for image, instance in zip(out, instances, strict=True):
            self._draw(category, int(instance), image)

    def _draw(self, category: Category, instance: int, image: UInt8[np.ndarray, "size size channels"]) -> None:
        from . import curves

        control_points, count = category.parameters[0].astype(int)
        random = self.random(category, instance)
        control = random.random((count, control_points, 2))
        widths, extents = self.widths(random.random(count)), self.extents(random.random(count))
        points = curves.curve_points(self.basis(control_points), control)
        low, high = self.square
        points = curves.scale_and_move(points, extents, random.random((count, 2)), low, high)
        colors = self.colors(random.random(count) if self.canvas.channels == 3 else np.empty(count))
        rendering.polylines.draw_polylines(image, points, widths, colors)

    @property
    def _side(self) -> float:
        """Side of the square of the curves, in pixels: the widest line with its soft edge stays off the padding."""
        return max(self.canvas.size - 2 * self.canvas.padding - (self.params.thickness_max + 1), 0.0)

    @property
    def square(self) -> tuple[float, float]:
        """The square that curves lie in: its first and last coordinate along x and y, in pixels."""
        low = (self.canvas.size - self._side) / 2
        return low, low + self._side

    # From uniform random numbers to curves --------------------------------------------------------------------------

    def widths(self, uniform: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """Widths of curves, in pixels."""
        thinnest, thickest = self.params.thickness_min, self.params.thickness_max
        return (thinnest + uniform * (thickest - thinnest)).astype(np.float32)

    def extents(self, uniform: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Larger sides of curves' bounding boxes, in pixels."""
        smallest, largest = self.params.extent_min, self.params.extent_max
        return self._side * (smallest + uniform * (largest - smallest))

    def colors(self, uniform: Float64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n channels"]:
        """Colours of curves: white, or on a canvas of three channels a hue."""
        return _hues(uniform) if self.canvas.channels == 3 else np.full((len(uniform), 1), 255, dtype=np.uint8)

    def basis(self, control_points: int) -> Float64[np.ndarray, "points {control_points}"]:
        """Bernstein polynomials of curves of ``control_points``, at the parameters of the points to draw."""
        from . import curves

        degree = control_points - 1
        return curves.bernstein(degree, curves.segments_for(degree, self._side * self.params.extent_max))

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if not runs_on(device):
            return None
        from .drawing_on_device import BezierRenderer

        return BezierRenderer(self, categories, device)


def _hues(hue: Float64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Fully saturated colours for hues from 0 to 1 around the colour circle: 0 is red, 1/3 green, 2/3 blue."""
    distance = np.abs((hue[:, None] - np.array([0, 1, 2]) / 3 + 0.5) % 1 - 0.5)
    return (255 * np.clip(2 - 6 * distance, 0, 1) + 0.5).astype(np.uint8)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Bezier)
