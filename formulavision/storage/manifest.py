"""The manifest of a store, ``manifest.json``: its recipe, its layout and all checksums. It is written last.

It lists the sha256 of every other file and of itself, so that any damage is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from formulavision.util.config import Config, parse
from formulavision.util.errors import DamagedStoreError, StoreError, one_line
from formulavision.util.files import write_text

__all__ = [
    "INCOMPLETE",
    "MANIFEST",
    "RECIPE",
    "Manifest",
    "PieceRecord",
    "StoreLayout",
    "file_checksums",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
INCOMPLETE = ".incomplete"
"""Folder inside of an unfinished store, with a record of each piece that is written."""
CHECKSUM = "sha256"
"""Key of the manifest's own checksum: sha256 of the file with 64 zeros in place of the value."""
_ZEROS = "0" * 64


class StoreLayout(Config):
    """Names, size and channels of a store's images: enough to find and read them without the generator."""

    category_names: list[str] = Field(min_length=1)
    instance_names: list[str] = Field(min_length=1)
    size: int = Field(ge=1)
    channels: Literal[1, 3]

    @field_validator("category_names", "instance_names")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        bad = next((name for name in names if not name or name.startswith(".") or set(name) & set("/\\\0")), None)
        if bad is not None:
            raise ValueError(f"{bad!r} cannot be the name of a file")
        if len(set(names)) < len(names):
            raise ValueError("two names are the same")
        return names

    @property
    def instances(self) -> int:
        """Images per category."""
        return len(self.instance_names)

    @property
    def images(self) -> int:
        return len(self.category_names) * len(self.instance_names)

    def name(self, index: int) -> str:
        """Path of an image in the store without its suffix: ``CATEGORY/CATEGORY_INSTANCE``."""
        category, instance = divmod(index, len(self.instance_names))
        folder = self.category_names[category]
        return f"{folder}/{folder}_{self.instance_names[instance]}"


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
    generator_package: str = Field(description="package and version that the generator came from")
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
        count, total = self.pieces[0].count, self.layout.images
        expected = [(first, min(count, total - first)) for first in range(0, total, count)]
        if [(piece.first, piece.count) for piece in self.pieces] != expected:
            raise ValueError(f"its pieces are not those of {total} images")
        return self

    @property
    def bytes(self) -> int:
        """Size of all images' files."""
        return sum(piece.bytes for piece in self.pieces)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the store in ``root``.

    Raises:
        DamagedStoreError: the manifest is damaged.
        StoreError: there is no store, or it is not complete.
    """
    path = root / MANIFEST
    if not path.is_file():
        if (root / INCOMPLETE).is_dir():
            raise StoreError(f"{root}: is not complete; run the same 'formulavision generate' again to finish it")
        raise StoreError(f"{root}: is not a store: no {MANIFEST}" if root.is_dir() else f"{root}: no such folder")
    try:
        content = path.read_bytes()
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


def write_manifest(root: Path, manifest: Manifest) -> None:
    data = {**manifest.model_dump(mode="json"), CHECKSUM: _ZEROS}
    head, zeros, tail = (json.dumps(data, indent=1) + "\n").rpartition(_ZEROS)
    write_text(root / MANIFEST, head + _checksum((head + zeros + tail).encode()) + tail)


def file_checksums(root: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of files of a store, by their names.

    Raises:
        OSError: a file cannot be read.
    """
    return {name: _checksum((root / name).read_bytes()) for name in names}


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
