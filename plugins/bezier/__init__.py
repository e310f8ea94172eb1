"""The generator ``bezier``: a category is the number of control points of a curve and the number of curves of an image.

Bezier-144 and Bezier-1024 of the FractalDB paper (table 9) are grids of 12 x 12 and 32 x 32. The paper's supplement,
which describes them, was not available: the two axes of the grid and their first numbers are our interpretation.

``drawing.py`` makes curves from random numbers and draws them on the CPU, ``drawing_on_device.py`` on a GPU; the points
on the curves come from ``curves.py`` and its twin ``curves_triton.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from formulavision import Category, Generator, hookimpl

from .parameters import BezierParams

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer

    from .drawing import CurveDrawing

MAX_CONTROL_POINTS, MAX_CURVES = 256, 10_000
"""Largest numbers of a category from a file."""


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
        out = np.empty((1, *self.canvas.shape), np.uint8)
        self.render_batch(category, np.array([instance]), out)
        return out[0]

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        out[:] = 0
        control_points, curves = category.parameters[0].astype(int).tolist()
        for image, instance in zip(out, instances.tolist(), strict=True):
            self.drawing.draw(self.random(category, instance), control_points, curves, image)

    @cached_property
    def drawing(self) -> CurveDrawing:
        """How curves are drawn; numba is imported on first use."""
        from .drawing import CurveDrawing

        return CurveDrawing(self.params, self.canvas)

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if not runs_on(device):
            return None
        from .drawing_on_device import BezierRenderer

        return BezierRenderer(self.drawing, self.uniforms, categories, device)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Bezier)
