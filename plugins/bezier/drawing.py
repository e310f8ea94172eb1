"""From uniform random numbers to Bezier curves in an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from formulavision import Canvas
from formulavision.rendering.polylines import draw_polylines

from . import curves
from .parameters import BezierParams

__all__ = ["CurveDrawing"]


class CurveDrawing:
    """Sizes, positions and colours of a recipe's curves, and their drawing on the CPU.

    Attributes:
        low, high: first and last coordinate, along x and y, of the square that curves lie in, in pixels.
        numbers_per_curve: number of random numbers of a curve beside its control points.
    """

    def __init__(self, params: BezierParams, canvas: Canvas) -> None:
        self.params = params
        self.channels = canvas.channels
        # The widest line with its soft edge stays off the padding.
        self.side = max(canvas.size - 2 * canvas.padding - (params.thickness_max + 1), 0.0)
        self.low = (canvas.size - self.side) / 2
        self.high = self.low + self.side
        self.numbers_per_curve = 4 + (canvas.channels == 3)

    def draw(
        self,
        random: np.random.Generator,
        control_points: int,
        count: int,
        image: UInt8[np.ndarray, "size size channels"],
    ) -> None:
        """Draw an instance.

        Args:
            random: the instance's random stream.
            control_points: number of control points of a curve.
            count: number of curves.
            image: zeros, is drawn on.
        """
        control = random.random((count, control_points, 2))
        widths, extents = self.widths(random.random(count)), self.extents(random.random(count))
        points = curves.curve_points(self.basis(control_points), control)
        points = curves.scale_and_move(points, extents, random.random((count, 2)), self.low, self.high)
        colors = self.colors(random.random(count) if self.channels == 3 else np.empty(count))
        draw_polylines(image, points, widths, colors)

    def widths(self, uniform: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """Widths of curves, in pixels, from numbers from 0 to below 1."""
        thinnest, thickest = self.params.thickness_min, self.params.thickness_max
        return (thinnest + uniform * (thickest - thinnest)).astype(np.float32)

    def extents(self, uniform: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Larger sides of curves' bounding boxes, in pixels, from numbers from 0 to below 1."""
        smallest, largest = self.params.extent_min, self.params.extent_max
        return self.side * (smallest + uniform * (largest - smallest))

    def colors(self, uniform: Float64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n channels"]:
        """Colours of curves: white, or on a canvas of three channels hues from numbers from 0 to below 1."""
        return _hues(uniform) if self.channels == 3 else np.full((len(uniform), 1), 255, dtype=np.uint8)

    def basis(self, control_points: int) -> Float64[np.ndarray, "points {control_points}"]:
        """Bernstein polynomials of curves of ``control_points``, at the parameters of the points to draw."""
        degree = control_points - 1
        return curves.bernstein(degree, curves.segments_for(degree, self.side * self.params.extent_max))


def _hues(hue: Float64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Fully saturated colours for hues from 0 to 1 around the colour circle: 0 is red, 1/3 green, 2/3 blue."""
    distance = np.abs((hue[:, None] - np.array([0, 1, 2]) / 3 + 0.5) % 1 - 0.5)
    return (255 * np.clip(2 - 6 * distance, 0, 1) + 0.5).astype(np.uint8)
