"""What a store says of itself: its recipe, its layout, and checksums. It is the last file to be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from formulavision.util.config import Config, parse
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.files import write_text

__all__ = ["INCOMPLETE", "MANIFEST", "Layout", "Manifest", "PieceRecord", "read_manifest", "write_manifest"]

MANIFEST = "manifest.json"
INCOMPLETE = ".incomplete"
"""Folder inside a store that is there as long as the store is not complete; it records the pieces that are."""


class Layout(Config):
    """What is needed to find an image, without the generator that drew it."""

    category_names: list[str]
    instance_names: list[str]
    size: int
    channels: int

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
    first: int
    count: int
    bytes: int
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
    pieces: list[PieceRecord]

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
        return parse(Manifest, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ConfigError) as error:
        raise StoreError(f"{path}: is damaged: {error}") from None


def write_manifest(root: Path, manifest: Manifest) -> None:
    write_text(root / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
