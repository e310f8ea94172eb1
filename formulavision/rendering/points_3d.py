"""Points in space, seen by a camera: projection to pixels, and dots of one pixel.

All arithmetic is float32 without fused multiply-add: matrices in the order of operations of the library GLM, points in
OpenGL's. Pixels are those of Mesa's renderer: it rounds positions to 1/256 of a pixel before it finds the pixel.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numba import uint64

from formulavision.rendering.kernels import kernel

__all__ = ["cameras", "combined", "draw_points", "perspective", "turned"]

_BLOCK = 1024
_SINE = [float.fromhex(c) for c in ("-0x1.555545995a603p-3", "0x1.1107605230bc4p-7", "-0x1.994eb3774cf24p-13")]
_COSINE = [
    float.fromhex(c)
    for c in ("-0x1.ffffffd0c621cp-2", "0x1.55553e1068f19p-5", "-0x1.6c087e89a359dp-10", "0x1.99343027bf8c3p-16")
]
"""Coefficients of x^3, x^5, x^7 of the sine, and of x^2, x^4, x^6, x^8 of the cosine."""


def perspective(degrees: float, near: float, far: float) -> Float32[np.ndarray, "4 4"]:
    """Projection of an image with equal sides, as OpenGL's: it divides by the depth, which is the last row.

    Args:
        degrees: angle that the image covers.
        near, far: depths between which points are seen.
    """
    half, close, distant = np.float32(math.radians(degrees)) / np.float32(2), np.float32(near), np.float32(far)
    cotangent = np.float32(1) / np.float32(math.tan(half))
    matrix = np.diag([cotangent, cotangent, -(distant + close) / (distant - close), np.float32(0)])
    matrix[2, 3] = -(np.float32(2) * distant * close) / (distant - close)
    matrix[3, 2] = -1
    return matrix


def turned(matrices: Float32[np.ndarray, "n 3 3"], angles: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3 3"]:
    """Each matrix times a turn about the y axis, in the order of operations of GLM's ``rotate``.

    Args:
        matrices: of column vectors.
        angles: in radians; they are rounded to float32 first.
    """
    cosine, sine = (values[:, None] for values in _cosine_and_sine(angles.astype(np.float32).astype(np.float64)))
    x, y, z = np.moveaxis(matrices, 2, 0)
    return np.stack([x * cosine - z * sine, y * (cosine + (1 - cosine)), x * sine + z * cosine], axis=2)


def _cosine_and_sine(angles: Float64[np.ndarray, " n"]) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """``cosf`` and ``sinf`` of the GNU C library, which GLM calls: their last bit is not always the nearest one.

    Source: Arm's optimized routines, ``sincosf``: polynomials in double precision, for angles below 120.
    """
    quarters = np.rint(angles * (2 / np.pi))
    x = angles - quarters * (np.pi / 2)
    x2 = x * x
    x3, x4 = x * x2, x2 * x2
    sine = (x + x3 * _SINE[0]) + x3 * x2 * (_SINE[1] + x2 * _SINE[2])
    cosine = ((1 + x2 * _COSINE[0]) + x4 * _COSINE[1]) + x4 * x2 * (_COSINE[2] + x2 * _COSINE[3])
    quarter = quarters.astype(np.int64) % 4
    cosines, sines = (cosine, -sine, -cosine, sine), (sine, cosine, -sine, -cosine)
    return np.choose(quarter, cosines).astype(np.float32), np.choose(quarter, sines).astype(np.float32)


def cameras(
    toward: Float32[np.ndarray, "n 3"], up: Float32[np.ndarray, "n 3"], distance: float
) -> Float32[np.ndarray, "n 4 4"]:
    """Views of cameras that look at the origin, in the order of operations of GLM's ``lookAt``.

    Args:
        toward: directions in which the cameras look, of length 1.
        up: directions that are up in the images, not along ``toward``.
        distance: from the origin.
    """
    eyes = 0 - toward * np.float32(distance)
    forward = _normalized(0 - eyes)
    right = _normalized(np.cross(forward, up))
    matrices = np.zeros((len(toward), 4, 4), np.float32)
    for row, axis in enumerate((right, np.cross(right, forward), -forward)):
        matrices[:, row, :3], matrices[:, row, 3] = axis, -_dot(axis, eyes)
    matrices[:, 3, 3] = 1
    return matrices


def _normalized(vectors: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    return vectors * (1 / np.sqrt(_dot(vectors, vectors)))[:, None]


def _dot(a: Float32[np.ndarray, "n 3"], b: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, " n"]:
    x, y, z = (a * b).T
    return x + y + z


def combined(
    views: Float32[np.ndarray, "n 4 4"], projection: Float32[np.ndarray, "4 4"]
) -> Float32[np.ndarray, "n 4 4"]:
    """The products of a projection and views, in OpenGL's order of operations.

    Args:
        views: from ``cameras``.
        projection: from ``perspective``.
    """
    p, v = projection[:, :, None], views[:, None]
    return (p[:, 0] * v[:, :, 0] + p[:, 1] * v[:, :, 1] + p[:, 2] * v[:, :, 2]) + p[:, 3] * v[:, :, 3]


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
