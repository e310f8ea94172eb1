"""The generator ``moire``: interference patterns of sine gratings.

Sources: Matsuo et al., "MoireDB: Formula-generated Interference-fringe Image Dataset", arXiv 2502.01490, 2025, and
"MoireMix: A Formula-Based Data Augmentation for Improving Image Classification Robustness", arXiv 2603.25109, 2026. The
program of MoireMix draws rings of random frequencies around random centres. Categories are our interpretation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8
from pydantic import Field, model_validator

from formulavision import Category, ConfigError, Generator, Params, hookimpl, rendering

__all__ = ["Moire", "MoireParams"]

_MOST_GRATINGS, _MOST_CYCLES = 16, 4096
_HUES = 256


class MoireParams(Params):
    grating: Literal["rings", "lines", "mixed"] = Field(
        "mixed",
        description="kind of gratings. rings: around a centre, as in MoireMix; lines: parallel lines; mixed: each "
        "grating of a category is one of both at random",
    )
    gratings_min: int = Field(
        2,
        ge=1,
        le=_MOST_GRATINGS,
        description="smallest number of gratings; 1 in MoireMix",
        json_schema_extra={"unit": "gratings"},
    )
    gratings_max: int = Field(
        3, ge=1, le=_MOST_GRATINGS, description="largest number of gratings", json_schema_extra={"unit": "gratings"}
    )
    frequency_min: int = Field(
        1, ge=1, le=_MOST_CYCLES, description="lowest frequency", json_schema_extra={"unit": "cycles a canvas"}
    )
    frequency_max: int = Field(
        100, ge=1, le=_MOST_CYCLES, description="highest frequency", json_schema_extra={"unit": "cycles a canvas"}
    )
    margin: float = Field(
        0.08,
        ge=0,
        le=0.45,
        description="least distance of centres from the border",
        json_schema_extra={"unit": "canvas sizes"},
    )
    turn: float = Field(
        5.0,
        ge=0,
        le=90,
        description="largest angle by which an instance turns each grating of lines",
        json_schema_extra={"unit": "degrees"},
    )

    @model_validator(mode="after")
    def _settings_go_together(self) -> MoireParams:
        for name in ("gratings", "frequency"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise ConfigError(f"{name}_min: {low} is not allowed: must not be above {name}_max {high}")
        frequencies = self.frequency_max - self.frequency_min + 1
        if frequencies < self.gratings_max:
            raise ConfigError(
                f"gratings_max: {self.gratings_max} is not allowed: gratings of a category differ in frequency, and "
                f"from frequency_min to frequency_max there are {frequencies}"
            )
        return self


class Moire(Generator):
    """Moire patterns (MoireMix: Matsuo et al. 2026): sums of sine gratings, from the lowest value to the highest.

    A category has a number of gratings, all of other frequencies, each of rings or of parallel lines at an angle. An
    instance has its own centres, and turns lines by a small angle. A gray image goes from black to white, one in colour
    between two colours of its own. The whole canvas is drawn on; its padding is ignored.
    """

    name = "moire"
    version = 1
    Params = MoireParams
    fills_canvas = True
    columns = ("frequency", "lines", "angle")
    category_params = frozenset({"grating", "gratings_min", "gratings_max", "frequency_min", "frequency_max"})
    default_instances = 1000

    params: MoireParams

    def default_categories(self) -> int:
        return 1000

    def category(self, index: int) -> Float64[np.ndarray, "gratings 3"]:
        params, random = self.params, self.stream(index)
        count = random.integers(params.gratings_min, params.gratings_max, endpoint=True)
        order = random.random(params.frequency_max - params.frequency_min + 1).argsort()
        frequencies = params.frequency_min + order[:count]
        lines = random.random(count) < {"rings": 0.0, "lines": 1.0, "mixed": 0.5}[params.grating]
        angles = np.where(lines, random.uniform(0, 180, count), 0)
        return np.column_stack([frequencies, lines, angles])

    def check_category(self, parameters: Float64[np.ndarray, "gratings 3"]) -> None:
        frequencies, lines, _ = parameters.T
        if len(parameters) > _MOST_GRATINGS or frequencies.min() <= 0 or frequencies.max() > _MOST_CYCLES:
            raise ValueError(f"must be {_MOST_GRATINGS} gratings at most, of frequencies above 0 to {_MOST_CYCLES:,}")
        if not np.isin(lines, (0, 1)).all():
            raise ValueError("lines must be 1 for lines or 0 for rings")

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        from .gratings import add_grating, shade, to_levels

        size, random = self.canvas.size, self.random(category, instance)
        field, levels = np.zeros((size, size), np.float32), np.empty((size, size), np.uint8)
        margin, turn = self.params.margin, self.params.turn
        for frequency, lines, angle in category.parameters.tolist():
            x, y, turned = random.random(3).tolist()
            radians = math.radians(angle + turn * (2 * turned - 1))
            numbers = (frequency / size, math.cos(radians), math.sin(radians),
                       size * (margin + x * (1 - 2 * margin)), size * (margin + y * (1 - 2 * margin)))  # fmt: skip
            add_grating(field, *map(np.float32, numbers), lines == 0)
        to_levels(field, levels)
        if self.canvas.channels == 1:
            return levels[:, :, None]
        image = np.empty(self.canvas.shape, np.uint8)
        shade(levels, _colors(*random.random(2).tolist()), image)
        return image


@lru_cache
def _hues() -> UInt8[np.ndarray, "hues 3"]:
    return rendering.color.hue_circle(_HUES, 1.0, 1.0)


def _colors(first: float, distance: float) -> UInt8[np.ndarray, "256 3"]:
    """Colours from one hue to another, a third of the hue circle away at least.

    Args:
        first, distance: from 0 to below 1: the hue of level 0, and how far away the other hue is.
    """
    hues = _hues().astype(np.int64)
    start = int(_HUES * first)
    end = start + int(_HUES / 3 * (1 + distance))
    share = np.arange(256)[:, None]
    return ((hues[start % _HUES] * (255 - share) + hues[end % _HUES] * share) // 255).astype(np.uint8)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Moire)
