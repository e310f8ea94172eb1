"""Limits of the explorer, so that a visitor can neither exhaust the machine nor read files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulavision.generators.contract import Params
from formulavision.recipes.recipe import Recipe
from formulavision.util.config import parse_yaml
from formulavision.util.errors import ConfigError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Upper limits of what the explorer draws.

    Attributes:
        size: width of the canvas, pixels.
        points: value of a parameter whose unit is points.
        categories: number of categories that are searched for.
        images: number of images on a sheet.
        objects: number of objects in a scene.
        text: length of a recipe's YAML, characters.
        seconds: duration of one piece of work, the compilation of kernels included; its process is then killed.
        long_seconds: duration of the verification or the statistics of a store.
        memory: memory of the process that draws, bytes.
        waiting: number of pieces of work in the queue; one at a time is done.
        sessions: number of open pages.
    """

    size: int = 1024
    points: int = 5_000_000
    categories: int = 1000
    images: int = 64
    objects: int = 256
    text: int = 20_000
    seconds: float = 120.0
    long_seconds: float = 1800.0
    memory: int = 4_000_000_000
    waiting: int = 20
    sessions: int = 100

    def read(self, text: str, folders: Collection[Path] = ()) -> Recipe:
        """The recipe that a visitor's YAML stands for.

        Args:
            folders: the only folders of categories that are read.

        Raises:
            ConfigError: it is not a recipe, names another folder or path, or is larger than a limit.
        """
        if len(text) > self.text:
            raise ConfigError(f": a recipe of {len(text):,} characters is not allowed here: at most {self.text:,}")
        data = parse_yaml(text)
        _refuse_files(data, folders)
        recipe = Recipe.from_dict(data)
        self.check(recipe)
        return recipe

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that is larger than a limit.

        Raises:
            ConfigError: one line for each setting that is too large.
        """
        problems = list(self._problems(recipe))
        if problems:
            raise ConfigError(*problems)

    def _problems(self, recipe: Recipe) -> Iterator[str]:
        if recipe.canvas.size > self.size:
            yield _too_much("canvas.size", recipe.canvas.size, self.size)
        for number, part in enumerate(recipe.all_parts):
            prefix = f"parts.{number}." if recipe.parts else ""
            yield from self._of_params(f"{prefix}generator", part.generator.params)
            if recipe.is_scene and part.num_categories > self.categories:
                yield _too_much(f"{prefix}categories.count", part.num_categories, self.categories)
        scene: Any = recipe.scene
        if recipe.is_scene and scene != "own":
            if scene.objects[1] > self.objects:
                yield _too_much("scene.objects", scene.objects[1], self.objects)
            if scene.background is not None:
                yield from self._of_params("scene.background.generator", scene.background.generator.params)
                if scene.background.num_categories > self.categories:
                    yield _too_much("scene.background.categories", scene.background.num_categories, self.categories)

    def _of_params(self, path: str, params: Params) -> Iterator[str]:
        for name, info in type(params).model_fields.items():
            value, extra = getattr(params, name), info.json_schema_extra
            if isinstance(value, Path):
                yield f"{path}.{name}: {str(value)!r} is not allowed here: the explorer reads no files of visitors"
            if isinstance(extra, Mapping) and extra.get("unit") == "points" and value > self.points:
                yield _too_much(f"{path}.{name}", value, self.points)


def _too_much(path: str, value: int, most: int) -> str:
    return f"{path}: {value:,} is not allowed here: the explorer draws at most {most:,}"


def _refuse_files(data: Any, folders: Collection[Path]) -> None:
    """Refuse folders of categories that were not given, and the file of a base fractal, before they are looked at."""
    if isinstance(data, Mapping):
        folder = data.get("folder")
        if folder is not None and str(folder) not in map(str, folders):
            raise ConfigError(
                f"categories.folder: {str(folder)[:60]!r} is not allowed here: the explorer reads only the folders "
                "that it was started with"
            )
        if isinstance(data.get("base"), str):  # of ifs: its rows, or a file of them
            raise ConfigError("generator.base: a file is not allowed here: give the rows of numbers themselves")
        data = list(data.values())
    if isinstance(data, Sequence) and not isinstance(data, str):
        for inner in data:
            _refuse_files(inner, folders)
