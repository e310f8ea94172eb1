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
    table: Literal[25, 49, 73, 97, 121, 145] = Field(
        145,
        description="number of rows of the table of weights: a row of ones, and for each of the 12 parameters 2k rows "
        "with the weights 1 - 0.1k to 1 + 0.1k; 145 for MV-FractalDB: 0.4 to 1.6",
        json_schema_extra={"unit": "rows", "neutral": 145},
    )
    clouds: int = Field(
        145,
        ge=1,
        le=145,
        description="number of rows of the table of weights that are used, from the first on, where it has as many; "
        "each gives a cloud of points. 145 for MV-FractalDB, 1 for 3D-OFDB",
        json_schema_extra={"unit": "clouds"},
    )
    seen: tuple[int, ...] | None = Field(
        None,
        min_length=1,
        description="rows of the table, from 0, whose clouds have views, in ascending order, such as [0, 66, 144]; "
        "the others take random numbers alone, as where the published renderer finds some files of a category only; "
        "null: all",
        json_schema_extra={"neutral": None},
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
        if self.seen is not None and not (
            sorted({*self.seen}) == [*self.seen] and 0 <= self.seen[0] <= self.seen[-1] < self.rows
        ):
            raise ConfigError(f"seen: must be rows of the table from 0 to {self.rows - 1} in ascending order")
        for name in ("cloud_seed", "view_seed") if self.random == "independent" else ():
            if getattr(self, name):
                raise ConfigError(f"{name}: has an effect with random: published only, and random is independent")
        return self

    @property
    def rows(self) -> int:
        """Number of rows of the table of weights that are used."""
        return min(self.clouds, self.table)
