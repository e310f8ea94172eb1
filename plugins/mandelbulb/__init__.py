"""The generator ``mandelbulb``: Mandelbulb variations, seen by a camera.

Source: Chiche, Horikawa and Fujita, "Pre-training Vision Models with Mandelbulb Variations", CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from PIL import Image
from pydantic import Field, model_validator

from formulavision import Category, ConfigError, Generator, Params, hookimpl

__all__ = ["PUBLISHED_RULES", "Mandelbulb", "MandelbulbParams"]

PUBLISHED_RULES = (
    107, 106, 263, 334, 205, 271, 434, 225, 331, 413, 141, 167, 424, 196, 222, 461, 488, 109, 151, 232, 42, 188,
    507, 32, 451, 132, 190, 481, 143, 96, 180, 388, 397, 68, 135, 197, 360, 40, 465, 243, 506, 160, 327, 175, 105,
    223, 198, 332, 452, 174, 281, 395, 238, 386, 161, 168, 204, 416, 244, 418, 297,
)  # fmt: skip
"""The rules of MandelbulbVAR-1k, in its order."""
_ALL_RULES = tuple(range(512))
_SEED, _NUMBERS = 42, 11
"""Of the published program: the seed of its generator, and random numbers of an image."""
_MOST = 64


class MandelbulbParams(Params):
    random: Literal["independent", "published"] = Field(
        "independent",
        description="source of the random numbers of views and colours. independent: a counter-based stream for each "
        "category and instance, keyed by the seed; published: that of the published program",
    )
    rules: Literal["published", "all"] = Field(
        "published",
        description="rules of the variations. published: the 61 of MandelbulbVAR-1k; all: 0 to 511, of which some give "
        "simple or empty shapes",
    )
    power_min: int = Field(2, ge=1, le=_MOST, description="smallest power")
    power_max: int = Field(18, ge=1, le=_MOST, description="largest power")
    published_instances: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="number of images of each class of the published set, with random: published: its random numbers "
        "depend on it",
        json_schema_extra={"unit": "images"},
    )
    iterations: int = Field(
        100,
        ge=1,
        le=1000,
        description="largest number of iterations of the distance estimate",
        json_schema_extra={"unit": "iterations"},
    )
    antialiasing: int = Field(
        2,
        ge=1,
        le=4,
        description="number of rays of a pixel, along x and along y; images of so many rays are made smaller by "
        "Pillow's Lanczos filter",
        json_schema_extra={"unit": "rays"},
    )

    @model_validator(mode="after")
    def _settings_go_together(self) -> MandelbulbParams:
        if self.power_min > self.power_max:
            raise ConfigError(
                f"power_min: {self.power_min} is not allowed: must not be above power_max {self.power_max}"
            )
        if self.random == "independent" and self.published_instances != 1000:
            raise ConfigError(
                "published_instances: has an effect with random: published only, and random is independent"
            )
        return self


class Mandelbulb(Generator):
    """Mandelbulb variations (MandelbulbVAR: Chiche et al., CVPR 2024), coloured, on white.

    A category is a power and a rule of nine bits, power after power. An instance has its own direction of view and
    three colours. A gray image is Pillow's luma of that in colour. The canvas's padding is ignored. The mask has the
    pixels of which half the rays meet the variation.
    """

    name = "mandelbulb"
    version = 1
    Params = MandelbulbParams
    background = 255
    draws_masks = True
    default_channels = 3
    default_instances = 1000
    columns = ("power", "rule")
    category_params = frozenset({"rules", "power_min", "power_max"})

    params: MandelbulbParams

    @property
    def is_published(self) -> bool:
        return self.params.random == "published"

    @property
    def rules(self) -> tuple[int, ...]:
        return PUBLISHED_RULES if self.params.rules == "published" else _ALL_RULES

    def max_categories(self) -> int:
        return (self.params.power_max - self.params.power_min + 1) * len(self.rules)

    def max_instances(self) -> int | None:
        return self.params.published_instances if self.is_published else None

    def category(self, index: int) -> list[int]:
        power, place = divmod(index, len(self.rules))
        return [self.params.power_min + power, self.rules[place]]

    def check_category(self, parameters: Float64[np.ndarray, "rows 2"]) -> None:
        power, rule = parameters[0]
        if len(parameters) != 1 or power not in range(1, _MOST + 1) or rule not in _ALL_RULES:
            raise ValueError(f"must be one row, of a power from 1 to {_MOST} and a rule from 0 to 511")

    def check_categories(self, categories: Sequence[Category]) -> None:
        for category in categories if self.is_published else ():
            number = category.index
            if number >= self.max_categories() or category.parameters.tolist() != [self.category(number)]:
                raise ValueError(
                    f"{category.name} is not category {number} of the published set, whose images depend on "
                    "the order of its categories: use random: independent for other categories"
                )

    def render(
        self, category: Category, instance: int
    ) -> tuple[UInt8[np.ndarray, "size size channels"], Bool[np.ndarray, "size size"]]:
        from .rays import draw_rays

        params, size = self.params, self.canvas.size
        power, rule = category.parameters[0].astype(int).tolist()
        numbers = self._numbers(category, instance)
        # The program draws degrees, and takes them for radians.
        latitude, longitude = float(-90 + 180 * numbers[0]), float(360 * numbers[1])
        many = params.antialiasing
        rays, hits = np.empty((size * many, size * many, 3), np.uint8), np.empty((size * many, size * many), np.uint8)
        draw_rays(latitude, longitude, numbers[2:].reshape(3, 3), power, rule, params.iterations, rays, hits)
        image = Image.fromarray(rays).resize((size, size), Image.Resampling.LANCZOS)
        levels = np.asarray(image if self.canvas.channels == 3 else image.convert("L")).reshape(self.canvas.shape)
        return levels, 2 * hits.reshape(size, many, size, many).sum(axis=(1, 3)) >= many * many

    def _numbers(self, category: Category, instance: int) -> Float64[np.ndarray, " 11"]:
        """The random numbers of an image: of latitude and longitude, then red, green and blue of three colours."""
        if not self.is_published:
            return self.random(category, instance).random(_NUMBERS)
        image = category.index * self.params.published_instances + instance
        return np.random.Generator(np.random.PCG64(_SEED).advance(_NUMBERS * image)).random(_NUMBERS)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Mandelbulb)
