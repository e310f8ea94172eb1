"""Points on Bezier curves on the CPU, by their Bernstein polynomials, and scaled and moved in the image.

All arithmetic is additions and multiplications in float64, in a fixed order, so every machine computes the same points.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float32, Float64

from formulavision.rendering import kernel

__all__ = ["bernstein", "curve_points", "parameters", "scale_and_move", "segments_for"]


def segments_for(degree: int, extent: float) -> int:
    """Number of straight segments that stay within about 0.1 pixels of a curve with random control points.

    Args:
        degree: number of control points minus one.
        extent: the larger side of the curve's bounding box, in pixels.
    """
    # The distance falls with the square of the number and grows with the extent; the rest was fitted to random curves.
    return max(1, math.ceil((2 + degree / 2) * math.sqrt(extent)))


def parameters(segments: int) -> Float64[np.ndarray, " {segments}+1"]:
    """Parameters t, from 0 to 1, of the ends of segments: closer at the curve's ends, where random curves turn most."""
    s = np.arange(segments + 1) / segments
    return (s + s * s * (3 - 2 * s)) / 2


@functools.lru_cache(maxsize=256)
def bernstein(degree: int, segments: int) -> Float64[np.ndarray, "{segments}+1 {degree}+1"]:
    """Bernstein polynomials at ``parameters(segments)``, by the recurrence of de Casteljau's algorithm.

    B_i^n(t) = (1 - t) B_i^(n-1)(t) + t B_(i-1)^(n-1)(t) (Farin 1993, section 4.1): sums of positive terms, and so
    precise for every degree.

    Returns:
        B_i^degree(t) in column i; read-only.
    """
    t = parameters(segments)[:, None]
    basis = np.ones((segments + 1, 1))
    for _ in range(degree):
        raised = np.zeros((segments + 1, basis.shape[1] + 1))
        raised[:, :-1] += (1 - t) * basis
        raised[:, 1:] += t * basis
        basis = raised
    basis.flags.writeable = False
    return basis


@kernel
def curve_points(
    basis: Float64[np.ndarray, "points control_points"], control: Float64[np.ndarray, "curves control_points 2"]
) -> Float64[np.ndarray, "curves points 2"]:
    """Points on curves: x(t) = sum over i of B_i(t) b_i (Farin 1993, section 4.1).

    Args:
        basis: B_i(t), from :func:`bernstein`.
        control: the control points b_i.
    """
    curves, count, _ = control.shape
    points = np.empty((curves, basis.shape[0], 2))
    for curve in range(curves):
        for n in range(basis.shape[0]):
            x = 0.0
            y = 0.0
            for i in range(count):
                x += basis[n, i] * control[curve, i, 0]
                y += basis[n, i] * control[curve, i, 1]
            points[curve, n, 0] = x
            points[curve, n, 1] = y
    return points


@kernel
def scale_and_move(
    points: Float64[np.ndarray, "curves points 2"],
    extents: Float64[np.ndarray, " curves"],
    positions: Float64[np.ndarray, "curves 2"],
    low: float,
    high: float,
) -> Float32[np.ndarray, "curves points 2"]:
    """Scale each curve to its extent and move it to its position in a square; angles stay as they are.

    Args:
        points: points on the curves.
        extents: larger sides of the curves' bounding boxes, in pixels, at most high - low.
        positions: along x and y: at 0 the bounding box begins at ``low``, at 1 it ends at ``high``.
        low, high: first and last coordinate of the square, in pixels, the same along x and y.

    Returns:
        The points, in pixels.
    """
    moved = np.empty(points.shape, np.float32)
    for curve in range(points.shape[0]):
        x, y = points[curve, :, 0], points[curve, :, 1]
        left, right, top, bottom = x.min(), x.max(), y.min(), y.max()
        side = max(right - left, bottom - top)
        scale = extents[curve] / side if side > 0.0 else 0.0
        start_x = low + positions[curve, 0] * (high - low - scale * (right - left))
        start_y = low + positions[curve, 1] * (high - low - scale * (bottom - top))
        for n in range(points.shape[1]):
            moved[curve, n, 0] = start_x + scale * (x[n] - left)
            moved[curve, n, 1] = start_y + scale * (y[n] - top)
    return moved
