"""Random choices of images and scenes, in the order of the published program; any numpy generator is their source."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from .parameters import ColoredIfsParams
from .systems import jittered

__all__ = [
    "COLOR_NUMBERS",
    "GROUND_NUMBERS",
    "InstanceChoices",
    "ObjectChoices",
    "SceneChoices",
    "amplitudes",
    "choose_instance",
    "choose_scene",
    "color_of",
    "decay_of",
    "ground_of",
]

COLOR_NUMBERS, GROUND_NUMBERS = 3, 6
"""Uniform random numbers of a fractal's colour, and of a background's colours."""
_GROUND_RANGES = np.array([[[0.25, 1], [0, 1]], [[0.1, 0.3], [0.4, 0.6]], [[0.3, 0.6], [0.4, 0.6]]])
"""Ranges of scale and shift of a background's hue, saturation and value."""


class InstanceChoices(NamedTuple):
    """What varies among the instances of a category, apart from points and colours.

    Attributes:
        system: the jittered system.
        window: as ``pixels.windowed`` takes it.
        flips: whether rows and columns are exchanged, rows mirrored, columns mirrored.
        sigma: of the blur in pixels; 0: none.
    """

    system: Float64[np.ndarray, "n 7"]
    window: Float64[np.ndarray, "2 2"]
    flips: tuple[bool, bool, bool]
    sigma: float


class ObjectChoices(NamedTuple):
    """An object of a scene: the number of its fractal, flips, its side, and its upper left corner, in pixels."""

    fractal: int
    flips: tuple[bool, bool, bool]
    side: int
    row: int
    column: int


class SceneChoices(NamedTuple):
    """A scene: the number of its background, its objects from the lowest to the highest, and sigma of the blur."""

    background: int
    objects: list[ObjectChoices]
    sigma: float


def choose_instance(
    random: np.random.Generator, params: ColoredIfsParams, system: Float64[np.ndarray, "n 7"]
) -> InstanceChoices:
    """The choices of the next instance of a system."""
    system = jittered(random, system, params.jitter)
    window = np.array([[0.0, 0.0], [1.0, 1.0]])
    if params.window:
        window = np.array([random.uniform(-0.2, 0.2, 2), random.uniform(0.5, 2, 2)])
    return InstanceChoices(system, window, _choose_flips(random, params), _choose_blur(random, params))


def choose_scene(
    random: np.random.Generator, params: ColoredIfsParams, size: int, fractals: int, most: int
) -> SceneChoices:
    """The choices of the next scene.

    Args:
        random: the source of all numbers.
        params: the generator's.
        size: of the canvas.
        fractals: number of fractals, and of backgrounds, to choose from.
        most: largest number of objects, beside ``objects_max``.
    """
    background = int(random.integers(0, fractals))
    counts = np.arange(params.objects_min, params.objects_max + 1)
    count = int(random.choice(counts, p=np.full(len(counts), 1 / len(counts))))
    objects = []
    for _ in range(min(count, most)):
        fractal, flips = int(random.integers(0, fractals)), _choose_flips(random, params)
        side = max(1, int(random.uniform(params.size_min, params.size_max) * size))
        column, row = random.integers(-(side // 2), size - side // 2, 2).tolist()
        objects.append(ObjectChoices(fractal, flips, side, row, column))
    return SceneChoices(background, objects, _choose_blur(random, params))


def _choose_flips(random: np.random.Generator, params: ColoredIfsParams) -> tuple[bool, bool, bool]:
    if not params.flips:
        return False, False, False
    return random.random() > 0.5, random.random() > 0.5, random.random() > 0.5


def _choose_blur(random: np.random.Generator, params: ColoredIfsParams) -> float:
    blurred = random.random() > 1 - params.blur
    return random.uniform(params.blur_sigma_min, params.blur_sigma_max) if blurred else 0.0


def color_of(draws: Float64[np.ndarray, " 3"]) -> tuple[float, UInt8[np.ndarray, " 2"]]:
    """A fractal's colour from uniform random numbers: shift of the hue, and saturation and value."""
    shift, saturation, value = draws
    return shift * 255, np.array([(0.3 + (1 - 0.3) * saturation) * 255, (0.5 + (1 - 0.5) * value) * 255]).astype(
        np.uint8
    )


def ground_of(draws: Float64[np.ndarray, " 6"]) -> Float64[np.ndarray, "3 2"]:
    """A background's colours from uniform random numbers, as ``pixels.color_field`` takes them."""
    low, high = _GROUND_RANGES[:, :, 0], _GROUND_RANGES[:, :, 1]
    return (low + (high - low) * draws.reshape(3, 2)) * 255


def decay_of(random: np.random.Generator) -> float:
    """The decay of a background's amplitudes."""
    return random.uniform(0.4, 0.8)


def amplitudes(side: int, decay: float) -> Float64[np.ndarray, " steps"]:
    """Amplitudes of the steps of a field of ``side`` points along each axis."""
    return np.array([0.5 * math.exp(decay * (1 - step)) for step in range(1, side.bit_length())])
