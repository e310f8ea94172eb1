"""Perlin noise (Perlin 2002, "Improving Noise"): in two dimensions at points and on pixel grids, in one at points.

It is the noise of ``pnoise2`` and ``pnoise1`` in the ``noise`` package. All arithmetic is float32: additions,
multiplications and divisions without fused multiply-add, so every machine gives the same bits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import ArrayLike

from formulavision.rendering.kernels import kernel

__all__ = [
    "GRADIENTS_1D",
    "REACH_1D",
    "blend_1d",
    "grid_coordinates",
    "lattice_tables",
    "perlin1",
    "perlin2",
    "perlin_field",
    "to_gray",
]

# Perlin's permutation of 0..255.
_PERMUTATION = np.frombuffer(
    bytes.fromhex(
        "97a0895b5a0f830dc95f6035c2e907e18c24671e458e086325f0150a17be0694f778ea4b001ac53e5efcdbcb75230b20"
        "39b12158ed953857ae147d88aba844af4aa547868b301ba64d929ee7536fe57a3cd385e6dc695c29372ef528f4668f36"
        "41193fa101d85049d14c84bbd05912a9c8c4878274bc9f56a4646dc6adba034034d9e2fa7c7b05ca2693767eff5255d4"
        "cfce3be32f103a11b6bd1c2adfb7aad577f898022c9aa346dd99659ba72bac09811627fd13626c6e4f71e0e8b2b97068"
        "daf661e4fb22f2c1eed2900cbfb3a2f1513391ebf90eef6b31c0d61fb5c76a9db854ccb07379322d7f0496fe8aeccd5d"
        "de72431d1848f38d80c34e42d73d9cb4"
    ),
    dtype=np.uint8,
)

# The sixteen gradients of improved noise, cut down to two dimensions: the directions to the edges of a cube without z.
_GRADIENTS = np.array(
    [
        *[(1, 1), (-1, 1), (1, -1), (-1, -1)],
        *[(1, 0), (-1, 0), (1, 0), (-1, 0)],
        *[(0, 1), (0, -1), (0, 1), (0, -1)],
        *[(1, 0), (-1, 0), (0, -1), (0, 1)],
    ],
    dtype=np.float32,
)
# The gradient that the last of the three table lookups of a lattice point leads to.
_GRADIENT_X = np.ascontiguousarray(_GRADIENTS[_PERMUTATION & 15, 0])
_GRADIENT_Y = np.ascontiguousarray(_GRADIENTS[_PERMUTATION & 15, 1])

GRADIENTS_1D = np.where(_PERMUTATION & 8, -1, (_PERMUTATION & 7) + 1.0).astype(np.float32)
"""Gradients of ``perlin1`` at the 256 lattice points. Negative ones are all -1, as in ``pnoise1`` of the package."""
REACH_1D = np.float32(0.4)
"""The factor by which ``perlin1`` multiplies interpolated gradients."""

_ONE = np.float32(1)
_SIX = np.float32(6)
_TEN = np.float32(10)
_FIFTEEN = np.float32(15)
_HALF_RANGE = np.float32(127.5)
_MIDDLE = np.float32(128)
_WHITE = np.float32(255)
# From here on, float32 holds only multiples of 256, and so only the first cell of the lattice.
_CELL_LIMIT = np.float32(2**31)


@kernel
def _fade(t: np.float32) -> np.float32:
    """Weight of the cell's far side: 6 t^5 - 15 t^4 + 10 t^3 (Perlin 2002, section 2)."""
    return t * t * t * (t * (t * _SIX - _FIFTEEN) + _TEN)


@kernel
def _lerp(t: np.float32, a: np.float32, b: np.float32) -> np.float32:
    return a + t * (b - a)


@kernel
def _wrap(value: np.float32, repeat: np.float32) -> np.float32:
    # fmod is slow, and most values need none.
    return value if abs(value) < repeat else np.fmod(value, repeat)


