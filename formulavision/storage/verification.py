"""Prove a store right: its files by checksum, what they say of themselves, and its images drawn again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from formulavision.generators.contract import Category
from formulavision.generators.failures import ask_for_names
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.categories import find_categories
from formulavision.recipes.category_files import CATEGORIES, read_folder
from formulavision.recipes.recipe import Recipe
from formulavision.storage.formats import Format, Piece, find_format
from formulavision.storage.manifest import MANIFEST, RECIPE, file_checksums
from formulavision.storage.redrawing import redraw
from formulavision.storage.store import Store
from formulavision.util.errors import ConfigError, FolderError, StoreError, one_line
from formulavision.util.files import is_system_leftover
from formulavision.util.folders import LOCK, MARKER, Marker

__all__ = ["Verification", "verify"]


@dataclass
class Verification:
    """What ``verify`` found.

    Attributes:
        pieces, images: how many were checked by checksum, and how many were drawn again.
        problems: one line each.
    """

    store: Store
    pieces: int = 0
    images: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    path: str | Path, *, sample: int | None = 1000, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verification:
    """Compare a store with its manifest (all bytes, names and labels) and with its recipe (images drawn again).

    Images are drawn in another order than ``generate`` draws them in, and in another process, unless their generator
    is known to this process alone. What operating systems leave in folders is no part of a store, and no problem.

    Args:
        sample: images to draw again, spread at random over the store; None: all.
        progress: called with pieces and images done, and their total.

    Raises:
        StoreError: there is no store, it is not complete, its manifest is damaged, or its recipe is not the one of the
            manifest.
        ConfigError: the recipe's generator is not installed, or in another version.
        PluginError: the generator raised.
    """
    store = Store(path)
    store_format = find_format(store.manifest.format)
    result = Verification(store)
    damaged = _damaged_files(store)
    result.problems += damaged.values()
    result.problems += _strangers(store)
    # Where the categories are damaged, there may be no recipe to draw.
    drawable = CATEGORIES not in damaged
    if drawable and store.recipe.id != store.manifest.recipe_id:
        raise StoreError(f"{path}: the recipe in the manifest has id {store.recipe.id}, not {store.manifest.recipe_id}")
    total, pieces = len(store), len(store.manifest.pieces)
    count = total if sample is None else min(sample, total)
    wrong = set()
    for number in range(pieces):
        progress(number, pieces + count)
        problems = _piece(store, store_format, number, result)
        result.problems += problems
        wrong |= {number} if problems else set()
    if not drawable:
        return result
    categories = find_categories(store.recipe)
    problems = [*_categories(store, categories), *_structure(store, categories, store_format)]
    result.problems += problems
    if problems:
        return result  # what would be drawn is not what was written
    random = random_stream(0, Stream.VERIFIED)
    indices = np.arange(total) if count == total else random.choice(total, count, replace=False)
    for done, problems in redraw(store, categories, np.sort(indices), damaged=wrong):
        result.images += done
        result.problems += problems
        progress(pieces + result.images, pieces + count)
    return result


def _damaged_files(store: Store) -> dict[str, str]:
    """What is wrong with the bytes of the files beside the images, by their names."""
    result = {}
    for name, sha256 in (store.manifest.files or {}).items():
        file = store.path / name
        try:
            if file_checksums(store.path, [name])[name] != sha256:
                result[name] = f"{file}: its bytes are not those that were written (checksum): the file is damaged"
        except OSError as error:
            result[name] = f"{file}: {error.strerror or error}"
    try:
        Marker.read(store.path)
    except FolderError:
        result[MARKER] = f"{store.path / MARKER}: is damaged, or a newer version of FormulaVision wrote it"
    return result


def _strangers(store: Store) -> Iterator[str]:
    """Files and folders that are no part of the store; those in the folder of a piece are its format's to find."""
    path, manifest = store.path, store.manifest
    pieces = {Path(record.path) for record in manifest.pieces}
    folders = {piece.parent for piece in pieces}
    known = {*map(Path, (MANIFEST, RECIPE, MARKER, LOCK, *(manifest.files or ()))), *pieces, *folders}
    for folder, inner, files in os.walk(path):
        there = Path(folder).relative_to(path)
        for name in sorted([*inner, *files]):
            if not is_system_leftover(name) and there / name not in known:
                yield f"{path / there / name}: is no part of the store"
        inner[:] = [name for name in inner if there / name in folders - pieces]


def _categories(store: Store, found: list[Category]) -> Iterator[str]:
    """How the categories in the store differ from those that the generator finds."""
    if CATEGORIES not in (store.manifest.files or ()):
        return
    try:
        own = read_folder(store.path, store.recipe.build())
    except ConfigError as error:
        yield str(error)
        return
    for name, category in zip(own, found, strict=False):
        if name != category.name or own[name].tobytes() != category.parameters.tobytes():
            yield (
                f"{store.path / CATEGORIES}: category {name} is not the one that '{store.recipe.generator.name}' finds "
                "here: another version of it, or of the libraries that it needs, found it"
            )
            return
    if len(own) != len(found):
        yield f"{store.path / CATEGORIES}: holds {len(own)} categories, not {len(found)}"


def _structure(store: Store, categories: list[Category], store_format: Format) -> Iterator[str]:
    """What is wrong with what the store says of itself, before any image is looked at."""
    layout, recipe, path = store.layout, store.recipe, store.path
    try:
        written = Recipe.load(path / RECIPE)
        if written.portable() != recipe.portable():
            yield f"{path / RECIPE}: is not the recipe of {MANIFEST}"
    except ConfigError as error:
        yield str(error)
    if (layout.size, layout.channels) != (recipe.canvas.size, recipe.canvas.channels):
        yield (
            f"{path}: its layout says {layout.size} pixels and {layout.channels} channels, its recipe "
            f"{recipe.canvas.size} and {recipe.canvas.channels}"
        )
    if layout.category_names != [category.name for category in categories]:
        yield f"{path}: its categories are named otherwise than the recipe's"
    if layout.instance_names != ask_for_names(recipe.build(), recipe.num_instances):
        yield f"{path}: its instances are named otherwise than the recipe's"
    planned = store_format.plan(layout)
    records = [(record.path, record.first, record.count) for record in store.manifest.pieces]
    if records != [(store_format.path(piece, layout, len(planned)), piece.first, piece.count) for piece in planned]:
        yield f"{path}: its pieces are not those of its format's plan"


def _piece(store: Store, store_format: Format, number: int, result: Verification) -> list[str]:
    """What is wrong with a piece's bytes, names and labels."""
    record = store.manifest.pieces[number]
    target = store.path / record.path
    problems = []
    try:
        size, sha256 = store_format.measure(target)
        result.pieces += 1
        if size != record.bytes:
            problems.append(f"{target}: holds {size} bytes, not {record.bytes}: the file is damaged")
        elif sha256 != record.sha256:
            problems.append(f"{target}: its bytes are not those that were written (checksum): the file is damaged")
        if not problems or target.is_dir():  # a damaged shard is for no reader; in a folder, names are to be told
            problems += store_format.check(target, Piece(number, record.first, record.count), store.layout)
    except OSError as error:
        problems.append(f"{target}: {error.strerror or one_line(error)}")
    except ValueError as error:
        problems.append(f"{target}: cannot be read: {one_line(error)}")
    return problems
