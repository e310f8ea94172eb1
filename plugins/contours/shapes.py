"""From random numbers to the polygons of a contour, and from polygons to pixels, on the CPU.

A contour has L lines through V vertices. Vertex v lies in the direction c_v = cos(2 pi v / V), s_v = sin(2 pi v / V),
at first at x_v = c_v R o_x, y_v = s_v R o_y. Before each line is drawn, noise N from -1 to 1, fresh for every vertex
and axis, moves it: with N' = 2 P N - P

    x_v -= c_v (N'_x - w),   y_v -= s_v (N'_y - w)

``published_vertices`` takes the noise from the published program's random stream, in float64. ``independent_polygons``
takes it from counter-based words, in float32; its twin on a GPU is in ``shapes_triton.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, Integer, UInt8, UInt16, UInt32
from numba import uint32, uint64

from formulavision.rendering import kernel, noise_fields, pixel_lines, python_random
from formulavision.rendering.random import kernel_key, philox_blocks

__all__ = [
    "AREAS",
    "angles",
    "draw_lines",
    "draw_objects",
    "fill_area",
    "independent_polygons",
    "independent_wave_polygons",
    "kernel_key",
    "look_up",
    "mark_object",
    "mark_published_object",
    "packed_directions",
    "published_vertices",
    "to_polygons",
]

AREAS: dict[str, int] = {"lines": 0, "M1": 0, "ring": 1, "M2": 1, "filled": 2, "M3": 2}
"""Numbers of the outlines of RCDB and the masks of SegRCDB, for kernels."""

_NEAR = noise_fields.GRADIENTS_1D
_FAR = np.roll(_NEAR, -1)
_TO_UNIT = np.float32(2.0**-24)


@lru_cache(maxsize=4096)
def angles(vertices: int) -> Float64[np.ndarray, "2 {vertices}"]:
    """Cosines and sines of the vertices' directions, by the C library: vectorised ones differ in the last bit."""
    step = 2 * math.pi / vertices
    return np.array([[math.cos(step * v) for v in range(vertices)], [math.sin(step * v) for v in range(vertices)]])


def packed_directions(
    vertices: Int64[np.ndarray, " n"],
) -> tuple[Float32[np.ndarray, " numbers"], Int64[np.ndarray, " most"]]:
    """Cosines, then sines, of each number of vertices, one after the other, and by such a number where its begin."""
    tables = {number: angles(number).astype(np.float32).ravel() for number in np.unique(vertices).tolist()}
    starts = np.zeros(vertices.max() + 1, np.int64)
    starts[list(tables)] = np.cumsum([0, *(len(table) for table in tables.values())])[:-1]
    return np.concatenate(list(tables.values())), starts


# Vertices ------------------------------------------------------------------------------------------------------------


@kernel
def published_vertices(
    state: UInt32[np.ndarray, " 625"],
    directions: Float64[np.ndarray, "2 vertices"],
    coefficient: float,
    width: float,
    shape: Float64[np.ndarray, " 3"],
    centre: Float64[np.ndarray, " 2"],
    brightest: int,
    grays: UInt8[np.ndarray, " lines"],
    vertices: Float64[np.ndarray, "lines 2 vertices"],
) -> None:
    """Vertices of the lines of a published contour, and their gray levels.

    Args:
        state: where the contour begins, is moved on behind it.
        directions: cosines and sines.
        coefficient, width: P and w.
        shape: R, o_x and o_y.
        centre: y and x that the vertices are moved by at first.
        brightest: largest gray level that is drawn; above 255 it counts as 255.
        grays, vertices: are filled; x, then y.
    """
    radius, oval_x, oval_y = shape
    x = directions[0] * radius * oval_x + centre[1]
    y = directions[1] * radius * oval_y + centre[0]
    for line in range(len(grays)):
        grays[line] = min(python_random.randint(state, 0, brightest), 255)
        for v in range(x.size):
            noise = noise_fields.perlin1(python_random.uniform(state, 0.0, 10000.0)) * coefficient * 2.0 - coefficient
            x[v] -= directions[0, v] * (noise - width)
        for v in range(x.size):
            noise = noise_fields.perlin1(python_random.uniform(state, 0.0, 10000.0)) * coefficient * 2.0 - coefficient
            y[v] -= directions[1, v] * (noise - width)
        vertices[line, 0] = x
        vertices[line, 1] = y


@kernel
def to_polygons(
    vertices: Float64[np.ndarray, "lines 2 vertices"], centre: Float64[np.ndarray, " 2"], scale: float
) -> Int32[np.ndarray, "lines 2 vertices"]:
    """Corners in pixels: vertices moved by ``centre`` (y, x), scaled, and cut to whole numbers towards zero."""
    polygons = np.empty(vertices.shape, np.int32)
    for line in range(vertices.shape[0]):
        for axis in range(2):
            for v in range(vertices.shape[2]):
                polygons[line, axis, v] = int((vertices[line, axis, v] + centre[1 - axis]) * scale)
    return polygons


