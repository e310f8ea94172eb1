"""The parameters of the generator ``ifs``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from formulavision import ConfigError, Params

from .systems import check_system

__all__ = ["IfsParams"]


class IfsParams(Params):
    search: Literal["published", "independent", "singular_values", "one_base"] = Field(
        "independent",
        description="how categories are found. published: by the trials of the published program, from one random "
        "stream; independent: each by a random stream of its own, in parallel, and systems that diverge are refused; "
        "singular_values: as independent, with maps that expand no distance (Anderson and Farrell, WACV 2022, who take "
        "2 to 4 maps and any fill_rate); one_base: perturbations of one base system that fill enough of the canvas, as "
        "in 1p-frac",
    )
    max_transformations: int = Field(
        8,
        ge=2,
        le=8,
        description="largest number of transformations of a system; the paper says 8, the published search used 7",
        json_schema_extra={"unit": "transformations"},
    )
    fill_rate: float = Field(
        0.2,
        ge=0.0,
        le=0.3,
        description="smallest share of lit pixels of a category, for 100,000 points on 512 x 512 pixels (paper, "
        "table 2); with search: one_base and patches: published of its image, which is 0.05 in 1p-frac",
        json_schema_extra={"unit": "share"},
    )
    weights: Literal["continuous", "table"] = Field(
        "continuous",
        description="the weights by which an instance multiplies a to f. continuous: 1 + u with a random u for each, "
        "so instances have no limit; table: one of the 25 rows of the published table",
    )
    perturbation: float = Field(
        0.2,
        gt=0.0,
        le=0.5,
        description="range of continuous weights: u is uniform from -perturbation to perturbation; with search: "
        "one_base the weights are those of a category, and its instances differ in their patches (0.1 in 1p-frac)",
        json_schema_extra={"unit": "share"},
    )
    weight_interval: float = Field(
        0.4,
        ge=0.0,
        le=0.5,
        description="step between the weights of the table: five weights around 1 multiply one of a to f at a time, "
        "which makes 25 rows (paper, section 3.3; 0.4 is best in table 3); 0: no variation",
    )
    table_rows: int = Field(
        25,
        ge=1,
        le=25,
        description="number of rows of the table that are used, from the first on; 1 for 2D-OFDB: a times 0.2",
        json_schema_extra={"unit": "rows", "neutral": 25},
    )
    orbit: Literal["published", "independent"] = Field(
        "independent",
        description="how points are computed. published: one chain in float64 with the published random numbers, exact "
        "to the pixel; independent: 128 chains with counter-based random numbers, statistically the same image",
    )
    dots: int = Field(
        200_000,
        ge=1000,
        le=100_000_000,
        description="number of points of an image (paper, table 4)",
        json_schema_extra={"unit": "points"},
    )
    patch: Literal["random", "fixed", "full", "point"] = Field(
        "random",
        description="what is drawn at a point (paper, table 1). random: a 3x3 patch, another one at each point; fixed: "
        "one 3x3 patch for all points of the image; full: 3x3 lit pixels; point: one pixel",
    )
    patches: Literal["independent", "published"] = Field(
        "independent",
        description="source of the random numbers of patches. independent: a counter-based stream, keyed by the seed; "
        "published: Python's random, one stream for the only images of all categories, as in 2D-OFDB; with search: "
        "one_base a stream of seed patch_seed + i for the perturbation and the patches of category i, as in 1p-frac",
        json_schema_extra={"neutral": "independent"},
    )
    patch_seed: int = Field(
        0,
        ge=0,
        lt=2**64,
        description="seed of Python's random with patches: published",
        json_schema_extra={"neutral": 0},
    )
    base: tuple[tuple[float, float, float, float, float, float, float], ...] | None = Field(
        None,
        min_length=1,
        description="the base system of search: one_base, rows a to f and p, or their CSV file; else a random one",
        json_schema_extra={"neutral": None},
    )
    base_seed: int = Field(
        0,
        ge=0,
        lt=2**64,
        description="seed of numpy's default_rng, from which the base system is drawn: with patches: published the "
        "first one, as in 1p-frac, otherwise the first one that fills enough of the canvas",
        json_schema_extra={"neutral": 0},
    )
    base_transformations: int = Field(
        2,
        ge=2,
        le=8,
        description="number of transformations of the base system (N of 1p-frac)",
        json_schema_extra={"unit": "transformations", "neutral": 2},
    )
    sigma: float = Field(
        3.5,
        ge=0.1,
        le=23.9,
        description="sum of s1 + 2 s2 over the transformations of the base system, s1 and s2 their singular values, "
        "within 0.1; at most 3 times base_transformations, less 0.1",
        json_schema_extra={"neutral": 3.5},
    )
    fill_size: int = Field(
        512,
        ge=8,
        le=4096,
        description="width and height of the image whose share of lit pixels 1p-frac measures, on any canvas",
        json_schema_extra={"unit": "pixels", "neutral": 512},
    )
    fill_padding: int = Field(
        6, ge=0, le=256, description="padding of that image", json_schema_extra={"unit": "pixels", "neutral": 6}
    )
    flips: bool = Field(
        True, description="whether an image flipped top-bottom, left-right and both is an instance of its own"
    )

    @model_validator(mode="after")
    def _refuse_settings_without_effect(self) -> IfsParams:
        for setting, value, names in _EFFECTIVE_WITH:
            now = getattr(self, setting)
            for name in names if now != value else ():
                if getattr(self, name) != IfsParams.model_fields[name].default:
                    raise ConfigError(f"{name}: has an effect with {setting}: {value} only, and {setting} is {now}")
        return self

    @field_validator("base", mode="before")
    @classmethod
    def _read_file(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            lines = Path(value).expanduser().read_text(encoding="utf-8").splitlines()
            return [[float(number) for number in line.split(",")] for line in lines if line.strip()]
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"{value} cannot be read as rows of a to f and p ({error})") from None

    @model_validator(mode="after")
    def _perturbations_are_of_one_base(self) -> IfsParams:
        if self.search != "one_base":
            return self
        if self.weights != "continuous":
            raise ConfigError("search: one_base needs weights: continuous, which are those of its categories")
        if self.max_transformations != IfsParams.model_fields["max_transformations"].default:
            raise ConfigError("max_transformations: has no effect with search: one_base: set base_transformations")
        if self.base is not None:
            if (self.base_seed, self.base_transformations, self.sigma) != (0, 2, 3.5):
                raise ConfigError("base_seed, base_transformations and sigma: have no effect where base is given")
            try:
                check_system(np.array(self.base))
            except ValueError as error:
                raise ConfigError(f"base: the parameters {error}") from None
        most = 3 * self.base_transformations - 0.1
        if self.sigma > most:
            raise ConfigError(
                f"sigma: {self.sigma:g} is not allowed: it is at most {most:g} for {self.base_transformations} "
                "transformations (base_transformations)"
            )
        if self.fill_size <= 2 * self.fill_padding:
            raise ConfigError(f"fill_padding: {self.fill_padding} leaves nothing of fill_size {self.fill_size}")
        return self

    @model_validator(mode="after")
    def _published_patches_are_of_published_points(self) -> IfsParams:
        if self.patches == "independent":
            return self
        if self.patch == "fixed":
            raise ConfigError("patches: published is not allowed with patch: fixed: it has a patch for each point")
        if self.orbit != "published":
            raise ConfigError(f"patches: published needs orbit: published, and orbit is {self.orbit}")
        several = self.weights != "table" or (self.table_rows > 1 and self.weight_interval > 0)
        if several and self.search != "one_base":
            raise ConfigError(
                "patches: published needs one instance a category: weights: table with table_rows: 1 or "
                "weight_interval: 0, or search: one_base"
            )
        return self


_EFFECTIVE_WITH = (
    ("weights", "continuous", ("perturbation",)),
    ("weights", "table", ("weight_interval", "table_rows")),
    ("patches", "published", ("patch_seed", "fill_size", "fill_padding")),
    ("search", "one_base", ("base", "base_seed", "base_transformations", "sigma", "fill_size", "fill_padding")),
)
"""Settings, and the names of the parameters that have an effect at one of their values alone."""