@kernel
def _cell(coordinate: np.float32, repeat: np.float32, base: np.int64) -> tuple[np.int64, np.int64, np.float32]:
    """Lattice numbers of both sides of the cell that a coordinate lies in, and the position in the cell, 0 to 1.

    The position is NaN where the coordinate is not finite.
    """
    wrapped = np.floor(_wrap(coordinate, repeat))
    if not abs(wrapped) < _CELL_LIMIT:
        return base, base, coordinate - np.floor(coordinate)
    near = np.int64(wrapped)
    # The next side wraps separately. Its number passes through float32 and is cut towards zero: `noise` does so too.
    far = np.int64(_wrap(np.float32(near + 1), repeat))
    return (near & 255) + base, (far & 255) + base, coordinate - np.floor(coordinate)


@kernel
def _perlin2_one_octave(
    x: np.float32, y: np.float32, repeat_x: np.float32, repeat_y: np.float32, base: np.int64
) -> np.float32:
    i0, i1, u = _cell(x, repeat_x, base)
    j0, j1, v = _cell(y, repeat_y, base)
    left = np.int64(_PERMUTATION[i0 & 255])
    right = np.int64(_PERMUTATION[i1 & 255])
    h00 = _PERMUTATION[(left + j0) & 255]
    h10 = _PERMUTATION[(right + j0) & 255]
    h01 = _PERMUTATION[(left + j1) & 255]
    h11 = _PERMUTATION[(right + j1) & 255]
    fade_u = _fade(u)
    u1 = u - _ONE
    v1 = v - _ONE
    near = _lerp(fade_u, u * _GRADIENT_X[h00] + v * _GRADIENT_Y[h00], u1 * _GRADIENT_X[h10] + v * _GRADIENT_Y[h10])
    far = _lerp(fade_u, u * _GRADIENT_X[h01] + v1 * _GRADIENT_Y[h01], u1 * _GRADIENT_X[h11] + v1 * _GRADIENT_Y[h11])
    return _lerp(_fade(v), near, far)


@kernel
def blend_1d(near: np.float32, far: np.float32, t: np.float32) -> np.float32:
    """Noise in one dimension before the factor ``REACH_1D``, from -2.5 to 2.5.

    Args:
        near, far: gradients at both ends of the lattice cell.
        t: position in the cell, from 0 to 1.
    """
    return _lerp(_fade(t), t * near, (t - _ONE) * far)


@kernel
def perlin1(x: float) -> float:
    """Perlin noise in one dimension, ``noise.pnoise1(x)``, bit for bit; it repeats after 1024 cells.

    Args:
        x: coordinate in lattice cells, of a magnitude below 2^24; rounded to float32.
    """
    coordinate = np.float32(x)
    floor = np.floor(coordinate)
    cell = np.int64(floor)
    value = blend_1d(GRADIENTS_1D[cell & 255], GRADIENTS_1D[(cell + 1) & 255], coordinate - floor)
    return float(value * REACH_1D)


@kernel(error_model="numpy")
def _perlin2(
    x: Float32[np.ndarray, " points"],
    y: Float32[np.ndarray, " points"],
    octaves: int,
    persistence: np.float32,
    lacunarity: np.float32,
    repeat_x: np.float32,
    repeat_y: np.float32,
    base: np.int64,
    out: Float32[np.ndarray, " points"],
) -> None:
    for n in range(out.size):
        frequency = _ONE
        amplitude = _ONE
        reach = np.float32(0)
        total = np.float32(0)
        for _ in range(octaves):
            total += amplitude * _perlin2_one_octave(
                x[n] * frequency, y[n] * frequency, repeat_x * frequency, repeat_y * frequency, base
            )
            reach += amplitude
            frequency *= lacunarity
            amplitude *= persistence
        out[n] = total / reach


