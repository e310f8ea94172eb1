"""The parameters of the generators ``colored-ifs`` and ``diamond-square``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from formulavision import ConfigError, Params

from .systems import Jitter

__all__ = ["ColoredIfsParams", "DiamondSquareParams"]

_SEED = "seed of a random generator of the published program, which does not seed it: of "


class SourceParams(Params):
    """The source of random numbers, and what it means for other parameters."""

    published_only: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that have an effect with ``random: published`` alone."""

    random: Literal["independent", "published"] = Field(
        "independent",
        description="source of the random numbers. independent: a counter-based stream for each category, instance and "
        "scene, keyed by the seed; published: the streams of the published program, exact to the pixel",
    )

    @model_validator(mode="after")
    def _no_settings_without_effect(self) -> SourceParams:
        for name in self.published_only if self.random == "independent" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(f"{name}: has an effect with random: published only, and random is independent")
        return self


class DiamondSquareParams(SourceParams):
    published_only = ("numba_seed", "decay_seed")

    numba_seed: int = Field(0, ge=0, lt=2**32, description=_SEED + "the one in compiled code, for fields and colours")
    decay_seed: int = Field(
        0, ge=0, lt=2**63, description=_SEED + "the one for the decay, which is new for each field: all have one decay"
    )


class ColoredIfsParams(SourceParams):
    published_only = (
        "published_instances", "published_images", "cache", "period", "warm_up", "generator_seed", "numba_seed",
        "color_seed", "host_seed", "decay_seed",
    )  # fmt: skip

    maps_min: int = Field(
        2, ge=2, le=8, description="smallest number of maps of a system", json_schema_extra={"unit": "maps"}
    )
    maps_max: int = Field(
        4, ge=2, le=8, description="largest number of maps of a system", json_schema_extra={"unit": "maps"}
    )
    sigma_factor: float | None = Field(
        None,
        ge=0.5,
        le=5.75,
        description="sum of s1 + 2 s2 over a system's maps, for their singular values s1 and s2; null: random from "
        "(5 + n) / 2 to (6 + n) / 2 for n maps, as the paper recommends",
    )
    points: int = Field(
        100_000,
        ge=1000,
        le=100_000_000,
        description="number of points of a fractal; in independent scenes, objects that are smaller than half the "
        "canvas have fewer, as many a pixel",
        json_schema_extra={"unit": "points"},
    )
    jitter: Jitter = Field(
        "default",
        description="change of the system from instance to instance. default: one map is multiplied by 0.8 to 1.1; "
        "fractaldb-k: one number of each map is multiplied by 1 - k / 5 to 1 + k / 5. Scenes have none",
    )
    window: bool = Field(
        True, description="an instance shows a random part of the fractal's plane; false: the fractal's bounding box"
    )
    shading: Literal["density", "binary"] = Field(
        "density",
        description="density: hue or gray level of a pixel follow from its number of points; binary: all are the same",
    )
    patch: bool = Field(
        True,
        description="draw points as a 3x3 patch, the same random one for all points of an image; false: as one pixel",
    )
    flips: bool = Field(True, description="exchange rows and columns, mirror rows and mirror columns at random")
    background: bool = Field(True, description="draw a diamond-square field behind the fractals; false: black")
    blur: float = Field(
        0.5, ge=0, le=1, description="probability that an image is blurred", json_schema_extra={"unit": "probability"}
    )
    blur_sigma_min: float = Field(
        0.5, ge=0.1, le=10, description="smallest sigma of the 3x3 Gaussian", json_schema_extra={"unit": "pixels"}
    )
    blur_sigma_max: float = Field(
        1.0, ge=0.1, le=10, description="largest sigma of the 3x3 Gaussian", json_schema_extra={"unit": "pixels"}
    )
    objects_min: int = Field(
        1, ge=1, le=100, description="smallest number of objects of a scene", json_schema_extra={"unit": "objects"}
    )
    objects_max: int = Field(
        5, ge=1, le=100, description="largest number of objects of a scene", json_schema_extra={"unit": "objects"}
    )
    size_min: float = Field(
        0.15,
        gt=0,
        le=1,
        description="smallest side of an object in a scene",
        json_schema_extra={"unit": "share of the canvas"},
    )
    size_max: float = Field(
        0.6,
        gt=0,
        le=1,
        description="largest side of an object in a scene",
        json_schema_extra={"unit": "share of the canvas"},
    )
    published_instances: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="number of images a category of the published set",
        json_schema_extra={"unit": "images"},
    )
    published_images: int = Field(
        1_000_000,
        ge=1,
        le=1_000_000_000,
        description="number of scenes of the published set: one depends on the random numbers of all before it",
        json_schema_extra={"unit": "scenes", "neutral": 1_000_000},
    )
    cache: int = Field(
        512,
        ge=1,
        le=10_000,
        description="number of fractals and backgrounds that published scenes are composed of at a time",
        json_schema_extra={"unit": "fractals"},
    )
    period: int = Field(
        2,
        ge=1,
        le=1000,
        description="number of published scenes from a new fractal to the next",
        json_schema_extra={"unit": "scenes"},
    )
    warm_up: int = Field(
        0,
        ge=0,
        le=10_000,
        description="number of fractals and backgrounds that are there before the first published scene",
        json_schema_extra={"unit": "fractals"},
    )
    generator_seed: int = Field(
        0, ge=0, lt=2**63, description=_SEED + "the one for jitter, windows, flips and blur, or for scenes"
    )
    numba_seed: int = Field(
        0, ge=0, lt=2**32, description=_SEED + "the one in compiled code, for points, colours and backgrounds"
    )
    color_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="seed that the one in compiled code gets before a colour; null: none, it goes on",
    )
    host_seed: int = Field(0, ge=0, lt=2**32, description=_SEED + "numpy's global one, for patches")
    decay_seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description=_SEED + "the one for a background's decay, which is new for each: all have one decay",
    )

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> ColoredIfsParams:
        for name in ("maps", "blur_sigma", "objects", "size"):
            smallest, largest = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if smallest > largest:
                raise ConfigError(f"{name}_min: {smallest} is not allowed: must not be above {name}_max {largest}")
        return self
