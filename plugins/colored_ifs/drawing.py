"""From random choices to images: fractals, backgrounds, and both together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from formulavision_plugins.ifs.orbits import lookup_tables
from formulavision_plugins.ifs.systems import thresholds
from jaxtyping import Float, Float32, Float64, Int32, UInt8, UInt16

from formulavision.rendering import kernel
from formulavision.rendering.diamond_square import diamond_square, side_of_field
from formulavision.rendering.memory import scratch
from formulavision.rendering.random import kernel_key, philox_blocks

from .choices import amplitudes, color_of, ground_of
from .orbits import box_of, count_independent, published_points
from .pixels import color_field, count_points, enlarge, paint, spread, windowed

__all__ = [
    "WHOLE",
    "Background",
    "Fractal",
    "SceneObject",
    "draw_background",
    "draw_fractal",
    "draw_object",
    "independent_counts",
    "independent_field",
    "published_counts",
    "spread_counts",
]

WHOLE = np.array([[0.0, 0.0], [1.0, 1.0]])
"""The window of a fractal's whole bounding box."""


def published_counts(
    system: Float64[np.ndarray, "n 7"],
    draws: Float64[np.ndarray, " points"],
    window: Float64[np.ndarray, "2 2"],
    size: int,
) -> Int32[np.ndarray, "bordered bordered"]:
    """Numbers of points of the published orbit, see ``pixels.count_points``."""
    x, y = (scratch(name, (1 + len(draws),), np.float64) for name in ("x", "y"))
    published_points(np.array(system), draws, x, y)
    counts, box = _no_counts(size), box_of(x[1:], y[1:])
    # Without a window the program takes the box as it is; the centre and half of the extent have other last bits.
    count_points(x[1:], y[1:], box if np.array_equal(window, WHOLE) else windowed(box, window), counts)
    return counts


def independent_counts(
    system: Float64[np.ndarray, "n 7"],
    counter: tuple[int, int, int],
    seed: int,
    points: int,
    window: Float64[np.ndarray, "2 2"],
    size: int,
) -> Int32[np.ndarray, "bordered bordered"]:
    """Numbers of points of the independent orbit."""
    counts = _no_counts(size)
    tables = lookup_tables(system[:, :6], thresholds(system))
    count_independent(*tables, counter, kernel_key(seed, b"hues"), points, window, counts)
    return counts


def _no_counts(size: int) -> Int32[np.ndarray, "bordered bordered"]:
    """Zeros for an image and a border of one pixel, in memory that the next call of this function overwrites."""
    counts = scratch("counts", (size + 2, size + 2), np.int32)
    counts[:] = 0
    return counts


def spread_counts(
    counts: Int32[np.ndarray, "bordered bordered"], pattern: UInt8[np.ndarray, "3 3"], flips: tuple[bool, bool, bool]
) -> Int32[np.ndarray, "size size"]:
    """Counts of an image's pixels: of patches, with rows and columns exchanged, rows mirrored, columns mirrored."""
    spread_out = np.empty((counts.shape[0] - 2, counts.shape[1] - 2), np.int32)
    spread(counts, pattern, spread_out)
    exchange, rows, columns = flips
    turned = spread_out.T if exchange else spread_out
    return np.ascontiguousarray(turned[:: -1 if rows else 1, :: -1 if columns else 1])


class Background(NamedTuple):
    """Random numbers of a background: of its field, uniform; of its colours, uniform [6]; and its decay."""

    field: Float[np.ndarray, " numbers"]
    colors: Float64[np.ndarray, " 6"]
    decay: float


class Fractal(NamedTuple):
    """A fractal as it is drawn: counts of its pixels, and three uniform random numbers for its colour."""

    counts: Int32[np.ndarray, "side side"]
    color: Float64[np.ndarray, " 3"]


class SceneObject(NamedTuple):
    """An object of a scene: its label, its fractal, and in pixels its side and the place of its upper left corner."""

    label: int
    fractal: Fractal
    side: int
    row: int
    column: int


