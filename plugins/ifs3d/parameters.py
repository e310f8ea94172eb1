"""The parameters of the generator ``ifs3d``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from formulavision import ConfigError, Params

__all__ = ["Ifs3dParams"]


class Ifs3dParams(Params):
    random: Literal["independent", "published"] = Field(
        "independent",
        description="source of the random numbers. independent: a counter-based stream for each category and instance, "
        "keyed by the seed; published: the streams of the published programs, exact to the pixel: the search from the "
        "recipe's seed, clouds from cloud_seed, views from view_seed, and the table of weights with its slip",
    )
    max_transformations: int = Field(
        7,
        ge=2,
        le=64,
        description="largest number of transformations of a category; the smallest is 2",
        json_schema_extra={"unit": "transformations"},
    )
    variance: float = Field(
        0.05,
        ge=0,
        le=0.15,
        description="least variance of a category's points along every axis, where the cloud's cube has a side of 2; "
        "0.15 is the default of the published program, whose script takes 0.05",
        json_schema_extra={"unit": "squared lengths"},
    )
    clouds: int = Field(
        145,
        ge=1,
        le=145,
        description="number of rows of the table of weights that are used, from the first on; each gives a cloud of "
        "points. 145 for MV-FractalDB, 1 for 3D-OFDB",
        json_schema_extra={"unit": "clouds"},
    )
    views: Literal["ring", "random"] = Field(
        "ring",
        description="directions of the camera. ring: 12 around the y axis, each turned by a random angle of at most "
        "3.14 degrees, as in MV-FractalDB; random: any direction, as in ExFractalDB",
    )
    cloud_seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="seed of numpy's generator, from which the published program draws the points of all clouds",
    )
    view_seed: int = Field(
        0,
        ge=0,
        lt=2**64,
        description="seed of Python's generator, from which the published program draws the turns of all views",
    )

    @model_validator(mode="after")
    def _settings_go_together(self) -> Ifs3dParams:
        if self.random == "published" and self.views == "random":
            raise ConfigError(
                "views: random is not allowed with random: published, whose program has 12 views in a ring"
            )
        for name in ("cloud_seed", "view_seed") if self.random == "independent" else ():
            if getattr(self, name):
                raise ConfigError(f"{name}: has an effect with random: published only, and random is independent")
        return self
