"""A complete store on disk: its recipe, and its images by index."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formulavision.recipes.recipe import Recipe
from formulavision.storage.formats import Piece, Reader, find_format
from formulavision.storage.manifest import Manifest, read_manifest
from formulavision.storage.png import decode_image
from formulavision.util.errors import StoreError

__all__ = ["Store"]


class Store:
    """A recipe materialised on disk.

    Raises:
        StoreError: there is no store at ``path``, or it is not complete.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        self.layout = self.manifest.layout

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe.

        Raises:
            ConfigError: its generator is not installed, or in another version.
        """
        return Recipe.from_dict(self.manifest.recipe)

    @cached_property
    def reader(self) -> Reader:
        pieces = [Piece(n, record.first, record.count) for n, record in enumerate(self.manifest.pieces)]
        return find_format(self.manifest.format).reader(self.path, self.layout, pieces)

    def __len__(self) -> int:
        return self.layout.images

    def label(self, index: int) -> int:
        return index // self.layout.instances

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image, uint8 [size, size, channels].

        Raises:
            IndexError: there is no such index.
            StoreError: the image is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        data = self.reader.read(index)
        try:
            return decode_image(data, self.layout.channels)
        except (OSError, SyntaxError, ValueError) as error:
            raise StoreError(f"{self.path}: image {self.layout.name(index)} is damaged: {error}") from None
