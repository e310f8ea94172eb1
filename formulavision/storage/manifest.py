"""The manifest of a store, ``manifest.json``: its recipe, its layout and all checksums. It is written last.

It lists the sha256 of every other file and of itself, so that any damage is found.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from formulavision.generators.contract import Category
from formulavision.generators.failures import ask_for_names
from formulavision.generators.registry import plugins
from formulavision.recipes.drawing import scene_name
from formulavision.recipes.recipe import Recipe
from formulavision.storage.own_categories import category_files
from formulavision.util.config import Config, parse
from formulavision.util.errors import DamagedStoreError, StoreError, one_line
from formulavision.util.files import not_a_folder
from formulavision.util.remote import AnyFolder, RemoteFolder

__all__ = [
    "INCOMPLETE",
    "MANIFEST",
    "RECIPE",
    "Manifest",
    "PartLayout",
    "PieceRecord",
    "StoreLayout",
    "encode_manifest",
    "file_checksums",
    "layout_of",
    "origins",
    "read_manifest",
]

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
INCOMPLETE = ".incomplete"
"""Folder inside of an unfinished store, with a record of each piece that is written."""
CHECKSUM = "sha256"
"""Key of the manifest's own checksum: sha256 of the file with 64 zeros in place of the value."""
_ZEROS = "0" * 64


def _check_names(names: list[str]) -> list[str]:
    """Refuse names that cannot stand in the names of files."""
    bad = next((name for name in names if not name or name.startswith(".") or set(name) & set("/\\\0")), None)
    if bad is not None:
        raise ValueError(f"{bad!r} cannot be the name of a file")
    if len(set(names)) < len(names):
        raise ValueError("two names are the same")
    return names


_Names = Annotated[list[str], Field(min_length=1), AfterValidator(_check_names)]


class PartLayout(Config):
    """Images of one part of a recipe of several: its number of categories, and the instances that each of them has."""

    categories: int = Field(ge=1)
    instance_names: _Names

    @property
    def images(self) -> int:
        return self.categories * len(self.instance_names)


class StoreLayout(Config):
    """Names, size and channels of a store's images: enough to find and read them without the generator.

    A layout has one of three: ``instance_names``, the instances of each category; ``parts``, where each part of the
    recipe has instances of its own; or ``scenes``, their number, with the recipe's ``min_visible``.
    """

    category_names: _Names
    instance_names: _Names | None = None
    size: int = Field(ge=1)
    channels: Literal[1, 3]
    parts: list[PartLayout] | None = Field(default=None, min_length=1)
    scenes: int | None = Field(default=None, ge=1)
    min_visible: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> StoreLayout:
        if sum(given is not None for given in (self.instance_names, self.parts, self.scenes)) != 1:
            raise ValueError("has not exactly one of instance_names, parts and scenes")
        if (self.scenes is None) != (self.min_visible is None):
            raise ValueError("min_visible belongs to scenes")
        if self.parts is not None and sum(part.categories for part in self.parts) != len(self.category_names):
            raise ValueError("parts do not have all categories")
        return self

    @model_serializer(mode="wrap")
    def _given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what the layout does not have, so that manifests of one part have the bytes that they always had."""
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def images(self) -> int:
        return self.scenes or self._starts[-1][0]

    @property
    def instances(self) -> int:
        """Images per category; the largest number where the parts differ. Not for scenes."""
        return max(len(part.instance_names) for part in self._parts)

    def label(self, index: int) -> int:
        """The label of an image: the position of its category in ``category_names``. Not for scenes."""
        return self._locate(index)[0]

    def name(self, index: int) -> str:
        """Path of an image in the store without its suffix: ``CATEGORY/CATEGORY_INSTANCE``; of a scene, its number."""
        if self.scenes is not None:
            return scene_name(index)
        label, instance = self._locate(index)
        folder = self.category_names[label]
        return f"{folder}/{folder}_{instance}"

    def longest_names(self) -> Iterator[str]:
        """The longest :meth:`name` of each category, in bytes; none of scenes."""
        categories = iter(self.category_names)
        for part in self._parts if self.scenes is None else ():
            instance = max(part.instance_names, key=lambda name: len(name.encode()))
            yield from (f"{name}/{name}_{instance}" for name in islice(categories, part.categories))

    def first_of_categories(self) -> list[int]:
        """The index of the first image of each category. Not for scenes."""
        starts = zip(self._starts, self._parts, strict=False)
        return [first + k * len(part.instance_names) for (first, _), part in starts for k in range(part.categories)]

    @cached_property
    def _parts(self) -> list[PartLayout]:
        if self.instance_names is None:
            assert self.parts is not None, "scenes have no parts"
            return self.parts
        return [PartLayout(categories=len(self.category_names), instance_names=self.instance_names)]

    @cached_property
    def _starts(self) -> list[tuple[int, int]]:
        """The first index and the first label of each part; at the end, the numbers of all images and categories."""
        images = accumulate((part.images for part in self._parts), initial=0)
        categories = accumulate((part.categories for part in self._parts), initial=0)
        return list(zip(images, categories, strict=True))

    def _locate(self, index: int) -> tuple[int, str]:
        """The label and the instance's name of an image."""
        number = bisect_right(self._starts, index, key=lambda start: start[0]) - 1
        (first, label), part = self._starts[number], self._parts[number]
        category, instance = divmod(index - first, len(part.instance_names))
        return label + category, part.instance_names[instance]


