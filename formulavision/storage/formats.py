"""What a store's format does: cut the dataset into pieces, write a piece, read an image back."""

from __future__ import annotations

import hashlib
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from formulavision.util.config import did_you_mean
from formulavision.util.errors import StoreError, one_line

if TYPE_CHECKING:
    from formulavision.storage.manifest import Layout

__all__ = [
    "DEFAULT_FORMAT",
    "FORMATS",
    "SHARD_IMAGES",
    "Format",
    "Piece",
    "Places",
    "Reader",
    "Sample",
    "ShardReader",
    "find_format",
]

FORMATS = ("parquet", "webdataset", "imagefolder")
DEFAULT_FORMAT = "parquet"
"""The fastest to write and the smallest: see docs/architecture.md."""

SHARD_IMAGES = 4096
"""Images in a shard at most: about 33 MB of FractalDB, so that a piece is seconds of work to lose."""


Places = NDArray[np.int64]
"""Offset and size of each image in a file, in bytes: [n, 2]."""


@dataclass(frozen=True)
class Piece:
    """Images ``first`` to ``first + count`` of the dataset: written by one worker, whole or not at all."""

    number: int
    first: int
    count: int

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Sample:
    """One encoded image; ``name`` is its path in a store without the suffix."""

    name: str
    label: int
    png: bytes


class Reader(ABC):
    """Reads images of a store by index, in any order; may be pickled to a worker process."""

    def __init__(self, root: Path, layout: Layout, pieces: list[Piece]) -> None:
        self.root = root
        self.layout = layout
        self.pieces = pieces

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            StoreError: it is missing or damaged.
        """

    def locate(self, index: int) -> tuple[Piece, int]:
        """Piece of an index, and its place in the piece. All pieces but the last hold the same number of images."""
        piece = self.pieces[index // self.pieces[0].count]
        return piece, index - piece.first


class ShardReader(Reader):
    """Reads images where they lie in their shards, which are mapped into memory.

    A shard may be replaced or removed while it is read, but must not be made shorter in place: the system ends a
    process that reads mapped memory which is no longer there.
    """

    OPEN = 256
    """Shards kept open: about a million images, and a quarter of the files that a process may open by default."""

    def __init__(self, root: Path, layout: Layout, pieces: list[Piece]) -> None:
        super().__init__(root, layout, pieces)
        self._shards: dict[int, tuple[mmap.mmap, Places]] = {}

    @abstractmethod
    def path(self, piece: Piece) -> Path: ...

    @abstractmethod
    def places(self, path: Path, content: mmap.mmap) -> Places:
        """Where the images of a shard lie, in order.

        Raises:
            ValueError: the shard is not as it was written.
        """

    def read(self, index: int) -> bytes:
        piece, place = self.locate(index)
        shard = self._shards.get(piece.number)
        if shard is None:
            if len(self._shards) >= self.OPEN:
                self._shards.pop(next(iter(self._shards)), None)
            shard = self._shards[piece.number] = self._open(piece)
        content, places = shard
        offset, size = places[place].tolist()
        return content[offset : offset + size]

    def _open(self, piece: Piece) -> tuple[mmap.mmap, Places]:
        path = self.path(piece)
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            places = self.places(path, content)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or one_line(error)}") from None
        except ValueError as error:
            raise StoreError(f"{path}: cannot be read: {one_line(error)}") from None
        if len(places) != piece.count or places[-1].sum() > len(content):
            raise StoreError(f"{path}: is cut short: holds {len(places)} of {piece.count} images")
        return content, places

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shards": {}}


class Format(ABC):
    """One way of laying images out on disk."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Rises where pieces of another version of it must not stand in one store."""

    def images_a_piece(self, layout: Layout) -> int:
        """Whole categories up to SHARD_IMAGES, or the largest share of a category that is not above it."""
        instances = layout.instances
        if instances <= SHARD_IMAGES:
            return instances * max(1, SHARD_IMAGES // instances)
        return SHARD_IMAGES

    def plan(self, layout: Layout) -> list[Piece]:
        """The pieces of the dataset, in order."""
        size, total = self.images_a_piece(layout), layout.images
        return [Piece(n, first, min(size, total - first)) for n, first in enumerate(range(0, total, size))]

    @abstractmethod
    def path(self, piece: Piece, layout: Layout, pieces: int) -> str:
        """Path of the piece's file or folder, relative to the store."""

    def files_of(self, path: str) -> str:
        """The files of a piece in the words of a marker's list (:class:`formulavision.util.folders.Marker`)."""
        return path

    @abstractmethod
    def write(self, target: Path, samples: Iterable[Sample], layout: Layout) -> None:
        """Write the samples to ``target``, whole or not at all, replacing what is there."""

    @abstractmethod
    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader: ...

    @abstractmethod
    def check(self, target: Path, piece: Piece, layout: Layout) -> Iterator[str]:
        """What is wrong with the names and labels in a written piece, as other readers see them: one line each.

        Raises:
            OSError, ValueError: it cannot be read.
        """

    def files(self, target: Path) -> Iterator[Path]:
        """The files of a written piece, in a fixed order."""
        yield target

    def measure(self, target: Path) -> tuple[int, str]:
        """Bytes of a written piece and the sha256 over its files' names and bytes.

        Raises:
            OSError: a file cannot be read.
        """
        size, total = 0, hashlib.sha256()
        block = memoryview(bytearray(1 << 18))
        for file in self.files(target):
            total.update(file.name.encode() + b"\0")
            with file.open("rb", buffering=0) as handle:
                while count := handle.readinto(block):
                    size += count
                    total.update(block[:count])
        return size, total.hexdigest()


@lru_cache
def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        StoreError: there is none, or the package it needs is not installed.
    """
    if name == "imagefolder":
        from formulavision.storage.imagefolder import ImageFolder

        return ImageFolder()
    if name == "webdataset":
        from formulavision.storage.webdataset import WebDataset

        return WebDataset()
    if name == "parquet":
        from formulavision.storage.parquet import Parquet

        return Parquet()
    raise StoreError(
        f"--format {name}: there is no such format{did_you_mean(name, FORMATS)}; known: {', '.join(FORMATS)}"
    )