def draw_background(background: Background | None, image: UInt8[np.ndarray, "size size channels"]) -> None:
    """Fill an image with a coloured field; without a background it stays as it is."""
    if background is not None:
        side = side_of_field(len(image))
        field = scratch(f"{background.field.dtype} field", (side, side), background.field.dtype)
        diamond_square(background.field, amplitudes(side, background.decay).astype(field.dtype), field)
        color_field(field, ground_of(background.colors), image)


def draw_fractal(
    fractal: Fractal,
    binary: bool,
    image: UInt8[np.ndarray, "size size channels"],
    mask: UInt8[np.ndarray, "size size"],
) -> None:
    """Draw a fractal over an image, and mark it in a mask."""
    shift, color = color_of(fractal.color)
    paint(fractal.counts, binary, color, shift, image, mask)


def draw_object(
    drawn: SceneObject,
    number: int,
    binary: bool,
    image: UInt8[np.ndarray, "size size channels"],
    object_map: UInt16[np.ndarray, "size size"],
) -> None:
    """Draw an object over a scene; a fractal of another size is resized once it has its colours.

    Args:
        drawn: the object.
        number: its value in the object map.
        binary: as ``pixels.paint`` takes it.
        image, object_map: the scene.
    """
    own = np.zeros((*drawn.fractal.counts.shape, image.shape[2]), np.uint8)
    mask = np.zeros(own.shape[:2], np.uint8)
    draw_fractal(drawn.fractal, binary, own, mask)
    if len(own) != drawn.side:
        small, own = own, np.zeros((drawn.side, drawn.side, image.shape[2]), np.uint8)
        enlarge(small, own)
        mask = np.any(own, axis=2).astype(np.uint8)
    _paste(own, mask, drawn.row, drawn.column, number, image, object_map)


def independent_field(counter: tuple[int, int, int], seed: int, size: int) -> Float32[np.ndarray, " numbers"]:
    """Uniform random numbers of a field that covers ``size`` pixels, in memory that the next call overwrites."""
    draws = scratch("draws", (side_of_field(size) ** 2,), np.float32)
    _fill(counter, kernel_key(seed, b"back"), draws)
    return draws


@kernel
def _fill(counter: tuple[int, int, int], key: tuple[int, int], draws: Float32[np.ndarray, " numbers"]) -> None:
    """Number 512 c + 128 w + b is word w of block 128 c + b of Philox4x32-10: an order that vector registers fill."""
    words = np.empty((4, 128), np.uint32)
    flat = words.reshape(-1)
    unit = np.float32(2.0**-24)
    for start in range(0, len(draws), 512):
        philox_blocks(
            start // 4,
            np.uint32(counter[0]),
            np.uint32(counter[1]),
            np.uint32(counter[2]),
            np.uint32(key[0]),
            np.uint32(key[1]),
            words,
        )
        target = draws[start : start + 512]
        for i in range(len(target)):
            target[i] = np.float32(np.int32(flat[i] >> np.uint32(8))) * unit


@kernel
def _paste(
    drawn: UInt8[np.ndarray, "side side channels"],
    mask: UInt8[np.ndarray, "side side"],
    row: int,
    column: int,
    number: int,
    image: UInt8[np.ndarray, "size size channels"],
    object_map: UInt16[np.ndarray, "size size"],
) -> None:
    """Draw an object over a scene where its mask is not 0; what is outside of the scene is cut off.

    Args:
        drawn, mask: the object.
        row, column: of its upper left corner.
        number: of the object.
        image, object_map: the scene.
    """
    size = image.shape[0]
    for i in range(max(0, -row), min(len(drawn), size - row)):
        for k in range(max(0, -column), min(len(drawn), size - column)):
            if mask[i, k]:
                image[row + i, column + k] = drawn[i, k]
                object_map[row + i, column + k] = number