def origins(recipe: Recipe) -> str:
    """Package and version of each generator that draws the recipe's images."""
    names = [part.generator.name for _, part in category_files(recipe)]
    return ", ".join(dict.fromkeys(plugins()[name].origin for name in names))


def layout_of(recipe: Recipe, categories: Sequence[Category]) -> StoreLayout:
    """The layout of a store of the recipe.

    Raises:
        PluginError: a generator raised, or two names of instances are the same, or one cannot be a part of a file's
            name.
    """
    common = {
        "category_names": [category.name for category in categories],
        "size": recipe.canvas.size,
        "channels": recipe.canvas.channels,
    }
    if recipe.is_scene:
        return StoreLayout(**common, scenes=len(recipe), min_visible=recipe.min_visible)
    parts = [
        PartLayout(
            categories=part.num_categories,
            instance_names=ask_for_names(part.generator.build(recipe.canvas, recipe.seed), part.num_instances),
        )
        for part in recipe.all_parts
    ]
    if len(parts) == 1:
        return StoreLayout(**common, instance_names=parts[0].instance_names)
    return StoreLayout(**common, parts=parts)


class PieceRecord(Config):
    """A written piece: its file or folder, its images ``first`` to ``first + count``, its size and checksum."""

    path: str
    first: int = Field(ge=0)
    count: int = Field(ge=1)
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(Config):
    """The content of ``manifest.json``."""

    formulavision: str = Field(description="version that wrote the store")
    generator_package: str = Field(description="package and version that each generator came from")
    format: str
    png: Literal["plain", "compact"] = Field(
        default="compact",
        description="encoding of the images; stores without this field were written before there was a choice",
    )
    recipe_id: str
    recipe: dict[str, Any]
    layout: StoreLayout
    pieces: list[PieceRecord] = Field(min_length=1)
    files: dict[str, str] | None = Field(
        default=None,
        description="sha256 of each other file; None: the version that wrote it had no such files or did not say",
    )

    @model_validator(mode="after")
    def _pieces_hold_all_images(self) -> Manifest:
        total = self.layout.images
        ends = list(accumulate(piece.count for piece in self.pieces))
        if ends[-1] != total or [piece.first for piece in self.pieces] != [0, *ends[:-1]]:
            raise ValueError(f"its pieces are not those of {total} images")
        return self

    @property
    def bytes(self) -> int:
        """Size of all images' files."""
        return sum(piece.bytes for piece in self.pieces)


def read_manifest(root: AnyFolder) -> Manifest:
    """The manifest of the store in ``root``.

    Raises:
        DamagedStoreError: the manifest is damaged.
        StoreError: there is no store, or it is not complete.
    """
    path = root / MANIFEST
    try:
        content = _read(root)
        data = json.loads(content)
        if isinstance(data, dict) and (CHECKSUM in data or "files" in data):
            checksum = str(data.pop(CHECKSUM, ""))
            if _checksum(content.replace(checksum.encode(), _ZEROS.encode())) != checksum:
                raise ValueError("its bytes are not those that were written (checksum)")
        return parse(Manifest, data)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedStoreError(f"{path}: is damaged: {one_line(error)}") from None


def _read(root: AnyFolder) -> bytes:
    """The bytes of the manifest.

    Raises:
        StoreError: there is none.
        OSError: it cannot be read.
    """
    if isinstance(root, RemoteFolder):
        content = root.read(MANIFEST)
        begun, there = content is None and not (root / INCOMPLETE).is_empty(), True
    else:
        content = (root / MANIFEST).read_bytes() if (root / MANIFEST).is_file() else None
        begun, there = (root / INCOMPLETE).is_dir(), root.is_dir()
    if content is not None:
        return content
    if begun:
        raise StoreError(f"{root}: is not complete; run the same 'formulavision generate' again to finish it")
    if there or isinstance(root, RemoteFolder):
        raise StoreError(f"{root}: is not a store: no {MANIFEST}")
    raise StoreError(not_a_folder(root))


def encode_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``."""
    data = {**manifest.model_dump(mode="json"), CHECKSUM: _ZEROS}
    head, zeros, tail = (json.dumps(data, indent=1) + "\n").rpartition(_ZEROS)
    return head + _checksum((head + zeros + tail).encode()) + tail


def file_checksums(root: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of files of a store, by their names.

    Raises:
        OSError: a file cannot be read.
    """
    return {name: _checksum((root / name).read_bytes()) for name in names}


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
