"""Drawing Bezier curves on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from formulavision import Category
from formulavision.rendering.polylines_triton import draw_polylines
from formulavision.rendering.triton_support import in_parts, keep, upload

from .curves_triton import curve_points
from .drawing import CurveDrawing

__all__ = ["BezierRenderer"]


class BezierRenderer:
    """Draws images of Bezier curves on a device; the host draws the random numbers.

    Beside the images it takes 32 MiB of scratch memory (or 4 bytes a pixel and channel of one image where that is
    more), and a few kilobytes a curve.
    """

    def __init__(
        self,
        drawing: CurveDrawing,
        uniforms: Callable[..., Float64[np.ndarray, " numbers"]],
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.drawing = drawing
        self.uniforms = uniforms
        self.device = device
        self.indices = np.array([category.index for category in categories], np.int64)
        parameters = np.array([category.parameters[0] for category in categories]).astype(np.int64)
        self.control_points, self.curves = parameters.T
        # The polynomials of all degrees one after the other; by control points, their first index and number of points.
        self.starts, self.points = (np.zeros(self.control_points.max() + 1, np.int64) for _ in range(2))
        bases: list[Float64[np.ndarray, " numbers"]] = []
        for number in np.unique(self.control_points):
            basis = drawing.basis(int(number))
            self.starts[number] = sum(b.size for b in bases)
            self.points[number] = len(basis)
            bases.append(basis.T.ravel())
        self.most_points = int(self.points.max())
        self.bases = keep(np.concatenate(bases), device)
        self.square = keep(np.array([drawing.low, drawing.high]), device)

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        for part in in_parts(len(labels), out[0].numel()):
            self._draw(labels[part], instances[part], out[part])

    def _draw(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        drawing, device = self.drawing, self.device
        control_points, curves = self.control_points[labels], self.curves[labels]
        # A stream holds the control points of all its image's curves, then their widths, extents, positions and hues.
        counts = curves * (2 * control_points + drawing.numbers_per_curve)
        uniform = self.uniforms(self.indices[labels], instances, counts)
        image = np.repeat(np.arange(len(labels)), curves)
        number = np.arange(len(image)) - np.repeat(np.cumsum(curves) - curves, curves)
        start = np.repeat(np.cumsum(counts) - counts, curves)
        own, all_own = control_points[image], curves[image]
        widths = start + 2 * own * all_own
        extents = widths + all_own
        positions = extents + all_own
        hues = positions + 2 * all_own
        frames = np.stack(
            [
                drawing.extents(uniform[extents + number]),
                uniform[positions + 2 * number],
                uniform[positions + 2 * number + 1],
            ],
            axis=1,
        )
        sizes = np.stack([own, self.points[own], self.starts[own], start + 2 * own * number], axis=1)
        points = curve_points(
            self.bases,
            upload(uniform, device),
            upload(sizes, device),
            upload(frames, device),
            self.square,
            self.most_points,
        )
        colors = drawing.colors(uniform[hues + number] if drawing.channels == 3 else np.empty(len(image)))
        levels = torch.zeros(out.shape, dtype=torch.int32, device=device)
        draw_polylines(
            points,
            upload(self.points[own].astype(np.int32), device),
            upload(image, device),
            upload(drawing.widths(uniform[widths + number]), device),
            upload(colors, device),
            levels,
        )
        out.copy_(levels)
