"""A complete store: its recipe, and its images by index."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from formulavision.recipes.recipe import Recipe
from formulavision.storage.formats import find_format
from formulavision.storage.formats.format import Piece
from formulavision.storage.manifest import Manifest, read_manifest
from formulavision.storage.png import decode_image
from formulavision.util.errors import StoreError, one_line
from formulavision.util.indices import positions

__all__ = ["Store"]


class Store:
    """A recipe rendered to disk. Images are read by index, in any order; a store can be sent to worker processes.

    A store also stands for its path, wherever a path is taken.

    Args:
        path: the store's folder.

    Raises:
        StoreError: there is no store at ``path``, or it is not complete.
    """

    OPEN_PIECES: ClassVar[int] = 256
    """Maximum number of pieces kept open: about a million images, and a quarter of the open files that a process may
    have by default."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        self.layout = self.manifest.layout
        self._open: dict[int, Callable[[int], bytes]] = {}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        images = f"{len(self):,} images of {self.layout.size} x {self.layout.size}"
        return f"Store({str(self.path)!r}: {images}, {self.manifest.format}, recipe {self.manifest.recipe_id})"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, with its categories from the store where they were read from files.

        Raises:
            ConfigError: its generator is not installed, or in another version; or the store's categories are damaged.
        """
        data = self.manifest.recipe
        categories = data.get("categories")
        if isinstance(categories, dict) and "sha256" in categories and "folder" not in categories:
            data = {**data, "categories": {**categories, "folder": str(self.path.absolute())}}
        return Recipe.from_dict(data)

    def __len__(self) -> int:
        return self.layout.images

    @cached_property
    def pieces(self) -> list[Piece]:
        """All pieces, in order."""
        records = enumerate(self.manifest.pieces)
        return [Piece(number, record.first, record.count, record.path) for number, record in records]

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
        index = int(positions([index], len(self))[0])
        data = self.encoded(index)
        layout = self.layout
        try:
            image = decode_image(data, layout.channels)
            if image.shape != (layout.size, layout.size, layout.channels):
                raise ValueError(f"it has shape {list(image.shape)}, not {[layout.size, layout.size, layout.channels]}")
        except (OSError, SyntaxError, ValueError) as error:
            raise StoreError(f"{self.path}: image {layout.name(index)} is damaged: {one_line(error)}") from None
        return image

    def encoded(self, index: int) -> bytes:
        """The encoded image (PNG) at an index from 0.

        Raises:
            StoreError: the image is missing or damaged.
        """
        # All pieces but the last hold the same number of images.
        number, position = divmod(index, self.pieces[0].count)
        read = self._open.get(number)
        if read is None:
            if len(self._open) >= self.OPEN_PIECES:
                self._open.pop(next(iter(self._open)), None)
            store_format = find_format(self.manifest.format)
            read = self._open[number] = store_format.open_piece(self.path, self.pieces[number], self.layout)
        return read(position)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
