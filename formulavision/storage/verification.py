"""``verify``: compares a store with its manifest (files, names, labels) and with its recipe (images drawn again)."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath

import numpy as np

from formulavision.generators.contract import Category
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.categories import find_categories
from formulavision.recipes.category_files import read_folder
from formulavision.recipes.recipe import Recipe
from formulavision.storage.card import CARD, ON_THE_HUB
from formulavision.storage.formats import find_format
from formulavision.storage.formats.format import Format, Piece
from formulavision.storage.manifest import INCOMPLETE, MANIFEST, RECIPE, file_checksums, layout_of
from formulavision.storage.own_categories import find_background, part_categories
from formulavision.storage.pieces import files_of_piece, measure
from formulavision.storage.redrawing import redraw
from formulavision.storage.store import Store
from formulavision.util.errors import ConfigError, DamagedStoreError, FolderError, RemoteError, StoreError, one_line
from formulavision.util.files import is_system_leftover
from formulavision.util.folders import LOCK, MARKER, Marker
from formulavision.util.remote import AnyFolder, RemoteFolder

__all__ = ["Verification", "find_damage", "verify"]


@dataclass
class Verification:
    """The result of ``verify``.

    Attributes:
        pieces: number of pieces whose bytes were compared with their checksum.
        images: number of images that were drawn again.
        problems: one line each; empty if no problem was found.
    """

    store: Store
    pieces: int = 0
    images: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    path: str | PathLike[str],
    *,
    sample: int | None = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Compare a store with its manifest (all bytes, names and labels) and with its recipe (images drawn again).

    Images are drawn in another order than ``generate`` draws them, and in a new process, unless only this process
    knows their generator. Files that operating systems leave in folders (``.DS_Store``) are ignored.

    Args:
        path: the store, or its folder.
        sample: number of images to draw again, chosen at random from the whole store; None draws all.
        progress: called with the number of pieces and images that are done, and their total.

    Raises:
        DamagedStoreError: the manifest is damaged, or its recipe has another id than it says.
        StoreError: there is no store, or it is not complete.
        ConfigError: the recipe's generator is not installed, or in another version.
        PluginError: the generator raised.
    """
    store = Store(path)
    store_format = find_format(store.manifest.format)
    result = Verification(store)
    damaged = _damaged_files(store)
    result.problems += damaged.values()
    result.problems += _foreign_files(store, store_format)
    # Damaged categories may leave no recipe that can be drawn.
    drawable = not any(name.startswith("categories") for name in damaged)
    if drawable and store.recipe.id != store.manifest.recipe_id:
        raise DamagedStoreError(
            f"{store.root}: the recipe in the manifest has id {store.recipe.id}, not {store.manifest.recipe_id}"
        )
    total, pieces = len(store), len(store.pieces)
    count = total if sample is None else min(sample, total)
    damaged_pieces = set()
    for piece in store.pieces:
        progress(piece.number, pieces + count)
        problems = _piece(store, store_format, piece, result)
        result.problems += problems
        if problems:
            damaged_pieces.add(piece.number)
    if not drawable:
        return result
    categories = find_categories(store.recipe)
    problems = [
        *_categories(store, categories + find_background(store.recipe)),
        *_structure(store, categories, store_format),
    ]
    result.problems += problems
    if problems:
        return result  # images of another recipe would be compared
    random = random_stream(0, Stream.VERIFIED)
    indices = np.arange(total) if count == total else random.choice(total, count, replace=False)
    for drawn, problems in redraw(store, categories, np.sort(indices), damaged_pieces=damaged_pieces):
        result.images += drawn
        result.problems += problems
        progress(pieces + result.images, pieces + count)
    return result


def find_damage(store: Store) -> list[str]:
    """Compare all files of a store with the checksums in its manifest; draw nothing.

    Returns:
        One line for each damaged or missing file.
    """
    store_format, result = find_format(store.manifest.format), Verification(store)
    pieces = (problem for piece in store.pieces for problem in _piece(store, store_format, piece, result))
    return [*_damaged_files(store).values(), *pieces]


def _damaged_files(store: Store) -> dict[str, str]:
    """Problems with the files beside the images, by the files' names."""
    result = {}
    for name, sha256 in (store.manifest.files or {}).items():
        file = store.root / name
        try:
            if _checksum(store.root, name) != sha256:
                result[name] = f"{file}: its bytes are not those that were written (checksum): the file is damaged"
        except OSError as error:
            result[name] = f"{file}: {error.strerror or error}"
    try:
        if isinstance(store.root, Path):
            Marker.read(store.root)
        elif (content := store.root.read(MARKER)) is not None:
            Marker.parse(content, store.root / MARKER)
    except FolderError:
        result[MARKER] = f"{store.root / MARKER}: is damaged, or a newer version of FormulaVision wrote it"
    return result


def _checksum(root: AnyFolder, name: str) -> str:
    """sha256 of a file of a store; OSError where it cannot be read."""
    if isinstance(root, Path):
        return file_checksums(root, [name])[name]
    content = root.read(name)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return hashlib.sha256(content).hexdigest()


