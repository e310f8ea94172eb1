"""The categories in a store: ``categories.json``, or one file for each part. So a store needs no file outside of it.

A recipe of one part has its categories in the store's folder, those of several parts are in ``parts/0``, ``parts/1``
..., and those of a scene's background in ``background``. Each of these is a folder of categories for other recipes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from formulavision.generators.contract import Category
from formulavision.recipes.categories import find_categories_of_part
from formulavision.recipes.category_files import CATEGORIES, holds_categories, write_file
from formulavision.recipes.parts import Part, category_prefixes
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.scenes import SceneSettings

__all__ = [
    "category_files",
    "category_folders",
    "find_background",
    "from_own_folders",
    "part_categories",
    "with_own_folders",
    "write_categories",
]


_BACKGROUND = "background"


def category_files(recipe: Recipe) -> list[str]:
    """The files of categories in a store of the recipe."""
    return [(Path(folder) / CATEGORIES).as_posix() for folder, _ in category_folders(recipe)]


def find_background(recipe: Recipe, *, workers: int = 1) -> list[Category]:
    """The categories of the scene's background; none where there is no background.

    Args, Raises: as of :func:`formulavision.recipes.categories.find_categories`.
    """
    parts = [part for folder, part in category_folders(recipe) if folder == _BACKGROUND]
    return [category for part in parts for category in find_categories_of_part(recipe, part, workers=workers)]


def write_categories(recipe: Recipe, found: list[Category], root: Path) -> None:
    """Write the categories of all parts and of the background into the store in ``root``; see
    :func:`part_categories`."""
    for folder, part, own in part_categories(recipe, found):
        write_file(own, part.generator.build(recipe.canvas, recipe.seed), root / folder)


def part_categories(recipe: Recipe, found: list[Category]) -> Iterator[tuple[str, Part, list[Category]]]:
    """The folder in a store, the part and its categories under their own names, for each part and the background.

    Args:
        found: the categories of all parts, in the order of labels, and after them those of the background.
    """
    rest = iter(found)
    for (folder, part), prefix in zip(
        category_folders(recipe), [*category_prefixes(recipe.all_parts), ""], strict=False
    ):
        own = itertools.islice(rest, part.num_categories)
        yield folder, part, [replace(category, name=category.name.removeprefix(prefix)) for category in own]


def with_own_folders(content: dict[str, Any], root: Path) -> dict[str, Any]:
    """A recipe in plain values, whose categories that were read from files are read from the store.

    Args:
        content: without folders of categories.
        root: the store's folder; ``.`` in a file that lies there.
    """
    content = copy.deepcopy(content)
    parts, scene = content.get("parts"), content.get("scene")
    named: dict[str, Any] = (
        {f"parts/{i}": part for i, part in enumerate(parts)} if isinstance(parts, list) else {".": content}
    )
    if isinstance(scene, dict):
        named[_BACKGROUND] = scene.get("background")
    for folder, part in named.items():
        categories = part.get("categories") if isinstance(part, dict) else None
        if isinstance(categories, dict) and "sha256" in categories and "folder" not in categories:
            categories["folder"] = str(root / folder)
    return content


def from_own_folders(recipe: Recipe, root: Path) -> Recipe:
    """The recipe itself; or with the categories of the store in ``root``, where a folder of categories is missing."""
    for folder, part in category_folders(recipe):
        given = part.categories
        missing = given.sha256 is not None and (given.folder is None or not holds_categories(given.folder))
        if missing and (root / folder / CATEGORIES).is_file():
            return Recipe.from_dict(with_own_folders(recipe.portable(), root))
    return recipe


def category_folders(recipe: Recipe) -> list[tuple[str, Part]]:
    """The folder in a store that holds the categories of each part, and of the scene's background."""
    folders = [(f"parts/{i}", part) for i, part in enumerate(recipe.parts)] or [(".", recipe.all_parts[0])]
    if isinstance(recipe.scene, SceneSettings) and recipe.scene.background is not None:
        folders.append((_BACKGROUND, recipe.scene.background))
    return folders
