"""The file of digests in a plugin's tests, which shows that pixels changed and the generator's version did not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from formulavision.generators.contract import Generator
from formulavision.recipes.recipe import Recipe
from formulavision.testing.places import line_with
from formulavision.testing.subject import CANVASES, Subject, registered
from formulavision.util.errors import ConfigError, PluginError
from formulavision.util.files import write_text

__all__ = ["compare_digests", "write_digests"]

NO_DIGESTS = "has no digests of version"
_CANVASES = ("gray", "colour")


def write_digests(
    generator: str | type[Generator], file: str | PathLike[str], *, params: Mapping[str, Any] | None = None
) -> None:
    """Write recipes of a few images, the recipes' ids, and digests of the images, for ``check_generator`` to compare.

    Args:
        generator: its name or its class.
        file: JSON, in the tests of the generator's package.
        params: parameters that differ from their defaults.

    Raises:
        ConfigError: the file has other digests of this version of the generator, or is something else.
        PluginError: there is no such generator, or it raised.
    """
    file = Path(file)
    with registered(generator) as found:
        subject = Subject(found.name, dict(params or {}))
        for problem in compare_digests(subject, file) if file.exists() else ():
            if NO_DIGESTS not in problem:
                raise ConfigError(
                    f"{file}: is not written again: {problem}. If this version was never released, remove the file "
                    "first"
                )
        write_text(file, json.dumps({"generator": found.name, "images": list(_entries(subject))}, indent=1) + "\n")


def _entries(subject: Subject) -> Iterator[dict[str, Any]]:
    """A recipe for each canvas, its id, and the digest of its images."""
    for canvas in _CANVASES:
        try:
            recipe = subject.recipe(CANVASES[canvas])
        except ConfigError:
            continue  # not in gray, or not in colour
        if recipe.is_scene:
            settings = {"images": 3}
        else:
            (part,) = recipe.all_parts
            settings = {"categories": min(3, part.num_categories), "instances": min(3, part.num_instances)}
        recipe = Recipe.from_dict({**recipe.to_dict(), **settings})
        yield {"recipe": recipe.to_dict(), "id": recipe.id, "sha256": _digest(subject, recipe)}


def compare_digests(subject: Subject, file: Path) -> Iterator[str]:
    """Problems, one line each: images that changed without a new version, and recipes that changed their ids."""
    command = f"formulavision plugins check {subject.name} --digests {file} --write"
    if not file.exists():
        yield f"{file}: there is no such file: {command}"
        return
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        entries = [(entry["recipe"], entry["id"], entry["sha256"]) for entry in data["images"]]
        versions = {recipe["generator"]["version"] for recipe, _, _ in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{file}: is not a file of digests ({type(error).__name__}): remove it, and then {command}"
        return
    version = subject.generator.version
    if versions != {version}:
        if max(versions, default=0) > version:
            yield f"the version is {version}, and {file} has digests of version {max(versions)}: versions only grow"
        else:
            yield f"{file} {NO_DIGESTS} {version}: {command}"
        return
    line = line_with(subject.generator, "version")
    for written, identity, digest in entries:
        yield from _problems(subject, written, identity, digest, line)


def _problems(subject: Subject, written: dict[str, Any], identity: str, digest: str, line: str) -> Iterator[str]:
    version = subject.generator.version
    kind = "gray" if written["canvas"]["channels"] == 1 else "colour"
    try:
        recipe = Recipe.from_dict(written)
        if recipe.id != identity:
            yield (
                "recipes of this version got other ids: a parameter that was added declares its neutral value, "
                f'json_schema_extra={{"neutral": value}}{line_with(subject.generator, "Params")}'
            )
        if _digest(subject, recipe) != digest:
            yield (
                f"{kind} images changed, and the version is still {version}: raise it to {version + 1}{line}, or draw "
                "as before. If only some machines draw them otherwise: sin, exp and powers are rounded otherwise"
            )
    except (ConfigError, PluginError) as error:
        yield f"a recipe of this version is refused now, so stores of it cannot be read: {error}"


def _digest(subject: Subject, recipe: Recipe) -> str:
    digest = hashlib.sha256()
    categories = subject.categories(recipe, recipe.num_categories)
    generator = subject.build(recipe, categories)
    if recipe.is_scene:
        for index in range(len(recipe)):
            for array in subject.draw_scene(generator, categories, index):
                digest.update(array.tobytes())
    else:
        for category in categories:
            digest.update(subject.draw(generator, category, range(recipe.num_instances)).tobytes())
    return digest.hexdigest()
