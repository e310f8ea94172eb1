"""What a store says of itself: its recipe, its layout, and checksums. It is the last file to be written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from formulavision.util.config import Config, parse
from formulavision.util.errors import StoreError, one_line
from formulavision.util.files import write_text

__all__ = [
    "INCOMPLETE",
    "MANIFEST",
    "RECIPE",
    "Layout",
    "Manifest",
    "PieceRecord",
    "file_checksums",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
RECIPE = "recipe.yaml"
INCOMPLETE = ".incomplete"
"""Folder inside a store that is there as long as the store is not complete; it records the pieces that are."""


class Layout(Config):
    """What is needed to find an image, without the generator that drew it."""

    category_names: list[str] = Field(min_length=1)
    instance_names: list[str] = Field(min_length=1)
    size: int = Field(ge=1)
    channels: Literal[1, 3]

    @field_validator("category_names", "instance_names")
    @classmethod
    def _are_names(cls, names: list[str]) -> list[str]:
        bad = next((name for name in names if not name or name.startswith(".") or set(name) & set("/\\\0")), None)
        if bad is not None:
            raise ValueError(f"{bad!r} is no name of a file")
        if len(set(names)) < len(names):
            raise ValueError("a name is there twice")
        return names

    @property
    def instances(self) -> int:
        return len(self.instance_names)

    @property
    def images(self) -> int:
        return len(self.category_names) * len(self.instance_names)

    def name(self, index: int) -> str:
        """Path of an image without its suffix."""
        category, instance = divmod(index, len(self.instance_names))
        folder = self.category_names[category]
        return f"{folder}/{folder}_{self.instance_names[instance]}"


class PieceRecord(Config):
    """A written piece: images ``first`` to ``first + count``."""

    path: str
    first: int = Field(ge=0)
    count: int = Field(ge=1)
    bytes: int = Field(ge=0)
    sha256: str


class Manifest(Config):
    """A complete store."""

    formulavision: str = Field(description="version that wrote it")
    generator_package: str = Field(description="package and version that the generator came from")
    format: str
    png: Literal["plain", "compact"] = Field(
        "compact",
        description="encoding of the images; stores without this field were written before there was a choice",
    )
    recipe_id: str
    recipe: dict[str, Any]
    layout: Layout
    pieces: list[PieceRecord] = Field(min_length=1)
    files: dict[str, str] | None = Field(
        None, description="sha256 of each other file; None: the version that wrote it had no such files or did not say"
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
        return sum(piece.bytes for piece in self.pieces)


def read_manifest(root: Path) -> Manifest:
    """The manifest of the store in ``root``.

    Raises:
        StoreError: there is no store, it is not complete, or its manifest is damaged.
    """
    path = root / MANIFEST
    if not path.is_file():
        if (root / INCOMPLETE).is_dir():
            raise StoreError(f"{root}: is not complete; run the same 'formulavision generate' again to finish it")
        raise StoreError(f"{root}: is no store: there is no {MANIFEST}" if root.is_dir() else f"{root}: no such folder")
    try:
        content = path.read_bytes()
        data = json.loads(content)
        if isinstance(data, dict) and (CHECKSUM in data or "files" in data):
            checksum = str(data.pop(CHECKSUM, ""))
            if _checksum(content.replace(checksum.encode(), _NO_CHECKSUM)) != checksum:
                raise ValueError("its bytes are not those that were written (checksum)")
        return parse(Manifest, data)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: is damaged: {one_line(error)}") from None


CHECKSUM = "sha256"
"""Key of the manifest's own checksum: sha256 of the file with this value as zeros."""
_NO_CHECKSUM = b"0" * 64


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_manifest(root: Path, manifest: Manifest) -> None:
    data = {**manifest.model_dump(mode="json"), CHECKSUM: _NO_CHECKSUM.decode()}
    head, zeros, tail = (json.dumps(data, indent=1) + "\n").rpartition(_NO_CHECKSUM.decode())
    write_text(root / MANIFEST, head + _checksum((head + zeros + tail).encode()) + tail)


def file_checksums(root: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of files of a store, by their names.

    Raises:
        OSError: one cannot be read.
    """
    return {name: _checksum((root / name).read_bytes()) for name in names}
