"""Colours."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

__all__ = ["hue_circle"]


def hue_circle(count: int, saturation: float = 0.75, value: float = 0.75) -> NDArray[np.uint8]:
    """Colours evenly spaced on the hue circle of the HSV model, uint8 [count, 3], red first; cut to whole numbers."""
    colors = [colorsys.hsv_to_rgb(i / count, saturation, value) for i in range(count)]
    return (np.array(colors) * 255).astype(np.uint8)
