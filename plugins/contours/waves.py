"""From random numbers to the polygons of a visual atom, on the CPU.

A visual atom has L closed lines through V vertices. Vertex v lies in the direction c_v = cos(2 pi v / V),
s_v = sin(2 pi v / V), at first at x_v = c_v R o_x + X, y_v = s_v R o_y + Y. Before each line is drawn, two sines and
noise from -1 to 1, fresh for every vertex and axis, move it: with h_v(n) = 0.5 sin(2 pi v n / V) and
N = P noise - P - h_v(n1) - h_v(n2)

    x_v -= c_v (N_x - w),   y_v -= s_v (N_y - w)

``published_wave_polygons`` takes the noise from the published program's random stream, in float64. With counter-based
random numbers ``shapes.independent_wave_polygons`` draws them, in float32.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8, UInt32
from numba import uint64

from formulavision.rendering import kernel, noise_fields, python_random

from .parameters import VisualAtomsParams

__all__ = ["half_sines", "move_published", "published_wave_polygons", "wave_frames", "wave_shifts"]

_NEAR = noise_fields.GRADIENTS_1D
_FAR = np.roll(_NEAR, -1)


@lru_cache(maxsize=4096)
def half_sines(vertices: int, frequency_1: int, frequency_2: int) -> Float64[np.ndarray, "2 {vertices}"]:
    """h_v of both sines, by the C library: vectorised sines differ in the last bit."""
    step = 2 * math.pi / vertices
    return np.array([[0.5 * math.sin(step * v * n) for v in range(vertices)] for n in (frequency_1, frequency_2)])


# The published program -----------------------------------------------------------------------------------------------


@kernel
def move_published(
    state: UInt32[np.ndarray, " 625"],
    directions: Float64[np.ndarray, " vertices"],
    sines: Float64[np.ndarray, "2 vertices"],
    perlin: float,
    width: float,
    words: UInt32[np.ndarray, " words"],
    places: Float64[np.ndarray, " vertices"],
) -> None:
    """Move vertices along one axis from a line to the next.

    Args:
        state: of the random numbers, is moved on.
        directions: cosines for x, sines for y.
        sines: from ``half_sines``.
        perlin, width: P and w.
        words: scratch memory, two for each vertex.
        places: x or y of the vertices, is moved.
    """
    noise = np.empty(places.size)
    python_random.fractions(state, words, noise)
    first, second = sines[0], sines[1]
    for v in range(uint64(places.size)):
        at = np.float32(10000.0 * noise[v])
        floor = np.floor(at)
        cell = np.int64(floor)
        value = noise_fields.blend_1d(_NEAR[cell & 255], _FAR[cell & 255], at - floor) * noise_fields.REACH_1D
        moved = float(value) * perlin - perlin - first[v] - second[v]
        places[v] -= directions[v] * (moved - width)


@kernel
def published_wave_polygons(
    state: UInt32[np.ndarray, " 625"],
    directions: Float64[np.ndarray, "2 vertices"],
    sines: Float64[np.ndarray, "2 vertices"],
    category: Float64[np.ndarray, " 9"],
    centre: Float64[np.ndarray, " 2"],
    scale: float,
    grays: UInt8[np.ndarray, " lines"],
    polygons: Int32[np.ndarray, "lines 2 vertices"],
) -> None:
    """Corners in pixels of the lines of a published image, and their gray levels.

    Args:
        state: where the image begins, is moved on behind its last line.
        directions: cosines and sines.
        sines: from ``half_sines``.
        category: its parameters.
        centre: y and x, in pixels of the published image.
        scale: size of such a pixel on the canvas, in pixels.
        grays, polygons: are filled.
    """
    perlin, width, radius = category[2], category[3], category[4]
    x = directions[0] * radius * category[7] + centre[1]
    y = directions[1] * radius * category[8] + centre[0]
    words = np.empty(2 * x.size, np.uint32)
    for line in range(len(grays)):
        grays[line] = python_random.randint(state, 0, 255)
        move_published(state, directions[0], sines, perlin, width, words, x)
        move_published(state, directions[1], sines, perlin, width, words, y)
        for v in range(uint64(x.size)):
            polygons[line, 0, v] = np.int32(x[v] * scale)
            polygons[line, 1, v] = np.int32(y[v] * scale)


# Counter-based random numbers ----------------------------------------------------------------------------------------


def wave_shifts(
    params: VisualAtomsParams, size: int, category: Float64[np.ndarray, " 9"]
) -> Float32[np.ndarray, " vertices"]:
    """Distance in pixels of a canvas that each vertex moves outwards from a line to the next: P + w and the sines."""
    vertices, wave_1, wave_2 = category[[0, 5, 6]].astype(int).tolist()
    sines = half_sines(vertices, wave_1, wave_2).sum(axis=0)
    return (size / params.image_size * (category[2] + category[3] + sines)).astype(np.float32)


def wave_frames(
    params: VisualAtomsParams,
    size: int,
    categories: Float64[np.ndarray, "n 9"],
    uniform: Float64[np.ndarray, "n 2"],
) -> Float32[np.ndarray, "n 5"]:
    """The frames that ``shapes.independent_wave_polygons`` takes.

    Args:
        params: the recipe's.
        size: of the canvas.
        categories: parameters of each instance's category.
        uniform: numbers from 0 to below 1 for the centre's y and x.
    """
    centres = (params.image_size + (2 * uniform[:, ::-1] - 1) * params.start_pos) / 2
    lengths = np.column_stack([categories[:, 4:5] * categories[:, 7:], centres, 0.4 * categories[:, 2]])
    return (size / params.image_size * lengths).astype(np.float32)
