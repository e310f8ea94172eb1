"""Colours: evenly spaced hues, and hue, saturation and value to RGB, for generators that draw in colour."""

from __future__ import annotations

import colorsys

import numpy as np
from jaxtyping import UInt8

from formulavision.rendering.kernels import kernel

__all__ = ["hsv_to_rgb", "hue_circle"]

_SECTORS, _UNIT, _ONE, _255 = np.float32(6 / 180), np.float32(1 / 255), np.float32(1), np.float32(255)


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


@kernel
def hsv_to_rgb(
    hues: UInt8[np.ndarray, " pixels"],
    saturations: UInt8[np.ndarray, " pixels"],
    values: UInt8[np.ndarray, " pixels"],
    cut: int,
    colors: UInt8[np.ndarray, "pixels 3"],
) -> None:
    """Colours of the HSV model as RGB, with the levels of OpenCV 5.0.0 (``COLOR_HSV2RGB`` of bytes).

    Args:
        hues: in units of 2 degrees; 180 to 255 are 0 to 75 again.
        saturations, values: from 0 to 255.
        cut: number of the first pixels whose levels are rounded down; those of the others are rounded to the nearest.
            In a row of w pixels, OpenCV rounds the last w mod 32 so, on a processor with registers of 256 bits.
        colors: are filled.
    """
    # Levels first, and then bytes: so the compiler turns the first loop into vector instructions.
    levels = np.empty((3, len(hues)), np.float32)
    reds, greens, blues = levels[0], levels[1], levels[2]
    for i in range(len(hues)):
        reds[i], greens[i], blues[i] = _levels(hues[i], saturations[i], values[i])
    for channel in range(3):
        line = levels[channel]
        for i in range(cut):
            colors[i, channel] = np.uint8(line[i])
        for i in range(cut, len(line)):
            colors[i, channel] = np.uint8(np.rint(line[i]))


@kernel(inline="always")
def _levels(hue: np.uint8, saturation: np.uint8, value: np.uint8) -> tuple[np.float32, np.float32, np.float32]:
    """Red, green and blue, from 0 to 255."""
    turned = hue * _SECTORS
    sector = np.int32(turned)  # of 32 bits, which vector registers of every processor convert to
    rest = turned - np.float32(sector)
    sector = np.int32(sector - 6) if sector >= 6 else sector
    s, v = saturation * _UNIT, value * _UNIT
    # 1 - s f rounded once, as by a fused multiply-add: float64 holds the product exactly.
    part = rest if sector & 1 else _ONE - rest
    whole, low = v * _255, v * (_ONE - s) * _255
    between = v * np.float32(1.0 - np.float64(s) * np.float64(part)) * _255
    red = whole if sector == 0 or sector == 5 else (between if sector == 1 or sector == 4 else low)
    green = whole if sector == 1 or sector == 2 else (between if sector == 0 or sector == 3 else low)
    blue = whole if sector == 3 or sector == 4 else (between if sector == 2 or sector == 5 else low)
    return red, green, blue
