"""Corners of contours on a GPU: the twin of ``independent_polygons`` of ``shapes``."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Int32, Int64

from formulavision.rendering.noise_fields import GRADIENTS_1D
from formulavision.rendering.random_triton import philox4x32
from formulavision.rendering.triton_support import EXACT, keep, signed

__all__ = ["independent_corners"]

_VERTICES = 128


@triton.jit
def _noise(gradients, word):
    cell = (word >> 24).to(tl.int32)
    t = (word & 0xFFFFFF).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
    near = t * tl.load(gradients + cell)
    far = (t - 1.0) * tl.load(gradients + ((cell + 1) & 255))
    fade = t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
    return near + fade * (far - near)


@triton.jit(do_not_specialize=["key0", "key1"])
def _independent_corners(
    gradients, directions, shifts, contours, frames, corners, key0, key1, WAVES: tl.constexpr, VERTICES: tl.constexpr
):
    contour = tl.program_id(0).to(tl.int64)
    about, frame = contours + 8 * contour, frames + 6 * contour
    vertices, lines = tl.load(about + 1).to(tl.int32), tl.load(about + 2).to(tl.int32)
    half = (vertices + 1) // 2
    b = tl.program_id(1) * VERTICES + tl.arange(0, VERTICES)
    c = b + half
    there, there_too = b < half, (b < half) & (c < vertices)
    cosines = directions + tl.load(about)
    sines = cosines + vertices
    cos_b, sin_b = tl.load(cosines + b, mask=there, other=0.0), tl.load(sines + b, mask=there, other=0.0)
    cos_c, sin_c = tl.load(cosines + c, mask=there_too, other=0.0), tl.load(sines + c, mask=there_too, other=0.0)
    x_b, y_b = cos_b * tl.load(frame), sin_b * tl.load(frame + 1)
    x_c, y_c = cos_c * tl.load(frame), sin_c * tl.load(frame + 1)
    centre_x, centre_y = tl.load(frame + 2), tl.load(frame + 3)
    factor = tl.load(frame + 4)
    if WAVES:
        own = shifts + tl.load(about + 7)
        shift_b = tl.load(own + b, mask=there, other=0.0)
        shift_c = tl.load(own + c, mask=there_too, other=0.0)
    else:
        shift_b = tl.load(frame + 5)
        shift_c = shift_b
    word1, word2, word3 = tl.load(about + 4), tl.load(about + 5), tl.load(about + 6)
    target = corners + tl.load(about + 3)
    for line in range(0, lines):
        w0, w1, w2, w3 = philox4x32((line << 16) + b, word1, word2, word3, key0, key1)
        x_b -= cos_b * (_noise(gradients, w0) * factor - shift_b)
        y_b -= sin_b * (_noise(gradients, w1) * factor - shift_b)
        x_c -= cos_c * (_noise(gradients, w2) * factor - shift_c)
        y_c -= sin_c * (_noise(gradients, w3) * factor - shift_c)
        tl.store(target + b, (x_b + centre_x).to(tl.int32), mask=there)
        tl.store(target + c, (x_c + centre_x).to(tl.int32), mask=there_too)
        tl.store(target + vertices + b, (y_b + centre_y).to(tl.int32), mask=there)
        tl.store(target + vertices + c, (y_c + centre_y).to(tl.int32), mask=there_too)
        target += 2 * vertices


@lru_cache
def _gradients(device: torch.device) -> Float32[torch.Tensor, " 256"]:
    return keep(GRADIENTS_1D, device)


def independent_corners(
    directions: Float32[torch.Tensor, " numbers"],
    shifts: Float32[torch.Tensor, " shifts"] | None,
    contours: Int64[torch.Tensor, "contours 8"],
    frames: Float32[torch.Tensor, "contours 6"],
    corners: Int32[torch.Tensor, " corners"],
    most_vertices: int,
    key: tuple[int, int],
) -> None:
    """Corners in pixels of the lines of contours, as ``shapes.independent_polygons`` gives them.

    Args:
        directions: cosines, then sines, of each number of vertices.
        shifts: as in ``shapes.independent_wave_polygons``, of all categories; None: those of the frames.
        contours: of each contour: index of its cosines, number of vertices, number of lines, index of its first number
            in ``corners``, the last three words of its counter, and index of its first shift.
        frames: as in ``shapes.independent_polygons``.
        corners: is filled; of each line x of all corners, then y of all.
        most_vertices: largest number of vertices of a contour.
        key: of the random numbers.
    """
    _independent_corners[(len(contours), triton.cdiv((most_vertices + 1) // 2, _VERTICES))](
        _gradients(corners.device),
        directions,
        directions if shifts is None else shifts,
        contours,
        frames,
        corners,
        signed(key[0]),
        signed(key[1]),
        WAVES=shifts is not None,
        VERTICES=_VERTICES,
        num_warps=4,
        **EXACT,
    )
