"""Contours with counter-based random numbers: their categories, and what an instance's uniform numbers become.

The distributions are those of the published programs; only radii and centres are not cut to whole numbers.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from .parameters import ContourParams, RadialParams

__all__ = [
    "CONTOUR_COLUMNS",
    "PUBLISHED_NAMES",
    "SHAPE_COLUMNS",
    "check_contour",
    "frames",
    "gray_levels",
    "independent_contour",
    "independent_shape",
    "shapes_of",
]

CONTOUR_COLUMNS = ("vertices", "lines", "perlin", "line_width")
SHAPE_COLUMNS = ("radius", "oval_x", "oval_y")
PUBLISHED_NAMES = {
    "Vertex": "vertices",
    "Line_num": "lines",
    "Perlin_noise": "perlin",
    "line_width": "line_width",
    "Center_rad": "radius",
    "Oval_rate_x": "oval_x",
    "Oval_rate_y": "oval_y",
    "start_pos_h": "centre_y",
    "start_pos_w": "centre_x",
    "Category_num": "category",
    "Color_Gray": "gray",
}
"""Names in the files of RCDB and SegRCDB. A category of RCDB has no shape: that in its file is its first instance's."""

_LOWEST = np.array([3, 1, 0, 0, 0, 1, 1])
_HIGHEST = np.array([2000, 1000, 100, 100, 4096, 10, 10])
"""Limits of the columns, those of the shape last."""


# Categories ----------------------------------------------------------------------------------------------------------


def independent_contour(params: RadialParams, random: np.random.Generator) -> list[float]:
    """Draw a category: numbers of vertices and lines, coefficient of the noise, line width."""
    vertices = 0
    while not 3 <= vertices <= params.vertices_max:
        vertices = int(-math.log(1.0 - random.random()) * params.vertices_mean)
    lines = int(random.integers(params.lines_min, params.lines_max + 1))
    return [vertices, lines, random.uniform(params.perlin_min, params.perlin_max), random.uniform(0, params.line_width)]


def independent_shape(params: ContourParams, random: np.random.Generator) -> list[float]:
    """Draw a shape: radius, stretch along x and along y."""
    return shapes_of(params, random.random((1, 3)))[0].tolist()


def check_contour(parameters: Float64[np.ndarray, "rows columns"]) -> None:
    """Refuse parameters that are no contour's, with or without a shape.

    Raises:
        ValueError: the reason.
    """
    columns = parameters.shape[1]
    low, high = _LOWEST[:columns], _HIGHEST[:columns]
    whole = parameters[:, :2] == np.floor(parameters[:, :2])
    if len(parameters) != 1 or not whole.all() or (parameters < low).any() or (parameters > high).any():
        ranges = (f"{name} {a} to {b}" for name, a, b in zip(CONTOUR_COLUMNS + SHAPE_COLUMNS, low, high, strict=False))
        raise ValueError(f"must be one row, with whole numbers of vertices and lines: {', '.join(ranges)}")


# Instances -----------------------------------------------------------------------------------------------------------


def shapes_of(params: ContourParams, uniform: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """Radius, stretch along x and along y, from numbers from 0 to below 1."""
    low = np.array([params.radius_min, 1, 1])
    return low + uniform * (np.array([params.radius_max, params.oval_rate, params.oval_rate]) - low)


def frames(
    params: ContourParams,
    size: int,
    contours: Float64[np.ndarray, "n columns"],
    shapes: Float64[np.ndarray, "n 3"],
    uniform: Float64[np.ndarray, "n 2"],
) -> Float32[np.ndarray, "n 6"]:
    """What ``independent_polygons`` takes of each contour, in pixels of a canvas.

    Args:
        params: the recipe's.
        size: of the canvas.
        contours: parameters of the categories; the first four count.
        shapes: radius, stretch along x and along y.
        uniform: numbers from 0 to below 1 for the centre's y and x.

    Returns:
        Radii along x and y, centre x and y, 0.8 P, and P + w: with noise 0.4 n, vertices move by 0.8 P n - (P + w).
    """
    centres = (params.image_size + (2 * uniform - 1) * params.start_pos) / 2
    radii = shapes[:, :1] * shapes[:, 1:]
    perlin, width = contours[:, 2], contours[:, 3]
    lengths = np.column_stack([radii, centres[:, ::-1], 0.8 * perlin, perlin + width])
    return (lengths * (size / params.image_size)).astype(np.float32)


def gray_levels(uniform: Float64[np.ndarray, " ..."]) -> UInt8[np.ndarray, " ..."]:
    """Gray levels of lines, 0 to 255, from numbers from 0 to below 1."""
    return (256 * uniform).astype(np.uint8)
