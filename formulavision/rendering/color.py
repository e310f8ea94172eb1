"""Colours: evenly spaced hues, for generators that draw in colour."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import UInt8

__all__ = ["hue_circle"]


def hue_circle(count: int, saturation: float = 0.75, value: float = 0.75) -> UInt8[np.ndarray, "count 3"]:
    """RGB colours evenly spaced on the hue circle of the HSV model, red first.

    Args:
        count: number of colours.
        saturation, value: of the HSV model, from 0 to 1.

    Returns:
        The colours' levels, 255 times those of ``colorsys.hsv_to_rgb``, rounded down.
    """
    colors = [colorsys.hsv_to_rgb(i / count, saturation, value) for i in range(count)]
    return (np.array(colors) * 255).astype(np.uint8)
