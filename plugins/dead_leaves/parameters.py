"""The parameters of the generator ``dead-leaves``."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from formulavision import ConfigError, Params

__all__ = ["SHAPES", "DeadLeavesParams", "Shape", "radius_distribution"]

Shape = Literal["circle", "square", "oriented_square", "rectangle", "triangle", "quadrilater"]
SHAPES: tuple[str, ...] = get_args(Shape)
"""The shapes of leaves, in the order of the published program."""
_RADII = 200
"""Number of radii of which a leaf takes one."""


class DeadLeavesParams(Params):
    random: Literal["independent", "published"] = Field(
        "independent",
        description="source of the random numbers. independent: a counter-based stream for each category and instance, "
        "keyed by the seed; published: instance i has the random streams that the published program seeds by i, exact "
        "to the pixel of OpenCV 4.5.3; there is one category, and the recipe's seed changes nothing",
    )
    shape: Literal["mixed", "circle", "square", "oriented_square", "rectangle", "triangle", "quadrilater"] = Field(
        "mixed",
        description="shape of the leaves; mixed: one at random for each leaf, all alike in the published program, with "
        "probabilities that differ among categories otherwise",
    )
    sigma: float = Field(
        3.0,
        ge=1.5,
        le=8,
        description="exponent s of the radii: their density is r^-s - radius_max^-s. Of independent categories the "
        "middle of the range",
    )
    sigma_spread: float = Field(
        1.0, ge=0, le=1, description="largest difference of a category's exponent from sigma, with random: independent"
    )
    radius_min: float = Field(
        0.03, ge=0.01, le=0.5, description="smallest radius", json_schema_extra={"unit": "canvas sizes"}
    )
    radius_max: float = Field(
        1.0, ge=0.02, le=2, description="largest radius", json_schema_extra={"unit": "canvas sizes"}
    )
    leaves: int = Field(
        5000,
        ge=1,
        le=30_000,
        description="largest number of leaves of an image; it has fewer where they cover the canvas, and black where "
        "they do not",
        json_schema_extra={"unit": "leaves"},
    )

    @model_validator(mode="after")
    def _settings_go_together(self) -> DeadLeavesParams:
        if self.radius_min >= self.radius_max:
            raise ConfigError(
                f"radius_min: {self.radius_min:g} is not allowed: must be below radius_max {self.radius_max:g}"
            )
        if self.random == "published" and self.sigma_spread != 1:
            raise ConfigError(
                "sigma_spread: has an effect with random: independent only, and random is published: leave it out"
            )
        return self


def radius_distribution(
    params: DeadLeavesParams, sigma: float
) -> tuple[Float64[np.ndarray, " radii"], Float64[np.ndarray, " radii"]]:
    """Radii in canvas sizes, and the probability of each and all before it, for an exponent."""
    radii = np.linspace(params.radius_min, params.radius_max, _RADII)
    cumulative = np.cumsum(1 / radii**sigma - 1 / params.radius_max**sigma)
    return radii, cumulative / cumulative[-1]
