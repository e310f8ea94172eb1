"""Images of the published program, which seeds numpy's and Python's random streams by the number of each image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int16, UInt8, UInt32
from numba import int64

from formulavision.rendering import kernel, mersenne, python_random

from .opencv import fill_circle, fill_polygon

__all__ = ["draw", "numpy_seeded"]


def numpy_seeded(seed: int) -> UInt32[np.ndarray, " 625"]:
    """The state of ``RandomState(seed)``: its values of ``random_sample`` are ``python_random.fraction`` of it."""
    state = mersenne.legacy_random(seed).get_state(legacy=False)["state"]
    return np.append(state["key"], np.uint32(state["pos"]))


@kernel
def _nearest(cumulative: Float64[np.ndarray, " radii"], value: float) -> int:
    return int(np.argmin(np.abs(cumulative - value)))


@kernel
def _corners(
    state: UInt32[np.ndarray, " 625"],
    shape: int,
    radius: int,
    x: Float64[np.ndarray, " 4"],
    y: Float64[np.ndarray, " 4"],
) -> int:
    """Set the corners of a leaf around its centre, not yet cut to whole numbers, and return their number."""
    if shape == 1 or shape == 2:
        side = int(radius * np.sqrt(2.0) / 2)
        x[:] = np.array([-side, side, side, -side])
        y[:] = np.array([-side, -side, side, side])
    if shape == 2:
        angle = python_random.uniform(state, 0.0, 2 * np.pi)
        cosine, sine = np.cos(angle), np.sin(angle)
        for n in range(4):
            x[n], y[n] = cosine * x[n] - sine * y[n], sine * x[n] + cosine * y[n]
    if shape == 3:
        angle = python_random.uniform(state, 0.0, np.pi / 2)
        across, down = int(radius * np.cos(angle)), int(radius * np.sin(angle))
        x[:] = np.array([across, across, -across, -across])
        y[:] = np.array([down, -down, -down, down])
    if shape < 4:
        return 4
    corners = shape - 1
    angles = np.empty(corners)
    for n in range(corners):
        angles[n] = python_random.uniform(state, 0.0, 2 * np.pi)
    angles.sort()
    for n in range(corners):
        x[n], y[n] = radius * np.cos(angles[n]), radius * np.sin(angles[n])
    return corners


@kernel
def draw(
    numpy_state: UInt32[np.ndarray, " 625"],
    python_state: UInt32[np.ndarray, " 625"],
    shape: int,
    shapes: int,
    radii: Float64[np.ndarray, " radii"],
    cumulative: Float64[np.ndarray, " radii"],
    owners: Int16[np.ndarray, "size size"],
    colors: UInt8[np.ndarray, "colors 3"],
) -> None:
    """Draw leaves over each other until no pixel is black any more.

    Args:
        numpy_state, python_state: the random states of the image's number; are moved on.
        shape: of all leaves, as an index into the list of shapes; -1: one at random for each leaf.
        shapes: number of shapes.
        radii: of which a leaf takes one, as shares of the canvas.
        cumulative: the probability of each and all before it.
        owners: zeros; gets the number of the leaf at each pixel, 0 where that is black.
        colors: zeros; gets the colour of each leaf, from 1 on; one more than the largest number of leaves.
    """
    size = owners.shape[0]
    pixels = owners.reshape(-1)
    x, y = np.empty(4), np.empty(4)
    first_black = 0
    for leaf in range(1, len(colors)):
        kind = int64(python_random.below(python_state, shapes)) if shape < 0 else shape
        for channel in range(3):
            colors[leaf, channel] = int(python_random.fraction(numpy_state) * 255)
        radius = max(int(radii[_nearest(cumulative, python_random.fraction(numpy_state))] * size), 1)
        column = int(python_random.fraction(numpy_state) * size)
        row = int(python_random.fraction(numpy_state) * size)
        owner = leaf if colors[leaf].any() else 0
        if kind == 0:
            fill_circle(owners, column, row, radius, owner)
        else:
            corners = _corners(numpy_state, kind, radius, x, y)
            columns, rows = (x[:corners] + column).astype(np.int32), (y[:corners] + row).astype(np.int32)
            fill_polygon(owners, columns, rows, owner)
        first_black = first_black if owner else 0
        while first_black < pixels.size and pixels[first_black] != 0:
            first_black += 1
        if first_black == pixels.size:
            return
