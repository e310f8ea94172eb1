"""The diamond-square algorithm: fractal fields by midpoint displacement (Fournier, Fussell and Carpenter 1982)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from formulavision.rendering.kernels import kernel

__all__ = ["diamond_square", "side_of_field"]


def side_of_field(size: int) -> int:
    """Side of the smallest field that covers ``size`` pixels: 2^n + 1."""
    return (1 << (size - 1).bit_length()) + 1


@kernel
def diamond_square(
    draws: Float[np.ndarray, " numbers"], amplitudes: Float[np.ndarray, " steps"], field: Float[np.ndarray, "side side"]
) -> None:
    """Fill a field: its corners are random, and each step sets the points in the middle of those that are there.

    A new point is the mean of four neighbours plus a uniform number from -A to A: of the corners of its cell, and then,
    halfway between two points, of the neighbours above, below, left and right. Beyond an edge, the neighbour is inside
    of the opposite edge. Points on opposite edges are random numbers of their own.

    Args:
        draws: uniform random numbers from 0 to below 1, as many as the field has points: upper left, upper right, lower
            left and lower right corner; then for each step the middles of all cells, row by row, and the points
            between, row by row.
        amplitudes: A of each step, as many as n.
        field: 2^n + 1 points along each axis, is filled.
    """
    last = field.shape[0] - 1
    field[0, 0], field[0, last], field[last, 0], field[last, last] = draws[0], draws[1], draws[2], draws[3]
    drawn, spacing = 4, last
    quarter = field.dtype.type(0.25)
    for amplitude in amplitudes:
        half = spacing // 2
        width = amplitude + amplitude
        for row in range(half, last, spacing):
            above, below, line = field[row - half], field[row + half], field[row]
            for column in range(half, last, spacing):
                left, right = column - half, column + half
                mean = (above[left] + above[right] + below[left] + below[right]) * quarter
                line[column] = mean + (draws[drawn] * width - amplitude)
                drawn += 1
        for row in range(0, last + 1, half):
            line = field[row]
            above = field[row - half if row > 0 else last - half]
            below = field[row + half if row < last else half]
            for column in range(0 if row % spacing else half, last + 1, spacing):
                left = line[column - half if column > 0 else last - half]
                right = line[column + half if column < last else half]
                mean = (above[column] + below[column] + left + right) * quarter
                line[column] = mean + (draws[drawn] * width - amplitude)
                drawn += 1
        spacing = half