def _foreign_files(store: Store, store_format: Format) -> Iterator[str]:
    """Files and folders in the store's folder that do not belong to the store."""
    known = {MANIFEST, RECIPE, MARKER, LOCK, CARD, *ON_THE_HUB, *(store.manifest.files or ())}
    known.update(name for piece in store.pieces for name in store_format.files(piece, store.layout))
    innermost = {PurePosixPath(name.rpartition("/")[0]) for name in known}
    folders = {folder.as_posix() for inner in innermost for folder in (inner, *inner.parents)}
    if isinstance(store.root, RemoteFolder):
        for path in store.root.sizes():
            # A job that ended after another process had completed the store leaves its records.
            if path in known or path in folders or not path or path.startswith(f"{INCOMPLETE}/"):
                continue  # consoles of object storage make an empty file of a folder's name
            if not any(map(is_system_leftover, PurePosixPath(path).parts)):
                yield f"{store.root / path}: does not belong to the store"
        return
    for folder, inner, files in os.walk(store.root):
        inside = Path(folder).relative_to(store.root).as_posix()
        names = {name: name if inside == "." else f"{inside}/{name}" for name in sorted([*inner, *files])}
        for name, path in names.items():
            if path not in known and path not in folders and not is_system_leftover(name):
                yield f"{store.root / path}: does not belong to the store"
        inner[:] = [name for name in inner if names[name] in folders]


def _piece(store: Store, store_format: Format, piece: Piece, result: Verification) -> list[str]:
    """Problems with a piece's bytes, and with the names and labels in it."""
    if not isinstance(store.root, Path):
        return _remote_piece(store, store_format, piece, result)
    record = store.manifest.pieces[piece.number]
    files = files_of_piece(store.root, store_format, piece, store.layout)
    folders = sorted({str(file.parent) for file in files})  # of images, and of object maps
    target = " or ".join(folders) if (store.root / piece.path).is_dir() else store.root / piece.path
    try:
        if missing := [file for file in files if not file.is_file()]:
            return [f"{file}: is missing" for file in missing]
        size, sha256 = measure(files)
        result.pieces += 1
        if size != record.bytes:
            return [f"{target}: holds {size} bytes, not {record.bytes}: the file is damaged"]
        if sha256 != record.sha256:
            return [f"{target}: its bytes are not those that were written (checksum): the file is damaged"]
        return list(store_format.check(store.root, piece, store.layout))
    except OSError as error:
        return [f"{target}: {error.strerror or one_line(error)}"]
    except ValueError as error:
        return [f"{target}: cannot be read: {one_line(error)}"]


def _remote_piece(store: Store, store_format: Format, piece: Piece, result: Verification) -> list[str]:
    """Problems as :func:`_piece` finds them, in a new copy of the piece."""
    try:
        folder = store.download_again(piece)
    except RemoteError:
        raise
    except StoreError as error:
        return [str(error)]
    result.pieces += 1
    try:
        problems = list(store_format.check(folder, piece, store.layout))
    except (OSError, ValueError) as error:
        return [f"{store.root / piece.path}: cannot be read: {one_line(error)}"]
    return [problem.replace(str(folder), str(store.root)) for problem in problems]


def _categories(store: Store, found: list[Category]) -> Iterator[str]:
    """Differences between the categories in the store and those that the generators find."""
    recipe = store.recipe
    for name, part, expected in part_categories(recipe, found):
        file = store.recipe_folder / name
        if name not in (store.manifest.files or ()):
            continue
        try:
            own = read_folder(file, part.generator.build(recipe.canvas, recipe.seed))
        except ConfigError as error:
            yield str(error)
            continue
        if len(own) != len(expected):
            yield f"{file}: holds {len(own)} categories, not {len(expected)}"
        for stored, category in zip(own, expected, strict=False):
            if stored != category.name or own[stored].tobytes() != category.parameters.tobytes():
                yield (
                    f"{file}: category {stored} is not the one that '{part.generator.name}' finds here: another "
                    "version of it, or of the libraries that it needs, found it"
                )
                break


def _structure(store: Store, categories: list[Category], store_format: Format) -> Iterator[str]:
    """Differences between the recipe's file, the manifest's layout and pieces, and the recipe."""
    layout, recipe, path = store.layout, store.recipe, store.root
    try:
        written = Recipe.load(store.recipe_folder / RECIPE)
        if written.portable() != recipe.portable():
            yield f"{path / RECIPE}: is not the recipe of {MANIFEST}"
    except ConfigError as error:
        yield str(error)
    expected = layout_of(recipe, categories)
    if (layout.size, layout.channels) != (expected.size, expected.channels):
        yield (
            f"{path}: its layout says {layout.size} pixels and {layout.channels} channels, its recipe "
            f"{expected.size} and {expected.channels}"
        )
    if layout.category_names != expected.category_names:
        yield f"{path}: the names of its categories differ from the recipe's"
    if (layout.instance_names, layout.parts) != (expected.instance_names, expected.parts):
        yield f"{path}: the names of its instances differ from the recipe's"
    if (layout.scenes, layout.min_visible) != (expected.scenes, expected.min_visible):
        yield f"{path}: its layout says other numbers of scenes and of visible pixels than its recipe"
    planned = store_format.plan(layout)
    if store.pieces != planned:
        different = next((piece.path for piece in store.pieces if piece not in planned), "the number of pieces")
        yield f"{path}: its pieces are not those of the format '{store_format.name}': {different}"