@kernel(inline="always")
def _noise(word: np.uint32) -> np.float32:
    """Noise in one dimension at a random point, before the factor 0.4: the lattice cell is the word's upper byte."""
    cell = word >> uint32(24)
    return noise_fields.blend_1d(_NEAR[cell], _FAR[cell], np.float32(word & uint32(0xFFFFFF)) * _TO_UNIT)


@kernel
def _move(
    places: Float32[np.ndarray, " n"],
    directions: Float32[np.ndarray, " n"],
    words: UInt32[np.ndarray, " n"],
    factor: np.float32,
    shifts: Float32[np.ndarray, " n"],
    centre: np.float32,
    corners: Int32[np.ndarray, " n"],
) -> None:
    """Move vertices along one axis, and round them to corners."""
    for v in range(uint64(places.size)):
        places[v] -= directions[v] * (_noise(words[v]) * factor - shifts[v])
        corners[v] = np.int32(places[v] + centre)


@kernel
def independent_polygons(
    directions: Float32[np.ndarray, "2 vertices"],
    frame: Float32[np.ndarray, " 6"],
    counter: tuple[int, int, int],
    key: tuple[int, int],
    polygons: Int32[np.ndarray, "lines 2 vertices"],
) -> None:
    """Corners in pixels of the lines of a contour with counter-based random numbers.

    Block 65,536 l + b of Philox4x32 has the noise of vertices b and b + ceil(V / 2) of line l: x and y of each.

    Args:
        directions: cosines and sines.
        frame: in pixels: R o_x, R o_y, centre x and y, the factor 0.8 P of noise before its own factor, and P + w.
        counter: the last three words of the counter.
        key: of the random numbers.
        polygons: is filled.
    """
    shifts = np.full(polygons.shape[2], frame[5])
    independent_wave_polygons(directions, shifts, frame[:5], counter, key, polygons)


@kernel
def independent_wave_polygons(
    directions: Float32[np.ndarray, "2 vertices"],
    shifts: Float32[np.ndarray, " vertices"],
    frame: Float32[np.ndarray, " 5"],
    counter: tuple[int, int, int],
    key: tuple[int, int],
    polygons: Int32[np.ndarray, "lines 2 vertices"],
) -> None:
    """As ``independent_polygons``, with another shift P + w for each vertex, which may contain waves.

    Args:
        directions: cosines and sines.
        shifts: distance in pixels that each vertex moves outwards from a line to the next, before the noise.
        frame: in pixels: R o_x, R o_y, centre x and y, and the factor of noise before its own factor.
        counter: the last three words of the counter.
        key: of the random numbers.
        polygons: is filled.
    """
    lines, _, vertices = polygons.shape
    half = (vertices + 1) // 2
    words = np.empty((4, half), np.uint32)
    x, y = directions[0] * frame[0], directions[1] * frame[1]
    centre_x, centre_y, factor = frame[2], frame[3], frame[4]
    for line in range(lines):
        philox_blocks(line << 16, counter[0], counter[1], counter[2], key[0], key[1], words)
        for part in range(2):
            start, stop = part * half, min(half + part * half, vertices)
            own_x, own_y = words[2 * part, : stop - start], words[2 * part + 1, : stop - start]
            cosines, sines, own = directions[0, start:stop], directions[1, start:stop], shifts[start:stop]
            _move(x[start:stop], cosines, own_x, factor, own, centre_x, polygons[line, 0, start:stop])
            _move(y[start:stop], sines, own_y, factor, own, centre_y, polygons[line, 1, start:stop])


# Pixels --------------------------------------------------------------------------------------------------------------


@kernel
def draw_lines(
    image: Integer[np.ndarray, "size size"],
    polygons: Int32[np.ndarray, "lines 2 vertices"],
    values: Integer[np.ndarray, " lines"],
) -> None:
    """Draw the lines of a contour one after the other, each with its value."""
    for line in range(len(values)):
        pixel_lines.draw_polygon(image, polygons[line, 0], polygons[line, 1], values[line])


@kernel
def look_up(
    owners: Int32[np.ndarray, "size size"],
    table: Integer[np.ndarray, " owners"],
    out: Integer[np.ndarray, "size size"],
) -> None:
    """Fill ``out`` with the table's value for the owner of each pixel."""
    for row in range(owners.shape[0]):
        for column in range(owners.shape[1]):
            out[row, column] = table[uint32(owners[row, column])]


