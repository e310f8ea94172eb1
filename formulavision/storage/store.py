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
from formulavision.util.errors import StoreError, one_line
from formulavision.util.indices import positions

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
        """The recipe, with its categories from the store where they are not its generator's own.

        Raises:
            ConfigError: its generator is not installed, or in another version; or the store's categories are damaged.
        """
        data = self.manifest.recipe
        categories = data.get("categories")
        if isinstance(categories, dict) and "sha256" in categories and "folder" not in categories:
            data = {**data, "categories": {**categories, "folder": str(self.path.absolute())}}
        return Recipe.from_dict(data)

    @cached_property
    def reader(self) -> Reader:
        pieces = [Piece(n, record.first, record.count) for n, record in enumerate(self.manifest.pieces)]
        return find_format(self.manifest.format).reader(self.path, self.layout, pieces)

    def __len__(self) -> int:
        return self.layout.images

    def label(self, index: int) -> int:
        """The label of an image; a negative index counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
        """
        return int(positions([index], len(self))[0]) // self.layout.instances

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image, uint8 [size, size, channels]; a negative index counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
            StoreError: the image is missing or damaged.
        """
        place = int(positions([index], len(self))[0])
        data = self.reader.read(place)
        layout = self.layout
        try:
            image = decode_image(data, layout.channels)
            if image.shape != (layout.size, layout.size, layout.channels):
                raise ValueError(f"it has shape {list(image.shape)}, not {[layout.size, layout.size, layout.channels]}")
        except (OSError, SyntaxError, ValueError) as error:
            raise StoreError(f"{self.path}: image {layout.name(place)} is damaged: {one_line(error)}") from None
        return image
