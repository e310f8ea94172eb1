"""Scenes: their settings in a recipe, and the plan of each, which says what object is where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from formulavision.generators.contract import Canvas
from formulavision.generators.failures import ask_for_number
from formulavision.generators.streams import Stream
from formulavision.recipes.parts import Part
from formulavision.util.config import Config
from formulavision.util.errors import ConfigError

__all__ = ["MAX_OBJECTS", "NO_LIMIT", "SIZE_STEPS", "PlannedObjects", "ScenePlanner", "SceneSettings"]

MAX_OBJECTS = 65_535
"""Largest number of objects in a scene: object maps have 16 bits."""
INSTANCES_A_SCENE = 65_536
"""Object k of scene i is instance 65,536 i + k of its category, where instances have no limit."""
NO_LIMIT = 2**63 - 1  # of instances and of scenes
SIZE_STEPS = 8
"""Objects come in so many sizes, each a canvas of its own, because images are drawn at their size and not resampled."""
_OBJECT = 8
"""How many random numbers an object takes."""


class SceneSettings(Config):
    """Composition of scenes: objects of the recipe's categories, drawn one over the other on a background."""

    objects: tuple[int, int] = Field(
        default=(1, 8), description="least and largest number of objects in a scene, or one number"
    )
    size: tuple[float, float] = Field(
        default=(0.15, 0.6), description="least and largest side of an object, as a share of the canvas, or one number"
    )
    rotate: bool = Field(default=True, description="turn objects by quarter turns, and mirror them, at random")
    place: Literal["anywhere", "inside"] = Field(
        default="anywhere",
        description="anywhere: the centre of an object is on the canvas, so the border may cut objects; inside: "
        "objects are whole",
    )
    background: Part | None = Field(
        default=None, description="a generator that draws behind the objects, which no target shows; null: black"
    )
    colors: Literal["own", "random"] = Field(
        default="own",
        description="own: objects are drawn in the colours of their generator; random: in gray levels, multiplied by a "
        "random colour for each object",
    )
    min_visible: int = Field(
        default=10,
        ge=1,
        description="objects with fewer visible pixels have no box, mask or label; with target: class the image "
        "keeps its label, also where the border cuts all of its object off (place: inside leaves objects whole)",
        json_schema_extra={"unit": "pixels"},
    )

    @field_validator("objects", "size", mode="before")
    @classmethod
    def _one_number(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> SceneSettings:
        for name, least, most in (("objects", 1, MAX_OBJECTS), ("size", 0, 1)):
            low, high = getattr(self, name)
            given = f"{name}: {[low, high] if low != high else low} is not allowed"
            if low > high:
                raise ConfigError(f"{given}: the least comes first")
            if name == "size" and not (low > 0 and high <= 1):
                raise ConfigError(f"{given}: must be above 0 and at most 1, the side of the canvas")
            if name == "objects" and not least <= low <= high <= most:
                raise ConfigError(f"{given}: must be from {least} to {most:,}")
        # Not the fields that are set: a recipe that is read back has all of them.
        fields = {"instances", "share", "object"}
        other = [name for name in fields if self.background and getattr(self.background, name) not in (None, "shape")]
        if other:
            raise ConfigError(f"background.{min(other)}: is not allowed: a background is a generator and categories")
        return self

    def sides(self, canvas: Canvas) -> list[int]:
        """The sides of the objects' canvases in pixels, from the least to the largest: ``SIZE_STEPS`` of them.

        Raises:
            ConfigError: the least is smaller than a canvas can be.
        """
        low, high = self.size
        sides = [round(canvas.size * (low + (high - low) * step / (SIZE_STEPS - 1))) for step in range(SIZE_STEPS)]
        smallest = Canvas.model_fields["size"].metadata[0].ge
        if sides[0] < smallest:
            raise ConfigError(
                f"size: {low} is not allowed: the smallest objects would be {sides[0]} pixels wide of the canvas's "
                f"{canvas.size}, must be at least {smallest}"
            )
        return sides

    def canvases(self, canvas: Canvas) -> list[Canvas]:
        """The canvas of each size of the objects, without padding, then that of backgrounds; gray where ``colors``
        colours them."""
        channels: Literal[1, 3] = 1 if self.colors == "random" else canvas.channels
        objects = [Canvas(size=side, padding=0, channels=channels) for side in self.sides(canvas)]
        return [*objects, canvas.model_copy(update={"channels": channels})]


@dataclass(frozen=True)
class PlannedObjects:
    """The objects of several scenes, scene after scene, and in each from the lowest to the highest.

    A scene's background is its object 0, at the recipe's size.

    Attributes:
        scenes: position of each object's scene in the list of scenes that was asked for.
        numbers: its number in the scene: its value in the object map.
        labels: its category, as a position in the list of all categories, which those of backgrounds follow.
        instances: its instance.
        steps: its size, as a position in the list of sizes, which the size of backgrounds follows.
        places: row and column of its top left corner, which may be outside of the canvas.
        turns: 0 to 7: 1 mirrors columns, 2 mirrors rows, then 4 exchanges rows and columns.
        colors: factor of each channel in 255ths; 255 leaves a level as it is.
    """

    scenes: Int64[np.ndarray, " objects"]
    numbers: Int64[np.ndarray, " objects"]
    labels: Int64[np.ndarray, " objects"]
    instances: Int64[np.ndarray, " objects"]
    steps: Int64[np.ndarray, " objects"]
    places: Int64[np.ndarray, "objects 2"]
    turns: Int64[np.ndarray, " objects"]
    colors: UInt8[np.ndarray, "objects channels"]

    def __len__(self) -> int:
        return len(self.scenes)

    def chosen(self, which: slice | NDArray[Any]) -> PlannedObjects:
        """Some of the objects."""
        return PlannedObjects(**{name: values[which] for name, values in vars(self).items()})


class ScenePlanner:
    """Plans scenes: what a scene holds follows from the recipe's seed and the scene's number alone.

    Args:
        settings: the recipe's, resolved.
        parts: the recipe's parts, resolved: with shares.
        canvas, seed: the recipe's.
    """

    def __init__(self, settings: SceneSettings, parts: Sequence[Part], canvas: Canvas, seed: int) -> None:
        self.settings = settings
        self.canvas = canvas
        self.seed = seed
        self.sides = np.array(settings.sides(canvas), np.int64)
        self._counts = np.array([part.num_categories for part in parts], np.int64)
        self._shares = np.array([part.share or 1.0 for part in parts])
        self._first_labels = np.cumsum(self._counts) - self._counts
        self._first_shares = np.cumsum(self._shares) - self._shares
        behind = [] if settings.background is None else [settings.background]
        generators = [part.generator.build(canvas, seed) for part in [*parts, *behind]]
        self._most = np.array([ask_for_number(generator, "max_instances") or NO_LIMIT for generator in generators])

    def plan(self, numbers: Int64[np.ndarray, " scenes"]) -> PlannedObjects:
        """The objects of scenes.

        Args:
            numbers: of the scenes, also beyond the recipe's ``images``.
        """
        from formulavision.rendering.random import uniform_streams

        key = (self.seed, Stream.SCENE)
        counters = np.stack([numbers, np.zeros_like(numbers), np.zeros_like(numbers)], axis=1)
        low, high = self.settings.objects
        counts = 1 + low + _whole(uniform_streams(key, counters, 1), high - low + 1)
        # A row for each object, the first for the background: its first number was the number of objects.
        random = uniform_streams(key, counters, counts * _OBJECT).reshape(-1, _OBJECT)
        scenes = np.repeat(np.arange(len(numbers)), counts)
        in_scene = np.arange(len(scenes)) - np.repeat(np.cumsum(counts) - counts, counts)
        part = np.searchsorted(self._first_shares, random[:, 0], side="right") - 1
        within = (random[:, 0] - self._first_shares[part]) / self._shares[part]
        category = np.minimum(_whole(within, self._counts[part]), self._counts[part] - 1)
        most, instances = self._most[part], INSTANCES_A_SCENE * numbers[scenes] + in_scene
        if np.any(most < NO_LIMIT):
            # One at random: a count modulo their number would leave most of them out.
            own = _whole(uniform_streams(key, counters + np.array([0, 1, 0]), counts), np.minimum(most, 2**32))
            instances = np.where(most < NO_LIMIT, own, instances)
        steps = _whole(random[:, 1], SIZE_STEPS)
        sides, size = self.sides[steps][:, None], self.canvas.size
        if self.settings.place == "inside":
            places = _whole(random[:, 2:4], size - sides + 1)
        else:
            places = _whole(random[:, 2:4], size) - sides // 2
        planned = PlannedObjects(
            scenes=scenes,
            numbers=in_scene,
            labels=self._first_labels[part] + category,
            instances=instances,
            steps=steps,
            places=places,
            turns=_whole(random[:, 4], 8 if self.settings.rotate else 1),
            colors=self._colors(random[:, 5:]),
        )
        background = self.settings.background
        if background is None:
            return planned.chosen(in_scene > 0)
        first = in_scene == 0
        planned.labels[first] = self._counts.sum() + _whole(random[first, 1], background.num_categories)
        planned.instances[first] = _whole(random[first, 2], min(self._most[-1], 2**32))
        planned.steps[first] = SIZE_STEPS
        planned.places[first] = 0
        planned.turns[first] = 0
        return planned

    def _colors(self, random: Float64[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n channels"]:
        """Factors from 64 to 255 of 255 for each channel, or 255 where the colours are the generator's own."""
        random = random[:, : self.canvas.channels]
        if self.settings.colors == "own":
            return np.full(random.shape, 255, np.uint8)
        return (64 + _whole(random, 192)).astype(np.uint8)


def _whole(random: NDArray[np.float64], count: Any) -> NDArray[np.int64]:
    """Whole numbers from 0 to below ``count``, from random numbers from 0 to below 1."""
    return (random * count).astype(np.int64)
