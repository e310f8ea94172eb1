"""Sums of sine gratings: rings around a centre, or parallel lines."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8
from numba import uint64

from formulavision.rendering import kernel

__all__ = ["add_grating", "shade", "to_levels"]

F32 = np.float32
_C1, _C3, _C5, _C7, _C9 = (
    F32((2 * np.pi) ** n / factor) for n, factor in ((1, 1), (3, -6), (5, 120), (7, -5040), (9, 362880))
)
"""Taylor's coefficients of sin(2 pi t): up to t = 1/4 the error is below 4e-6."""


@kernel(inline="always")
def _sine_of_turns(t: F32) -> F32:
    """sin(2 pi t), from sums and products alone, which vector registers compute."""
    t -= np.floor(t + F32(0.5))
    near = min(abs(t), F32(0.5) - abs(t))
    u = near * near
    sine = near * (_C1 + u * (_C3 + u * (_C5 + u * (_C7 + u * _C9))))
    return sine if t >= 0 else -sine


@kernel
def add_grating(
    field: Float32[np.ndarray, "size size"], frequency: F32, across: F32, down: F32, x: F32, y: F32, rings: bool
) -> None:
    """Add a grating of sines to a field.

    Args:
        field: is added to.
        frequency: cycles a pixel.
        across, down: direction across the lines, of length 1; rings have none.
        x, y: column and row of the centre, from which distances are measured.
        rings: rings around the centre; else parallel lines through it.
    """
    for row in range(uint64(len(field))):
        dy = F32(row) - y
        if rings:
            for column in range(uint64(len(field))):
                dx = F32(column) - x
                field[row, column] += _sine_of_turns(np.sqrt(dx * dx + dy * dy) * frequency)
        else:
            for column in range(uint64(len(field))):
                field[row, column] += _sine_of_turns(((F32(column) - x) * across + dy * down) * frequency)


@kernel
def to_levels(field: Float32[np.ndarray, "size size"], levels: UInt8[np.ndarray, "size size"]) -> None:
    """Turn a field into levels: 0 where it is lowest, 255 where it is highest; 0 everywhere where it is constant."""
    lows, highs = field[0].copy(), field[0].copy()
    for row in range(uint64(len(field))):
        for column in range(uint64(len(field))):
            lows[column] = min(lows[column], field[row, column])
            highs[column] = max(highs[column], field[row, column])
    low, high = lows.min(), highs.max()
    scale = F32(255) / (high - low) if high > low else F32(0)
    for row in range(uint64(len(field))):
        for column in range(uint64(len(field))):
            levels[row, column] = np.int32((field[row, column] - low) * scale + F32(0.5))


@kernel
def shade(
    levels: UInt8[np.ndarray, "size size"],
    colors: UInt8[np.ndarray, "256 channels"],
    image: UInt8[np.ndarray, "size size channels"],
) -> None:
    """Fill an image with the colours of levels."""
    sources, targets = levels.reshape(-1), image.reshape(-1, image.shape[2])
    for pixel in range(uint64(sources.size)):
        level = uint64(sources[pixel])
        for channel in range(uint64(targets.shape[1])):
            targets[pixel, channel] = colors[level, channel]