@kernel
def fill_area(
    image: Integer[np.ndarray, "size size"],
    polygons: Int32[np.ndarray, "lines 2 vertices"],
    area: int,
    value: int,
    erased: int,
    odd: UInt8[np.ndarray, "size size"],
) -> None:
    """Fill the area of a contour.

    Args:
        image: is drawn on.
        polygons: the contour.
        area: 0 nothing, 1 between the first and the last line, 2 inside of the last line.
        value: of the pixels.
        erased: value of the pixels inside of the first line where ``area`` is 1.
        odd: scratch memory: zeros, and zeros afterwards.
    """
    last = polygons.shape[0] - 1
    if area > 0:
        pixel_lines.fill_even_odd(image, polygons[last, 0], polygons[last, 1], value, odd)
    if area == 1:
        pixel_lines.fill_even_odd(image, polygons[0, 0], polygons[0, 1], erased, odd)


@kernel
def mark_object(
    mask: Integer[np.ndarray, "size size"],
    polygons: Int32[np.ndarray, "lines 2 vertices"],
    area: int,
    value: int,
    odd: UInt8[np.ndarray, "size size"],
) -> None:
    """Mark the pixels that belong to a contour: its lines, or its area with the lines around it.

    Args:
        mask, polygons, area, value, odd: as in ``fill_area``; with area 1, pixels inside of the first line become 0.
    """
    last = polygons.shape[0] - 1
    fill_area(mask, polygons, area, value, 0, odd)
    for line in range(last + 1):
        if area == 0 or line == last or (area == 1 and line == 0):
            pixel_lines.draw_polygon(mask, polygons[line, 0], polygons[line, 1], value)


@kernel
def draw_objects(
    directions: Float32[np.ndarray, " numbers"],
    starts: Int64[np.ndarray, " objects"],
    vertices: Int64[np.ndarray, " objects"],
    lines: Int64[np.ndarray, " objects"],
    frames: Float32[np.ndarray, "objects 6"],
    scene: int,
    key: tuple[int, int],
    area: int,
    owners: Int32[np.ndarray, "size size"],
    object_map: UInt16[np.ndarray, "size size"],
    odd: UInt8[np.ndarray, "size size"],
) -> None:
    """Draw the objects of a scene, each a contour with counter-based random numbers.

    Args:
        directions, starts: cosines and sines of all numbers of vertices, and where each object's begin.
        vertices, lines: numbers of each object.
        frames: of each object, as in ``independent_polygons``.
        scene: number of the scene; with the object's number it is the counter.
        key: of the random numbers.
        area: 0, or the area that is marked in ``object_map``, as in ``fill_area``.
        owners: gets the number of the last line at each pixel, from 1.
        object_map: gets the number of the last object at each pixel, where areas are marked.
        odd: scratch memory: zeros, and zeros afterwards.
    """
    number = 0
    for k in range(len(lines)):
        own = directions[starts[k] : starts[k] + 2 * vertices[k]].reshape(2, vertices[k])
        polygons = np.empty((lines[k], 2, vertices[k]), np.int32)
        independent_polygons(own, frames[k], (scene & 0xFFFFFFFF, k, scene >> 32), key, polygons)
        for line in range(lines[k]):
            number += 1
            pixel_lines.draw_polygon(owners, polygons[line, 0], polygons[line, 1], number)
        if area > 0:
            mark_object(object_map, polygons, area, k + 1, odd)


@kernel
def mark_published_object(
    mask: Integer[np.ndarray, "size size"], polygons: Int32[np.ndarray, "lines 2 vertices"], area: int, value: int
) -> None:
    """Mark a contour as in SegRCDB's masks M2 (``area`` 1) and M3 (2), with the rule of Pillow 9.0.0.

    M2 sets the inside of the first line to 0, also where other objects lie, and then draws the first and the last line.
    A contour of one line has no area in M2.
    """
    last = polygons.shape[0] - 1
    if area == 1 and last == 0:
        return
    x, y = _with_both_ends(polygons[last])
    pixel_lines.fill_polygon(mask, x, y, value)
    if area == 1:
        x, y = _with_both_ends(polygons[0])
        pixel_lines.fill_polygon(mask, x, y, 0)
        pixel_lines.draw_polygon(mask, polygons[last, 0], polygons[last, 1], value)
        pixel_lines.draw_polygon(mask, polygons[0, 0], polygons[0, 1], value)


@kernel
def _with_both_ends(
    polygon: Int32[np.ndarray, "2 vertices"],
) -> tuple[Int32[np.ndarray, " corners"], Int32[np.ndarray, " corners"]]:
    """Corners x and y, with each but the first as the end of a side and the start of the next: 2 V corners."""
    vertices = polygon.shape[1]
    corners = np.empty((2, 2 * vertices), np.int32)
    for v in range(vertices):
        for axis in range(2):
            corners[axis, 2 * v] = polygon[axis, v]
            corners[axis, 2 * v + 1] = polygon[axis, (v + 1) % vertices]
    return corners[0], corners[1]
