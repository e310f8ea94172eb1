"""The parameters of the generator ``bezier``."""

from __future__ import annotations

from pydantic import Field, model_validator

from formulavision import ConfigError, Params

__all__ = ["BezierParams"]


class BezierParams(Params):
    grid: int = Field(
        12,
        ge=1,
        le=64,
        description="number of different numbers of control points, and of curves; 12 gives the 144 categories of "
        "Bezier-144, 32 the 1,024 of Bezier-1024",
        json_schema_extra={"unit": "numbers"},
    )
    thickness_min: float = Field(
        1.0, ge=0.5, le=64, description="smallest width of a curve", json_schema_extra={"unit": "pixels"}
    )
    thickness_max: float = Field(
        2.0, ge=0.5, le=64, description="largest width of a curve", json_schema_extra={"unit": "pixels"}
    )
    extent_min: float = Field(
        0.2,
        gt=0,
        le=1,
        description="smallest extent of a curve: the larger side of its bounding box",
        json_schema_extra={"unit": "share of the canvas without its padding"},
    )
    extent_max: float = Field(
        0.6,
        gt=0,
        le=1,
        description="largest extent of a curve: the larger side of its bounding box",
        json_schema_extra={"unit": "share of the canvas without its padding"},
    )

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> BezierParams:
        for name in ("thickness", "extent"):
            smallest, largest = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if smallest > largest:
                raise ConfigError(f"{name}_min: {smallest} is not allowed: must not be above {name}_max {largest}")
        return self
