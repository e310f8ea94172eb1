"""Images and scenes from counter-based random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from formulavision import Category

from .choices import COLOR_NUMBERS, GROUND_NUMBERS, choose_instance, choose_scene, decay_of
from .drawing import WHOLE, Background, Fractal, SceneObject, independent_counts, independent_field, spread_counts
from .parameters import ColoredIfsParams

__all__ = ["IndependentSource", "independent_background"]

_SCENE = 1 << 31
"""Bit of a counter that scenes have, and instances have not."""


class IndependentSource:
    """Random numbers of a recipe: those of each instance and of each scene are a stream of their own.

    Args:
        params: of the generator.
        size: of the canvas.
        seed: of the recipe.
        stream: the generator's random stream of a key.
    """

    def __init__(
        self, params: ColoredIfsParams, size: int, seed: int, stream: Callable[..., np.random.Generator]
    ) -> None:
        self.params = params
        self.size = size
        self.seed = seed
        self.stream = stream

    def instance(self, category: Category, instance: int) -> tuple[Fractal, Background | None, float]:
        """An instance: its fractal, its background, and sigma of its blur."""
        random = self.stream(category.index, instance, 1)
        choices = choose_instance(random, self.params, category.parameters)
        counter = (instance >> 32, instance, category.index)
        counts = independent_counts(choices.system, counter, self.seed, self.params.points, choices.window, self.size)
        fractal = self._fractal(random, spread_counts(counts, self._pattern(random), choices.flips))
        return fractal, self._background(random, counter), choices.sigma

    def scene(self, categories: Sequence[Category], index: int) -> tuple[list[SceneObject], Background | None, float]:
        """A scene: its objects from the lowest to the highest, its background, and sigma of its blur."""
        params = self.params
        random = self.stream(-1, index, 1)  # of an instance of a category -1, which there is not
        choices = choose_scene(random, params, self.size, len(categories), params.objects_max)
        high = index >> 32 | _SCENE
        objects = []
        for number, chosen in enumerate(choices.objects, 1):
            # As many points a pixel as the published program has, which draws objects at half the canvas's side.
            points = max(1, round(params.points * min(1.0, (2 * chosen.side / self.size) ** 2)))
            system, side = categories[chosen.fractal].parameters, chosen.side
            counts = independent_counts(system, (high, index, number), self.seed, points, WHOLE, side)
            fractal = self._fractal(random, spread_counts(counts, self._pattern(random), chosen.flips))
            objects.append(SceneObject(chosen.fractal, fractal, side, chosen.row, chosen.column))
        return objects, self._background(random, (high, index, 0)), choices.sigma

    def _fractal(self, random: np.random.Generator, counts: Int32[np.ndarray, "side side"]) -> Fractal:
        return Fractal(counts, random.random(COLOR_NUMBERS))

    def _background(self, random: np.random.Generator, counter: tuple[int, int, int]) -> Background | None:
        return independent_background(random, counter, self.seed, self.size) if self.params.background else None

    def _pattern(self, random: np.random.Generator) -> UInt8[np.ndarray, "3 3"]:
        """A patch: 1 for its chosen pixels, at least one."""
        bits = int(random.integers(1, 512)) if self.params.patch else 16
        return np.array([[bits >> (3 * row + column) & 1 for column in range(3)] for row in range(3)], np.uint8)


def independent_background(
    random: np.random.Generator, counter: tuple[int, int, int], seed: int, size: int
) -> Background:
    """A background whose decay and colours come from a stream, and whose field has a counter."""
    decay = decay_of(random)
    return Background(independent_field(counter, seed, size), random.random(GROUND_NUMBERS), decay)