def perlin2(
    x: ArrayLike,
    y: ArrayLike,
    octaves: int = 1,
    persistence: float = 0.5,
    lacunarity: float = 2.0,
    repeat_x: float = 1024,
    repeat_y: float = 1024,
    base: int = 0,
) -> Float32[np.ndarray, " ..."]:
    """Perlin noise at points: equal to ``noise.pnoise2`` to 1e-6 wherever that is defined.

    ``pnoise2`` is undefined in two cases. Where ``base`` is above 1 or below 0, it reads outside its table at some
    lattice points: here the table continues periodically. Where the coordinate of an octave, wrapped by its repeat, is
    2^31 or more, it overflows an integer: here that is the first cell, since every float32 of that size is a multiple
    of 256.

    Args:
        x, y: coordinates in lattice cells; they broadcast against each other and are rounded to float32.
        octaves: number of noises that are summed.
        persistence: amplitude of an octave divided by that of the octave before it.
        lacunarity: frequency of an octave divided by that of the octave before it.
        repeat_x, repeat_y: number of lattice cells after which the noise of the first octave repeats. The lattice has
            256 cells: the repeat is without seams where it divides 256 or is a multiple of it, and coordinates are
            positive.
        base: shift of the lattice along x and y, the same in every octave.

    Returns:
        Noise of the broadcast shape, from -1 to 1; NaN where a coordinate of an octave is not finite.

    Raises:
        ValueError: ``octaves`` is below 1.
    """
    if octaves < 1:
        raise ValueError(f"octaves is {octaves}: must be 1 or more")
    xs, ys = np.broadcast_arrays(_float32(x), _float32(y))
    out = np.empty(xs.shape, dtype=np.float32)
    _perlin2(
        xs.ravel(),
        ys.ravel(),
        octaves,
        np.float32(persistence),
        np.float32(lacunarity),
        np.float32(repeat_x),
        np.float32(repeat_y),
        np.int64(base),
        out.reshape(-1),
    )
    return out


def grid_coordinates(size: int, cells: float, offset: float) -> Float32[np.ndarray, " {size}"]:
    """Coordinates of pixel centres along one side of an image that ``cells`` lattice cells span.

    Args:
        size: number of pixels.
        cells: number of lattice cells across the side: the frequency.
        offset: coordinate of the image's border, in lattice cells.

    Returns:
        offset + (n + 1/2) cells / size for pixel n, in lattice cells, computed in float64 and rounded once.
    """
    return (offset + (np.arange(size) + 0.5) * (cells / size)).astype(np.float32)


@kernel
def _cells(
    coordinates: Float32[np.ndarray, " pixels"],
    frequency: np.float32,
    repeat: np.float32,
    base: np.int64,
    near: Int64[np.ndarray, " pixels"],
    far: Int64[np.ndarray, " pixels"],
    position: Float32[np.ndarray, " pixels"],
    fade: Float32[np.ndarray, " pixels"],
) -> None:
    for n in range(coordinates.size):
        near[n], far[n], position[n] = _cell(coordinates[n] * frequency, repeat * frequency, base)
        fade[n] = _fade(position[n])


@kernel
def _lattice_row(
    j: np.int64,
    left: Int64[np.ndarray, " width"],
    right: Int64[np.ndarray, " width"],
    u: Float32[np.ndarray, " width"],
    fade_u: Float32[np.ndarray, " width"],
    along: Float32[np.ndarray, " width"],
    across: Float32[np.ndarray, " width"],
) -> None:
    """For each column, the noise on lattice row j, and its slope across the row."""
    for column in range(u.size):
        h0 = _PERMUTATION[(left[column] + j) & 255]
        h1 = _PERMUTATION[(right[column] + j) & 255]
        along[column] = _lerp(fade_u[column], u[column] * _GRADIENT_X[h0], (u[column] - _ONE) * _GRADIENT_X[h1])
        across[column] = _lerp(fade_u[column], _GRADIENT_Y[h0], _GRADIENT_Y[h1])


@kernel
def _add_row(
    row: Float32[np.ndarray, " width"],
    amplitude: np.float32,
    v: np.float32,
    fade_v: np.float32,
    along0: Float32[np.ndarray, " width"],
    across0: Float32[np.ndarray, " width"],
    along1: Float32[np.ndarray, " width"],
    across1: Float32[np.ndarray, " width"],
) -> None:
    v1 = v - _ONE
    for column in range(row.size):
        near = along0[column] + v * across0[column]
        far = along1[column] + v1 * across1[column]
        row[column] += amplitude * (near + fade_v * (far - near))


