"""The generator under test: its recipes, and its images drawn in one way or another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category, Generator, Scene
from formulavision.generators.failures import ask_for_number, blamed
from formulavision.generators.registry import plugins
from formulavision.recipes.categories import category_name, search
from formulavision.recipes.composition import build_generators, draw_category, own_scenes
from formulavision.recipes.recipe import Recipe
from formulavision.testing.places import line_of_method, line_with

__all__ = ["CANVASES", "Image", "Subject", "registered"]

CANVASES: dict[str, dict[str, int]] = {
    "gray": {"size": 40, "padding": 3, "channels": 1},
    "colour": {"size": 40, "padding": 3, "channels": 3},
    "an odd size without padding": {"size": 33, "padding": 0},
    "the smallest size": {"size": 8, "padding": 0},
}
"""The canvases that images are drawn on; channels that are not given are the generator's default."""

_CATEGORIES = 3
_GUARD = 173
"""Value of the memory before and behind a batch."""
_FAR = 65_536 * 1_000_003
"""An instance of a late scene, beyond 32 bits."""

Image = NDArray[np.uint8]
"""An image, [size, size, channels]; of a generator with ``draws_masks`` the mask is one channel more."""


@contextmanager
def registered(generator: str | type[Generator]) -> Iterator[type[Generator]]:
    """The class of a generator, which is known by its name within the block."""
    if isinstance(generator, str):
        yield plugins()[generator].generator
        return
    found, name = plugins().generators, getattr(generator, "name", "")
    before = found.get(name)
    if before is None or before.generator is not generator:
        plugins().add(generator)
    try:
        yield generator
    finally:
        if before is None:
            del found[name]
        else:
            found[name] = before


@dataclass
class Subject:
    """A generator with parameters.

    Attributes:
        misdeeds: problems beside the images that were noticed while they were drawn: wrong values in masks, memory
            written outside of images, arguments changed. Each is kept once, and its value says where, too.
    """

    name: str
    params: dict[str, Any]
    misdeeds: dict[str, str] = field(default_factory=dict)

    @property
    def generator(self) -> type[Generator]:
        return plugins()[self.name].generator

    @property
    def draws_images(self) -> bool:
        """Whether the generator draws images of one category; others have only scenes of their own."""
        methods = (self.generator.render, self.generator.render_batch)
        return methods != (Generator.render, Generator.render_batch)

    @property
    def has_scenes(self) -> bool:
        return self.generator.scene is not Generator.scene

    def recipe(self, canvas: Mapping[str, int], **settings: Any) -> Recipe:
        """A recipe of the generator, of its own scenes if it draws nothing else.

        Raises:
            ConfigError: the generator refuses it.
        """
        data = {"generator": {"name": self.name, **self.params}, "canvas": dict(canvas), **settings}
        if not self.draws_images:
            data["scene"] = "own"
        return Recipe.from_dict(data)

    def categories(self, recipe: Recipe, count: int | None = None) -> list[Category]:
        """The first categories, found anew by a new generator."""
        if count is None:
            most = ask_for_number(recipe.build(), "max_categories")
            count = min(_CATEGORIES, most or _CATEGORIES)
        (part,) = recipe.all_parts
        found = search(part.generator, recipe.build(), count)
        return [Category(i, category_name(i), table) for i, table in enumerate(found)]

    def build(self, recipe: Recipe, categories: Sequence[Category]) -> Generator:
        """A new generator, ready to draw: it knows the categories."""
        return build_generators(recipe.all_parts, [recipe.canvas], recipe.seed, categories)[0][0]

    def instances(self, recipe: Recipe) -> list[int]:
        """Some instances: the first ones, others that share work with them, and one of a large number."""
        generator = recipe.build()
        most = ask_for_number(generator, "max_instances") or _FAR + 1
        near = np.arange(min(most, 1000))
        with blamed(self.name, "while sharing work"):
            groups = np.asarray(generator.shared_work(near.copy()))
            if groups.shape != near.shape:
                raise TypeError(f"shared_work() returned {list(groups.shape)} numbers, not {list(near.shape)}")
        shared = near[groups == groups[0]][1:3].tolist()
        return list(dict.fromkeys([*near[:4].tolist(), *shared, most - 1]))

    def draw(self, generator: Generator, category: Category, instances: Sequence[int]) -> NDArray[np.uint8]:
        """Images [n, size, size, channels] of a batch, with their masks as one more channel.

        Raises:
            PluginError: the generator raised.
        """
        numbers = np.array(instances, np.int64)
        before = (category.parameters.tobytes(), generator.params.model_dump())
        memory = [np.full((len(numbers) + 2, *generator.canvas.shape), _GUARD, np.uint8)]
        if generator.draws_masks:
            memory.append(np.full(memory[0].shape[:3], _GUARD, np.uint8))
        out = [array[1:-1] for array in memory]
        for array in out:
            array[:] = 0
        draw_category(generator, category, numbers, *out)
        if any(np.any(array[[0, -1]] != _GUARD) for array in memory):
            self._notice("something is written outside of the images: check indices against self.canvas.size")
        if generator.draws_masks and out[1].max() > 1:
            self._notice(f"a mask has the value {out[1].max()}: it must be 1 where the object is, and 0 elsewhere")
        if before[0] != category.parameters.tobytes() or category.parameters.flags.writeable:
            self._notice("the category's parameters were changed: copy them (category.parameters.copy())", "setflags")
        if before[1] != generator.params.model_dump():
            self._notice("the generator's parameters were changed: copy them", "params")
        if not np.array_equal(numbers, instances):
            self._notice("the array 'instances' was changed: copy it (instances.copy())", "sort", "shuffle")
        return np.concatenate([out[0], *(mask[..., None] for mask in out[1:])], axis=-1)

    def draw_one_by_one(
        self, recipe: Recipe, categories: Sequence[Category], pairs: Iterable[tuple[int, int]]
    ) -> Image:
        """The last of the images of (category, instance), drawn one after the other by a new generator."""
        generator = self.build(recipe, categories)
        return [self.draw(generator, categories[c], [i])[0] for c, i in pairs][-1]

    def draw_scene(self, generator: Generator, categories: Sequence[Category], index: int) -> Scene:
        """A scene of the generator's own.

        Raises:
            PluginError: the generator raised, or returned something else than a scene of its canvas.
        """
        before = [category.parameters.tobytes() for category in categories]
        scene: Scene = own_scenes(generator, categories, np.array([index], np.int64))[0]
        if before != [category.parameters.tobytes() for category in categories]:
            self._notice("the parameters of the categories were changed: copy them", "setflags")
        return scene

    def _notice(self, misdeed: str, *names: str) -> None:
        if misdeed not in self.misdeeds:
            place = line_with(self.generator, *names) or line_of_method(self.generator, "render_batch", "render")
            self.misdeeds[misdeed] = misdeed + place
