"""Bezier curves: their Bernstein polynomials, points on them, and their place in the image.

Additions and multiplications in float64 only, in a fixed order, so that every machine finds the same points.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from formulavision.rendering import kernel

__all__ = ["bernstein", "curve_points", "parameters", "place", "segments_for"]


def segments_for(degree: int, extent: float) -> int:
    """Straight segments that keep within about 0.1 pixels of a curve whose control points are drawn at random.

    Args:
        degree: control points less one.
        extent: the larger side of the curve's bounding box, in pixels.
    """
    # The distance falls with the square of the number and grows with the extent; the rest was fitted to random curves.
    return max(1, math.ceil((2 + degree / 2) * math.sqrt(extent)))


def parameters(segments: int) -> NDArray[np.float64]:
    """Where a curve is cut: float64 [segments + 1] from 0 to 1, closer at the ends, where random curves turn most."""
    s = np.arange(segments + 1) / segments
    return (s + s * s * (3 - 2 * s)) / 2


@functools.lru_cache(maxsize=256)
def bernstein(degree: int, segments: int) -> NDArray[np.float64]:
    """Bernstein polynomials at ``parameters(segments)``, by the recurrence that de Casteljau's algorithm rests on.

    B_i^n(t) = (1 - t) B_i^(n-1)(t) + t B_(i-1)^(n-1)(t) (Farin 1993, section 4.1): sums of positive terms, and so
    precise for every degree.

    Returns:
        float64 [segments + 1, degree + 1], read-only.
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
def curve_points(basis, control):  # type: ignore[no-untyped-def]
    """Points on curves: x(t) = sum over i of B_i(t) b_i (Farin 1993, section 4.1).

    Args:
        basis: float64 [points, control points], from :func:`bernstein`.
        control: float64 [curves, control points, 2].

    Returns:
        float64 [curves, points, 2].
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
def place(points, extents, places, low, high):  # type: ignore[no-untyped-def]
    """Scale curves to a size of their own and move each to its place in a square; angles stay as they are.

    Args:
        points: float64 [curves, points, 2].
        extents: float64 [curves], the larger side of a curve's bounding box, in pixels, at most high - low.
        places: float64 [curves, 2], along x and y: 0 puts the bounding box at ``low``, 1 lets it end at ``high``.
        low, high: the square, in pixels, the same along x and y.

    Returns:
        float32 [curves, points, 2], in pixels.
    """
    placed = np.empty(points.shape, np.float32)
    for curve in range(points.shape[0]):
        x, y = points[curve, :, 0], points[curve, :, 1]
        left, right, top, bottom = x.min(), x.max(), y.min(), y.max()
        side = max(right - left, bottom - top)
        scale = extents[curve] / side if side > 0.0 else 0.0
        start_x = low + places[curve, 0] * (high - low - scale * (right - left))
        start_y = low + places[curve, 1] * (high - low - scale * (bottom - top))
        for n in range(points.shape[1]):
            placed[curve, n, 0] = start_x + scale * (x[n] - left)
            placed[curve, n, 1] = start_y + scale * (y[n] - top)
    return placed
