"""The categories in a store, so that it needs no file outside of it.

A recipe of one part has them in ``categories.json``; several parts in ``categories-0.json``, ``categories-1.json`` ...,
and a scene's background in ``categories-background.json``. They are files and not folders, because readers of image
folders take every folder for a class.
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
from formulavision.util.processes import Pools

__all__ = [
    "category_files",
    "find_background",
    "from_own_folders",
    "part_categories",
    "with_own_folders",
    "write_categories",
]


_BACKGROUND = "categories-background.json"


def category_files(recipe: Recipe) -> list[tuple[str, Part]]:
    """The name of the file in a store with the categories of each part, and of the scene's background."""
    files = [(_file(i), part) for i, part in enumerate(recipe.parts)] or [(CATEGORIES, recipe.all_parts[0])]
    if isinstance(recipe.scene, SceneSettings) and recipe.scene.background is not None:
        files.append((_BACKGROUND, recipe.scene.background))
    return files


def _file(part: int) -> str:
    return f"categories-{part}.json"


def find_background(recipe: Recipe, *, workers: int = 1, pools: Pools | None = None) -> list[Category]:
    """The categories of the scene's background; none where there is no background.

    Args, Raises: as of :func:`formulavision.recipes.categories.find_categories`.
    """
    parts = [part for name, part in category_files(recipe) if name == _BACKGROUND]
    found = [find_categories_of_part(recipe, part, workers=workers, pools=pools) for part in parts]
    return [category for categories in found for category in categories]


def write_categories(recipe: Recipe, found: list[Category], root: Path) -> None:
    """Write the categories of all parts and of the background into the store in ``root``; see
    :func:`part_categories`."""
    for name, part, own in part_categories(recipe, found):
        write_file(own, part.generator.build(recipe.canvas, recipe.seed), root, name)


def part_categories(recipe: Recipe, found: list[Category]) -> Iterator[tuple[str, Part, list[Category]]]:
    """The file in a store, the part and its categories under their own names, for each part and the background.

    Args:
        found: the categories of all parts, in the order of labels, and after them those of the background.
    """
    rest = iter(found)
    prefixes = [*category_prefixes(recipe.all_parts), ""]  # at last that of the background
    for (name, part), prefix in zip(category_files(recipe), prefixes, strict=False):
        own = itertools.islice(rest, part.num_categories)
        yield name, part, [replace(category, name=category.name.removeprefix(prefix)) for category in own]


def with_own_folders(content: dict[str, Any], root: Path) -> dict[str, Any]:
    """A recipe in plain values, whose categories that were read from files are read from the store.

    Args:
        content: without folders of categories.
        root: the store's folder; ``.`` in a file that lies there.
    """
    content = copy.deepcopy(content)
    parts, scene = content.get("parts"), content.get("scene")
    # A store of one part is a folder of categories.
    several = {_file(i): part for i, part in enumerate(parts)} if isinstance(parts, list) else {}
    named: dict[str, Any] = several or {".": content}
    if isinstance(scene, dict):
        named[_BACKGROUND] = scene.get("background")
    for name, part in named.items():
        categories = part.get("categories") if isinstance(part, dict) else None
        if isinstance(categories, dict) and "sha256" in categories and "folder" not in categories:
            categories["folder"] = str(root / name)
    return content


def from_own_folders(recipe: Recipe, root: Path) -> Recipe:
    """The recipe itself; or with the categories of the store in ``root``, where a folder of categories is missing."""
    for name, part in category_files(recipe):
        given = part.categories
        missing = given.sha256 is not None and (given.folder is None or not holds_categories(given.folder))
        if missing and (root / name).is_file():
            return Recipe.from_dict(with_own_folders(recipe.portable(), root))
    return recipe