@kernel(error_model="numpy")
def _perlin_field(
    x: Float32[np.ndarray, " width"],
    y: Float32[np.ndarray, " height"],
    octaves: int,
    persistence: np.float32,
    lacunarity: np.float32,
    repeat_x: np.float32,
    repeat_y: np.float32,
    base: np.int64,
    out: Float32[np.ndarray, "height width"],
) -> None:
    # Interpolation along x does not depend on the pixel row: each of the two lattice rows around a row of cells gives
    # each column two numbers, and a pixel then takes a few multiplications and no look-up in a table.
    width, height = x.size, y.size
    i0, i1 = np.empty(width, np.int64), np.empty(width, np.int64)
    j0, j1 = np.empty(height, np.int64), np.empty(height, np.int64)
    u, fade_u = np.empty(width, np.float32), np.empty(width, np.float32)
    v, fade_v = np.empty(height, np.float32), np.empty(height, np.float32)
    along0, across0 = np.empty(width, np.float32), np.empty(width, np.float32)
    along1, across1 = np.empty(width, np.float32), np.empty(width, np.float32)
    frequency = _ONE
    amplitude = _ONE
    reach = np.float32(0)
    out[:] = np.float32(0)
    for _ in range(octaves):
        _cells(x, frequency, repeat_x, base, i0, i1, u, fade_u)
        _cells(y, frequency, repeat_y, base, j0, j1, v, fade_v)
        for column in range(width):
            i0[column] = _PERMUTATION[i0[column] & 255]
            i1[column] = _PERMUTATION[i1[column] & 255]
        for row in range(height):
            if row == 0 or j0[row] != j0[row - 1] or j1[row] != j1[row - 1]:
                if row > 0 and j0[row] == j1[row - 1]:
                    along0, along1 = along1, along0
                    across0, across1 = across1, across0
                else:
                    _lattice_row(j0[row], i0, i1, u, fade_u, along0, across0)
                _lattice_row(j1[row], i0, i1, u, fade_u, along1, across1)
            _add_row(out[row], amplitude, v[row], fade_v[row], along0, across0, along1, across1)
        reach += amplitude
        frequency *= lacunarity
        amplitude *= persistence
    if octaves > 1:
        out /= reach


def perlin_field(
    x: Float32[np.ndarray, " width"],
    y: Float32[np.ndarray, " height"],
    octaves: int = 1,
    persistence: float = 0.5,
    lacunarity: float = 2.0,
    repeat_x: float = 1024,
    repeat_y: float = 1024,
    base: int = 0,
) -> Float32[np.ndarray, "height width"]:
    """Perlin noise on a grid: ``perlin2(x[None, :], y[:, None], ...)`` to 1e-6, many times as fast.

    Args:
        x, y: coordinates of the columns and of the rows, in lattice cells.
        octaves, persistence, lacunarity, repeat_x, repeat_y, base: as in :func:`perlin2`.

    Returns:
        Noise from -1 to 1.

    Raises:
        ValueError: ``octaves`` is below 1.
    """
    if octaves < 1:
        raise ValueError(f"octaves is {octaves}: must be 1 or more")
    out = np.empty((len(y), len(x)), dtype=np.float32)
    _perlin_field(
        x,
        y,
        octaves,
        np.float32(persistence),
        np.float32(lacunarity),
        np.float32(repeat_x),
        np.float32(repeat_y),
        np.int64(base),
        out,
    )
    return out


@kernel
def to_gray(field: Float32[np.ndarray, "height width"], out: UInt8[np.ndarray, "height width"]) -> None:
    """Gray levels of a field: g = floor(127.5 n + 128) in float32, clipped to 0..255; n = -1, 0, 1 give 0, 128, 255.

    Args:
        field: noise n, without NaN.
        out: is filled.
    """
    for row in range(field.shape[0]):
        for column in range(field.shape[1]):
            level = _HALF_RANGE * field[row, column] + _MIDDLE
            out[row, column] = np.uint8(min(max(level, np.float32(0)), _WHITE))


def lattice_tables() -> Float32[np.ndarray, "3 256"]:
    """Tables for the twin on a GPU: Perlin's permutation, and the gradients along x and y after two look-ups."""
    return np.stack([_PERMUTATION.astype(np.float32), _GRADIENT_X[_PERMUTATION], _GRADIENT_Y[_PERMUTATION]])


def _float32(values: ArrayLike) -> Float32[np.ndarray, " ..."]:
    return np.asarray(values, dtype=np.float32)
