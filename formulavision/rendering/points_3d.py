"""Points in space, seen by a camera: projection to pixels, and dots of one pixel.

All arithmetic is float32 in OpenGL's order, without fused multiply-add, and pixels are those of Mesa's renderer: it
rounds positions to 1/256 of a pixel before it finds the pixel.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numba import uint64

from formulavision.rendering.kernels import kernel

__all__ = ["camera", "combined", "draw_points", "perspective"]

_BLOCK = 1024


def perspective(degrees: float, near: float, far: float) -> Float32[np.ndarray, "4 4"]:
    """Projection of an image with equal sides, as OpenGL's: it divides by the depth, which is the last row.

    Args:
        degrees: angle that the image covers.
        near, far: depths between which points are seen.
    """
    cotangent = 1 / math.tan(math.radians(degrees) / 2)
    matrix = np.diag([cotangent, cotangent, (far + near) / (near - far), 0])
    matrix[2, 3] = 2 * far * near / (near - far)
    matrix[3, 2] = -1
    return matrix.astype(np.float32)


def camera(toward: Float64[np.ndarray, " 3"], distance: float) -> Float32[np.ndarray, "4 4"]:
    """View of a camera that looks at the origin; y is up in the image.

    Args:
        toward: unit vector in which the camera looks, not along y.
        distance: from the origin.
    """
    right = np.array([-toward[2], 0.0, toward[0]]) / math.hypot(toward[0], toward[2])
    matrix = np.eye(4)
    matrix[:3, :3] = right, np.cross(right, toward), -toward
    matrix[2, 3] = -distance
    return matrix.astype(np.float32)


def combined(view: Float32[np.ndarray, "4 4"], projection: Float32[np.ndarray, "4 4"]) -> Float32[np.ndarray, "4 4"]:
    """The product of a projection and a view, in OpenGL's order of operations.

    Args:
        view: from ``camera``.
        projection: from ``perspective``.
    """
    p, v = projection[:, :, None], view
    return (p[:, 0] * v[0] + p[:, 1] * v[1] + p[:, 2] * v[2]) + p[:, 3] * v[3]


@kernel(error_model="numpy")
def draw_points(
    points: Float32[np.ndarray, "3 points"],
    matrix: Float32[np.ndarray, "4 4"],
    value: int,
    image: UInt8[np.ndarray, "size size"],
) -> None:
    """Draw a dot of one pixel for each point; points outside of the image are left out.

    Args:
        points: x, y and z.
        matrix: from ``combined``.
        value: of the pixels.
        image: is drawn on; its first row is the bottom of the view.
    """
    size = image.shape[0]
    half, side, parts, one = np.float32(size / 2), np.float32(size), np.float32(256), np.float32(1)
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    e, f, g, h = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    k, m, n, o = matrix[3, 0], matrix[3, 1], matrix[3, 2], matrix[3, 3]
    pixels = np.empty(_BLOCK, np.int32)
    flat = image.reshape(-1)
    for start in range(0, points.shape[1], _BLOCK):
        count = min(_BLOCK, points.shape[1] - start)
        xs, ys, zs = (
            points[0, start : start + count],
            points[1, start : start + count],
            points[2, start : start + count],
        )
        for p in range(uint64(count)):
            x, y, z = xs[p], ys[p], zs[p]
            depth = k * x + m * y + n * z + o
            inverse = one / depth
            across = (a * x + b * y + c * z + d) * inverse * half + half
            up = (e * x + f * y + g * z + h) * inverse * half + half
            column = np.floor(np.rint(across * parts) / parts)
            row = np.floor(np.rint(up * parts) / parts)
            seen = (column >= 0) & (row >= 0) & (column < side) & (row < side) & (depth > 0)
            pixels[p] = np.int32(row * side + column) if seen else np.int32(-1)
        for p in range(uint64(count)):
            if pixels[p] >= 0:
                flat[uint64(pixels[p])] = value
