"""Perlin noise on a GPU: the twin of ``grid_coordinates``, ``perlin_field`` and ``to_gray`` of ``noise_fields``."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Float64, UInt8

from formulavision.rendering.noise_fields import lattice_tables
from formulavision.rendering.triton_support import EXACT, keep

__all__ = ["draw_perlin"]

_ROWS, _COLUMNS = 8, 128


@triton.jit
def _fade(t):
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)


@triton.jit
def _lerp(t, a, b):
    return a + t * (b - a)


@triton.jit
def _cell(coordinate):
    """As ``noise_fields._cell``, without a repeat."""
    floor = tl.floor(coordinate)
    inside = tl.abs(floor) < 2147483648.0
    near = tl.where(inside, floor, 0.0).to(tl.int64)
    far = tl.where(inside, (near + 1).to(tl.float32).to(tl.int64), 0)
    return (near & 255).to(tl.int32), (far & 255).to(tl.int32), coordinate - floor


@triton.jit
def _coordinates(offset, step, pixels):
    return (offset + (pixels.to(tl.float64) + 0.5) * step).to(tl.float32)


@triton.jit
def _edge(table, left, right, j, u, fade_u):
    """As ``noise_fields._lattice_row``, for one column."""
    h0, h1 = (left + j) & 255, (right + j) & 255
    x0, x1 = tl.load(table + 256 + h0), tl.load(table + 256 + h1)
    y0, y1 = tl.load(table + 512 + h0), tl.load(table + 512 + h1)
    return _lerp(fade_u, u * x0, (u - 1.0) * x1), _lerp(fade_u, y0, y1)


@triton.jit(do_not_specialize=["size", "persistence", "lacunarity"], do_not_specialize_on_alignment=["out"])
def _draw_perlin(
    offsets,
    steps,
    table,
    out,
    size,
    persistence,
    lacunarity,
    OCTAVES: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    plane = tl.program_id(0).to(tl.int64)
    image, channel = plane // CHANNELS, plane % CHANNELS
    tiles = tl.cdiv(size, COLUMNS)
    row = tl.program_id(1) // tiles * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    x = _coordinates(tl.load(offsets + 2 * plane), tl.load(steps + 2 * image), column)
    y = _coordinates(tl.load(offsets + 2 * plane + 1), tl.load(steps + 2 * image + 1), row)
    frequency, amplitude, reach = 1.0, 1.0, 0.0
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for _ in tl.static_range(OCTAVES):
        i0, i1, u = _cell(x * frequency)
        j0, j1, v = _cell(y * frequency)
        left = tl.load(table + i0).to(tl.int32)[None, :]
        right = tl.load(table + i1).to(tl.int32)[None, :]
        u, fade_u, v, fade_v = u[None, :], _fade(u)[None, :], v[:, None], _fade(v)[:, None]
        along0, across0 = _edge(table, left, right, j0[:, None], u, fade_u)
        along1, across1 = _edge(table, left, right, j1[:, None], u, fade_u)
        near = along0 + v * across0
        far = along1 + (v - 1.0) * across1
        total += amplitude * (near + fade_v * (far - near))
        reach += amplitude
        frequency *= lacunarity
        amplitude *= persistence
    if OCTAVES > 1:
        total = tl.div_rn(total, tl.zeros([ROWS, COLUMNS], tl.float32) + reach)
    level = tl.minimum(tl.maximum(127.5 * total + 128.0, 0.0), 255.0).to(tl.uint8)
    target = out + image * size * size * CHANNELS + (row[:, None] * size + column[None, :]) * CHANNELS + channel
    tl.store(target, level, mask=(row[:, None] < size) & (column[None, :] < size))


@lru_cache
def _table(device: torch.device) -> Float32[torch.Tensor, "3 256"]:
    return keep(lattice_tables(), device)


def draw_perlin(
    offsets: Float64[torch.Tensor, "n channels 2"],
    steps: Float64[torch.Tensor, "n 2"],
    out: UInt8[torch.Tensor, "n size size channels"],
    *,
    octaves: int,
    persistence: float,
    lacunarity: float,
) -> None:
    """Draw images of Perlin noise, each channel a field of its own, with levels floor(127.5 n + 128).

    Args:
        offsets: coordinates x and y of the images' corners, in lattice cells. All coordinates of an image must be from
            0 to below 1024, where the noise would repeat.
        steps: lattice cells per pixel along x and y.
        out: is filled.
        octaves, persistence, lacunarity: as in ``rendering.noise_fields.perlin2``.
    """
    n, size, _, channels = out.shape
    _draw_perlin[(n * channels, triton.cdiv(size, _ROWS) * triton.cdiv(size, _COLUMNS))](
        offsets,
        steps,
        _table(out.device),
        out,
        size,
        float(persistence),
        float(lacunarity),
        OCTAVES=octaves,
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        num_warps=4,
        **EXACT,
    )
