"""The parameters of the generator ``ifs``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from formulavision import ConfigError, Params

__all__ = ["IfsParams"]


class IfsParams(Params):
    search: Literal["published", "independent"] = Field(
        "independent",
        description="how categories are found. published: by the trials of the published program, in the order of the "
        "seed's random stream; independent: each category by a random stream of its own, so that 1,000 categories can "
        "grow to 10,000 and are found in parallel; systems that diverge are refused",
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
        ge=0.01,
        le=0.3,
        description="smallest share of lit pixels of a category, for 100,000 points on 512 x 512 pixels (paper, "
        "table 2)",
        json_schema_extra={"unit": "share"},
    )
    weights: Literal["continuous", "table"] = Field(
        "continuous",
        description="the weights by which an instance multiplies a to f. continuous: 1 + u with a random u for each, "
        "drawn anew for every instance, so the number of instances has no limit; table: one of the 25 rows of the "
        "published table of weights",
    )
    perturbation: float = Field(
        0.2,
        gt=0.0,
        le=0.5,
        description="range of continuous weights: u is uniform from -perturbation to perturbation",
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
        description="number of rows of the table that are used, from the first on; 1 for 2D-OFDB, where a is "
        "multiplied by 0.2 and nothing else varies",
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
        "published: Python's random, as in the program of 2D-OFDB, which draws the points of all categories, each with "
        "one instance, from one stream",
        json_schema_extra={"neutral": "independent"},
    )
    patch_seed: int = Field(
        0,
        ge=0,
        lt=2**64,
        description="seed of Python's random with patches: published",
        json_schema_extra={"neutral": 0},
    )
    flips: bool = Field(
        True,
        description="whether an image flipped top-bottom, left-right and both is an instance of its own",
    )

    @model_validator(mode="after")
    def _refuse_settings_without_effect(self) -> IfsParams:
        for setting, value, names in _EFFECTIVE_WITH:
            for name in names:
                if getattr(self, setting) != value and getattr(self, name) != IfsParams.model_fields[name].default:
                    now = getattr(self, setting)
                    raise ConfigError(f"{name}: has an effect with {setting}: {value} only, and {setting} is {now}")
        return self

    @model_validator(mode="after")
    def _published_patches_are_of_published_points(self) -> IfsParams:
        if self.patches == "independent":
            return self
        if self.patch == "fixed":
            raise ConfigError("patches: published is not allowed with patch: fixed: it has a patch for each point")
        if self.orbit != "published":
            raise ConfigError(f"patches: published needs orbit: published, and orbit is {self.orbit}")
        if self.weights != "table" or (self.table_rows > 1 and self.weight_interval > 0):
            raise ConfigError(
                "patches: published needs one instance a category: weights: table with table_rows: 1 or "
                "weight_interval: 0"
            )
        return self


_EFFECTIVE_WITH = (
    ("weights", "continuous", ("perturbation",)),
    ("weights", "table", ("weight_interval", "table_rows")),
    ("patches", "published", ("patch_seed",)),
)
"""Settings, and the names of the parameters that have an effect at one of their values alone."""
