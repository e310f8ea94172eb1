"""Clouds of points of 3D iterated function systems on the CPU, and the acceptance of systems.

A system is float64 [n, 13]: a row is a transformation A (3 x 3, row by row) and b, x' = A x + b, and its probability.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64
from numba import uint64

from formulavision.rendering import kernel
from formulavision.rendering.points import widen

__all__ = ["POINTS", "centred", "cloud", "is_accepted", "orbit", "weight_table", "with_probabilities"]

POINTS = 9_999
"""Number of points of a cloud: one less than its random numbers, of which the last has no effect."""
_BLOCK, _LANES = 2048, 128


def weight_table(rows: int = 145, *, published: bool) -> Float64[np.ndarray, "rows 12"]:
    """A published table of weights of A and b: each row changes one parameter, and one row changes none.

    Args:
        rows: 145 for the weights 0.4, 0.5, ... 1.6; 121, 97, ... 25 for fewer on both sides of 1.
        published: with the slip of the published file of 145 rows, where row 108 has 0.6 instead of 1.6, and so repeats
            row 99.
    """
    steps = (rows - 1) // 24
    levels = [round(1 + 0.1 * step, 10) for step in range(-steps, steps + 1)]
    table = []
    for parameter in range(12):
        for level in levels:
            if level != 1 or parameter == 0:
                table.append(np.ones(12))
                table[-1][parameter] = level
    if published and rows == 145:
        table[108][8] = 0.6
    return np.array(table)


def with_probabilities(transformations: Float64[np.ndarray, "n 12"], *, published: bool) -> Float64[np.ndarray, "n 13"]:
    """A system from its transformations: probabilities are proportional to |det A|.

    Args:
        transformations: A and b.
        published: take determinants from LAPACK, as the published search does: their last bit differs among its
            versions. Otherwise they are expanded by the first row, which has the same bits everywhere.
    """
    if published:
        weights = np.abs(np.linalg.det(transformations[:, :9].reshape(-1, 3, 3)))
    else:
        a, b, c, d, e, f, g, h, i = transformations[:, :9].T
        weights = np.abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    # cumsum adds one by one, as the published search does.
    return np.column_stack([transformations, weights / np.cumsum(weights)[-1]])


@kernel
def orbit(
    system: Float64[np.ndarray, "n 13"],
    factors: Float64[np.ndarray, " 12"],
    draws: Float64[np.ndarray, " draws"],
    points: Float64[np.ndarray, "3 points"],
) -> None:
    """The orbit of a system from the origin, which is not among its points.

    Args:
        system: the transformations.
        factors: of A and b, the same for all transformations.
        draws: random numbers: each selects the first transformation whose cumulative probability is not below it; where
            there is none, the point stays. At least as many as points.
        points: x, y and z, are filled.
    """
    count = len(system)
    rows = np.zeros((count + 1, 12))
    for i in range(count):
        rows[i] = system[i, :12] * factors
    rows[count, 0] = rows[count, 4] = rows[count, 8] = 1.0
    cumulative = np.cumsum(system[:, 12])
    x = y = z = 0.0
    selected = np.empty(_BLOCK, np.uint8)
    for start in range(0, points.shape[1], _BLOCK):
        size = min(_BLOCK, points.shape[1] - start)
        block = draws[start : start + size]
        selected[:] = 0
        for total in cumulative:
            for i in range(size):
                selected[i] += np.uint8(block[i] > total)
        for i in range(size):
            w = rows[uint64(selected[i])]
            x, y, z = (
                x * w[0] + y * w[1] + z * w[2] + w[9],
                x * w[3] + y * w[4] + z * w[5] + w[10],
                x * w[6] + y * w[7] + z * w[8] + w[11],
            )
            points[0, start + i], points[1, start + i], points[2, start + i] = x, y, z


@kernel(error_model="numpy")
def centred(points: Float64[np.ndarray, "3 points"]) -> bool:
    """Scale a cloud to a cube from -1 to 1, and move it to the mean of its points.

    As in the published program, all axes share a scale, and the mean is the sum divided by 10,000.

    Returns:
        Whether no y is NaN, which is what the published program asks. Then x and z may still be NaN, all of them: where
        one of them exceeds the range of numbers in the last points.
    """
    count = points.shape[1]
    low, high = np.full(_LANES, np.inf), np.full(_LANES, -np.inf)
    for axis in range(3):
        widen(points[axis], low, high)
    # Once there is NaN, there is NaN up to the last point.
    lowest = np.nan if np.isnan(points[:, count - 1].sum()) else low.min()
    spread = high.max() - lowest
    x, y, z = points[0], points[1], points[2]
    for v in (x, y, z):
        for i in range(count):
            v[i] = ((v[i] - lowest) / spread) * 2 - 1
    # One after the other, as the published program adds them, but all axes at once.
    total_x = total_y = total_z = 0.0
    for i in range(count):
        total_x += x[i]
        total_y += y[i]
        total_z += z[i]
    x -= total_x / 10_000
    y -= total_y / 10_000
    z -= total_z / 10_000
    return not np.isnan(total_y)


def is_accepted(system: Float64[np.ndarray, "n 13"], draws: Float64[np.ndarray, " draws"], variance: float) -> bool:
    """Whether the orbit of a system is finite and varies enough along every axis, after scaling.

    Args:
        system: the transformations.
        draws: random numbers of the orbit.
        variance: the least variance.
    """
    points = np.empty((3, POINTS))
    orbit(system, np.ones(12), draws, points)
    return centred(points) and bool((np.var(points, axis=1) > variance).all())


def cloud(
    system: Float64[np.ndarray, "n 13"], factors: Float64[np.ndarray, " 12"], draws: Float64[np.ndarray, " draws"]
) -> Float32[np.ndarray, "3 points"]:
    """The points of a system, scaled and centred; none where its orbit diverges, so that a y is NaN."""
    points = np.empty((3, POINTS))
    orbit(system, factors, draws, points)
    return points.astype(np.float32) if centred(points) else np.empty((3, 0), np.float32)
