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
_SINE = tuple(float.fromhex(c) for c in ("-0x1.555545995a603p-3", "0x1.1107605230bc4p-7", "-0x1.994eb3774cf24p-13"))
_COSINE = tuple(
    float.fromhex(c)
    for c in ("-0x1.ffffffd0c621cp-2", "0x1.55553e1068f19p-5", "-0x1.6c087e89a359dp-10", "0x1.99343027bf8c3p-16")
)
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


@kernel(error_model="numpy")
def turned(matrices: Float32[np.ndarray, "n 3 3"], angles: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3 3"]:
    """Each matrix times a turn about the y axis, in the order of operations of GLM's ``rotate``.

    Args:
        matrices: of column vectors.
        angles: in radians; they are rounded to float32 first.
    """
    out, one = np.empty_like(matrices), np.float32(1)
    for i in range(len(angles)):
        cosine, sine = _cosine_and_sine(np.float64(np.float32(angles[i])))
        for row in range(3):
            x, y, z = matrices[i, row, 0], matrices[i, row, 1], matrices[i, row, 2]
            out[i, row, 0] = x * cosine - z * sine
            out[i, row, 1] = y * (cosine + (one - cosine))
            out[i, row, 2] = x * sine + z * cosine
    return out


@kernel
def _cosine_and_sine(angle: float) -> tuple[np.float32, np.float32]:
    """``cosf`` and ``sinf`` of the GNU C library, which GLM calls: their last bit is not always the nearest one.

    Source: Arm's optimized routines, ``sincosf``: polynomials in double precision, for angles below 120.
    """
    quarters = np.rint(angle * (2 / np.pi))
    x = angle - quarters * (np.pi / 2)
    x2 = x * x
    x3, x4 = x * x2, x2 * x2
    sine = (x + x3 * _SINE[0]) + x3 * x2 * (_SINE[1] + x2 * _SINE[2])
    cosine = ((1 + x2 * _COSINE[0]) + x4 * _COSINE[1]) + x4 * x2 * (_COSINE[2] + x2 * _COSINE[3])
    quarter = int(quarters) % 4
    if quarter % 2 == 1:
        sine, cosine = cosine, -sine
    if quarter >= 2:
        sine, cosine = -sine, -cosine
    return np.float32(cosine), np.float32(sine)


@kernel(error_model="numpy")
def cameras(
    toward: Float32[np.ndarray, "n 3"], up: Float32[np.ndarray, "n 3"], distance: float
) -> Float32[np.ndarray, "n 4 4"]:
    """Views of cameras that look at the origin, in the order of operations of GLM's ``lookAt``.

    Args:
        toward: directions in which the cameras look, of length 1.
        up: directions that are up in the images, not along ``toward``.
        distance: from the origin.
    """
    matrices = np.zeros((len(toward), 4, 4), np.float32)
    zero, far = np.float32(0), np.float32(distance)
    for i in range(len(toward)):
        eye = zero - toward[i] * far
        forward = _normalized(zero - eye)
        right = _normalized(_cross(forward, up[i]))
        above = _cross(right, forward)
        for column in range(3):
            matrices[i, 0, column], matrices[i, 1, column] = right[column], above[column]
            matrices[i, 2, column] = -forward[column]
        for row in range(3):
            matrices[i, row, 3] = -_dot(matrices[i, row, :3], eye)
        matrices[i, 3, 3] = np.float32(1)
    return matrices


@kernel(error_model="numpy")
def _normalized(vector: Float32[np.ndarray, " 3"]) -> Float32[np.ndarray, " 3"]:
    return vector * (np.float32(1) / np.sqrt(_dot(vector, vector)))


@kernel
def _cross(a: Float32[np.ndarray, " 3"], b: Float32[np.ndarray, " 3"]) -> Float32[np.ndarray, " 3"]:
    out = np.empty(3, np.float32)
    out[0], out[1], out[2] = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    return out


@kernel
def _dot(a: Float32[np.ndarray, " 3"], b: Float32[np.ndarray, " 3"]) -> np.float32:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def combined(
    views: Float32[np.ndarray, "n 4 4"], projection: Float32[np.ndarray, "4 4"]
) -> Float32[np.ndarray, "n 4 4"]:
    """The products of a projection and views, in OpenGL's order of operations.

    Args:
        views: from ``cameras``.
        projection: from ``perspective``.
    """
    out, p = np.empty_like(views), projection
    for i in range(len(views)):
        v = views[i]
        for row in range(4):
            for column in range(4):
                out[i, row, column] = (
                    p[row, 0] * v[0, column] + p[row, 1] * v[1, column] + p[row, 2] * v[2, column]
                ) + p[row, 3] * v[3, column]
    return out


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
