"""The parameters of the generators ``rcdb``, ``segrcdb`` and ``visual-atoms``.

Lengths are in pixels of an image of ``image_size``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from formulavision import ConfigError, Params

__all__ = [
    "ContourParams",
    "RadialParams",
    "Ranges",
    "RcdbParams",
    "SegRcdbParams",
    "VisualAtomsParams",
    "WaveRanges",
]

Ranges = tuple[int, float, int, int, float, float, float, int, int, float, int, int]
"""Result of :meth:`RadialParams.ranges`, for kernels."""
WaveRanges = tuple[int, int, int, int, float, float, float, int, int, int, int, int, int, float, int, int]
"""Result of :meth:`VisualAtomsParams.ranges`, for kernels."""


class ContourParams(Params):
    """The parameters that all contours have in common."""

    published_only: ClassVar[tuple[str, ...]] = ("published_categories", "threads")
    """Names of the parameters that have an effect with ``random: published`` alone."""
    shared: ClassVar[str] = "published_categories"
    """Name of the number that the processes of the published program share: each has as many, and the rest is left
    over."""

    random: Literal["independent", "published"] = Field(
        "independent",
        description="source of the random numbers. independent: a counter-based stream for each category and instance, "
        "keyed by the seed; published: the streams of the published program, exact to the pixel, with fixed seeds: "
        "the recipe's seed changes nothing",
    )
    image_size: int = Field(
        512,
        ge=8,
        le=4096,
        description="size of the image that all lengths below are meant for; on a canvas of another size the same "
        "contours are drawn scaled",
        json_schema_extra={"unit": "pixels"},
    )
    lines_min: int = Field(
        1, ge=1, le=1000, description="smallest number of lines of a contour", json_schema_extra={"unit": "lines"}
    )
    lines_max: int = Field(
        200, ge=1, le=1000, description="largest number of lines of a contour", json_schema_extra={"unit": "lines"}
    )
    perlin_min: float = Field(
        0.0,
        ge=0,
        le=100,
        description="smallest coefficient of the noise that moves the vertices of a line to those of the next",
        json_schema_extra={"unit": "pixels"},
    )
    perlin_max: float = Field(
        4.0, ge=0, le=100, description="largest coefficient of the noise", json_schema_extra={"unit": "pixels"}
    )
    line_width: float = Field(
        0.1,
        ge=0,
        le=100,
        description="largest distance that is added between a line and the next",
        json_schema_extra={"unit": "pixels"},
    )
    radius_min: int = Field(
        0, ge=0, le=4096, description="smallest radius of the first line", json_schema_extra={"unit": "pixels"}
    )
    radius_max: int = Field(
        100, ge=0, le=4096, description="largest radius of the first line", json_schema_extra={"unit": "pixels"}
    )
    oval_rate: float = Field(
        2.0,
        ge=1,
        le=10,
        description="largest factor by which the first line is stretched along x, and along y; the smallest is 1",
        json_schema_extra={"unit": "factor"},
    )
    start_pos: int = Field(
        400,
        ge=0,
        le=8192,
        description="range of the centre: it is at most start_pos / 2 away from the image's, along x and along y",
        json_schema_extra={"unit": "pixels"},
    )
    published_categories: int = Field(
        1000,
        ge=1,
        le=10_000_000,
        description="number of categories of the published set: 1000, 21000 or 50000",
        json_schema_extra={"unit": "categories"},
    )
    threads: int = Field(
        40,
        ge=1,
        le=10_000,
        description="number of processes of the published program, each with a random stream of its own: other numbers "
        "give other images. Each draws as many categories (segrcdb: images); what is left over is not drawn",
        json_schema_extra={"unit": "processes"},
    )

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> ContourParams:
        for name in (field.removesuffix("_min") for field in type(self).model_fields if field.endswith("_min")):
            smallest, largest = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if smallest > largest:
                raise ConfigError(f"{name}_min: {smallest} is not allowed: must not be above {name}_max {largest}")
        for name in self.published_only if self.random == "independent" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(f"{name}: has an effect with random: published only, and random is independent")
        return self

    @model_validator(mode="after")
    def _each_thread_has_something(self) -> ContourParams:
        number = getattr(self, self.shared)
        if self.random == "published" and number < self.threads:
            raise ConfigError(f"{self.shared}: {number} is not allowed: must not be below threads {self.threads}")
        return self

    def drawn(self, name: str) -> int:
        """A number of the published set, by the name of its parameter, without what its processes leave over."""
        number: int = getattr(self, name)
        return number - number % self.threads if name == self.shared else number


class RadialParams(ContourParams):
    """The parameters that ``rcdb`` and ``segrcdb`` have in common."""

    vertices_max: int = Field(
        200,
        ge=3,
        le=2000,
        description="largest number of vertices of a contour; the smallest is 3",
        json_schema_extra={"unit": "vertices"},
    )
    vertices_mean: float = Field(
        100.0,
        ge=1,
        le=10_000,
        description="mean of the exponential distribution that numbers of vertices are drawn from, before those out of "
        "range are drawn again",
        json_schema_extra={"unit": "vertices"},
    )

    def ranges(self) -> Ranges:
        """The ranges of random numbers, as kernels take them."""
        return (
            self.vertices_max,
            1 / self.vertices_mean,
            self.lines_min,
            self.lines_max,
            float(self.perlin_min),
            float(self.perlin_max),
            float(self.line_width),
            self.radius_min,
            self.radius_max,
            float(self.oval_rate),
            self.start_pos,
            self.image_size,
        )


class RcdbParams(RadialParams):
    published_only: ClassVar[tuple[str, ...]] = ("published_categories", "published_instances", "threads")

    outline: Literal["lines", "ring", "filled"] = Field(
        "lines",
        description="what is drawn. lines: all lines of a contour; ring: also the area between the first and the last "
        "line, in the last one's gray; filled: also the area inside of the last line",
    )
    gray: Literal["dark-on-white", "light-on-black"] = Field(
        "dark-on-white",
        description="gray levels: dark lines on white, as the published program draws, or light ones on black, as the "
        "papers' figures show",
    )
    published_instances: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="number of instances per category of the published set",
        json_schema_extra={"unit": "instances"},
    )


class SegRcdbParams(RadialParams):
    published_only: ClassVar[tuple[str, ...]] = ("published_categories", "published_images", "threads")
    shared: ClassVar[str] = "published_images"

    vertices_max: int = Field(
        500,
        ge=3,
        le=2000,
        description="largest number of vertices of a contour; the smallest is 3",
        json_schema_extra={"unit": "vertices"},
    )
    lines_max: int = Field(
        50, ge=1, le=1000, description="largest number of lines of a contour", json_schema_extra={"unit": "lines"}
    )
    radius_max: int = Field(
        50, ge=0, le=4096, description="largest radius of the first line", json_schema_extra={"unit": "pixels"}
    )
    start_pos: int = Field(
        512,
        ge=0,
        le=8192,
        description="range of the centre: it is at most start_pos / 2 away from the image's, along x and along y",
        json_schema_extra={"unit": "pixels"},
    )
    mask: Literal["M1", "M2", "M3"] = Field(
        "M1",
        description="the pixels that belong to an object. M1: its lines, which the paper found best; M2: the area "
        "between its first and its last line; M3: the area inside of its last line",
    )
    objects: int = Field(
        32, ge=1, le=65_535, description="number of objects of a scene", json_schema_extra={"unit": "objects"}
    )
    published_categories: int = Field(
        254,
        ge=1,
        le=65_534,
        description="number of categories of the published set",
        json_schema_extra={"unit": "categories"},
    )
    published_images: int = Field(
        20_000,
        ge=1,
        le=100_000_000,
        description="number of images of the published set: 20000, or 118000 for the paper's best result",
        json_schema_extra={"unit": "images"},
    )


class VisualAtomsParams(ContourParams):
    published_only: ClassVar[tuple[str, ...]] = ("published_categories", "published_instances", "threads")

    vertices_min: int = Field(
        200, ge=3, le=4000, description="smallest number of vertices of a line", json_schema_extra={"unit": "vertices"}
    )
    vertices_max: int = Field(
        1000, ge=3, le=4000, description="largest number of vertices of a line", json_schema_extra={"unit": "vertices"}
    )
    radius_min: int = Field(
        10, ge=0, le=4096, description="smallest radius of the circle", json_schema_extra={"unit": "pixels"}
    )
    radius_max: int = Field(
        60, ge=0, le=4096, description="largest radius of the circle", json_schema_extra={"unit": "pixels"}
    )
    wave_1_min: int = Field(
        0, ge=0, le=2000, description="smallest frequency of the first sine", json_schema_extra={"unit": "waves a turn"}
    )
    wave_1_max: int = Field(
        20, ge=0, le=2000, description="largest frequency of the first sine", json_schema_extra={"unit": "waves a turn"}
    )
    wave_2_min: int = Field(
        0,
        ge=0,
        le=2000,
        description="smallest frequency of the second sine, which never has that of the first, except for 0",
        json_schema_extra={"unit": "waves a turn"},
    )
    wave_2_max: int = Field(
        20,
        ge=0,
        le=2000,
        description="largest frequency of the second sine",
        json_schema_extra={"unit": "waves a turn"},
    )
    start_pos: int = Field(
        512,
        ge=0,
        le=8192,
        description="range of the centre: it is at most start_pos / 2 away from the image's, along x and along y",
        json_schema_extra={"unit": "pixels"},
    )
    published_categories: int = Field(
        1000,
        ge=1,
        le=10_000_000,
        description="number of categories of the published set: 1000 or 21000",
        json_schema_extra={"unit": "categories"},
    )
    published_instances: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="number of instances per category of the published set",
        json_schema_extra={"unit": "instances"},
    )
    threads: int = Field(
        20,
        ge=1,
        le=10_000,
        description="number of processes of the published program, each with a random stream of its own: other numbers "
        "give other images. Each draws as many categories; what is left over is not drawn",
        json_schema_extra={"unit": "processes"},
    )

    @model_validator(mode="after")
    def _settings_go_together(self) -> VisualAtomsParams:
        only = self.wave_2_min
        if only == self.wave_2_max and only > 0 and self.wave_1_min <= only <= self.wave_1_max:
            raise ConfigError(
                f"wave_2_max: {only} is not allowed: the second sine needs another frequency where the first has {only}"
            )
        return self

    def ranges(self) -> WaveRanges:
        """The ranges of random numbers, as kernels take them."""
        return (
            self.vertices_min,
            self.vertices_max,
            self.lines_min,
            self.lines_max,
            float(self.perlin_min),
            float(self.perlin_max),
            float(self.line_width),
            self.radius_min,
            self.radius_max,
            self.wave_1_min,
            self.wave_1_max,
            self.wave_2_min,
            self.wave_2_max,
            float(self.oval_rate),
            self.start_pos,
            self.image_size,
        )
