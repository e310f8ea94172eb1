"""Base classes of the formats of stores: :class:`Format`, and :class:`ShardFormat` for one file per piece."""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from formulavision.storage.manifest import StoreLayout
from formulavision.util.errors import StoreError, one_line

__all__ = ["SHARD_IMAGES", "Create", "Format", "Piece", "Sample", "ShardFormat"]

SHARD_IMAGES = 4096
"""Maximum number of images in a shard: about 33 MB of FractalDB, a few seconds of work."""

Create = Callable[[str], AbstractContextManager[BinaryIO]]
"""Opens a file of a piece for writing, by its name in the store. Files are written from start to end."""


@dataclass(frozen=True)
class Piece:
    """Images ``first`` to ``first + count`` of a store. One worker writes a piece, in whole or not at all.

    Attributes:
        number: the piece's position in the store, from 0.
        path: its file or folder, relative to the store.
    """

    number: int
    first: int
    count: int
    path: str

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Sample:
    """One encoded image and its label.

    Attributes:
        name: path of the image in the store without its suffix, ``CATEGORY/CATEGORY_INSTANCE``.
        label: the number of its category.
        png: the encoded image.
    """

    name: str
    label: int
    png: bytes


class Format(ABC):
    """A format of stores: how images and labels are written to files and read from them.

    To add a format: write a module beside this one, with a subclass that sets ``name`` and implements ``path``,
    ``write``, ``open_piece`` and ``check`` (and ``files``, where a piece has several), and enter the subclass in
    ``_CLASSES`` of ``formats/__init__.py``; ``tests/storage/test_new_format.py`` is an example. A format defines only
    the content of the files. Folders, temporary names, checksums, locks, the manifest and resuming are the same for all
    formats (``pieces.py``, ``generation.py``), and the tests in ``tests/storage`` run over the whole table.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when pieces of the new version cannot stand in one store with those of the old one."""

    def images_per_piece(self, layout: StoreLayout) -> int:
        """Number of images in each piece but the last: whole categories up to SHARD_IMAGES, or SHARD_IMAGES."""
        return layout.instances * (SHARD_IMAGES // layout.instances) or SHARD_IMAGES

    def plan(self, layout: StoreLayout) -> list[Piece]:
        """All pieces of a store, in order."""
        size, total = self.images_per_piece(layout), layout.images
        starts = range(0, total, size)
        return [
            Piece(number, first, min(size, total - first), self.path(number, len(starts), layout))
            for number, first in enumerate(starts)
        ]

    @abstractmethod
    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        """Path of a piece's file or folder, relative to the store, by the piece's number and the number of pieces."""

    def files(self, piece: Piece, layout: StoreLayout) -> list[str]:
        """The files of a piece, relative to the store, in the order in which its checksum takes them."""
        return [piece.path]

    def patterns(self, piece: Piece, layout: StoreLayout) -> list[str]:
        """The files of a piece as names or patterns of a marker's list (:class:`formulavision.util.folders.Marker`)."""
        return self.files(piece, layout)

    @abstractmethod
    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        """Write all samples of a piece, which come in the order of their indices, to the files that ``create`` opens.

        Raises:
            StoreError: the format cannot hold a sample.
        """

    @abstractmethod
    def open_piece(self, root: Path, piece: Piece, layout: StoreLayout) -> Callable[[int], bytes]:
        """Open a piece of the store in ``root`` for reading.

        Returns:
            A function from an image's position in the piece, 0 to ``piece.count - 1``, to its encoded bytes.

        Raises:
            StoreError: a file is missing or damaged; here, or from the returned function.
        """

    @abstractmethod
    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        """Problems with the names and labels inside of a written piece, as other readers see them, one line each.

        Raises:
            OSError, ValueError: the piece cannot be read.
        """


class ShardFormat(Format):
    """A format that writes a piece as one file, a shard, and reads each image by its byte range in the mapped file.

    A shard may be replaced or removed while it is read, but must not be shortened in place: the operating system ends
    a process that reads mapped memory which is no longer there.
    """

    @abstractmethod
    def byte_ranges(self, content: mmap.mmap) -> NDArray[np.int64]:
        """Offset and size of each image in a shard, in bytes, in order: int64 [images, 2].

        Raises:
            ValueError: the shard is not of this format.
        """

    def open_piece(self, root: Path, piece: Piece, layout: StoreLayout) -> Callable[[int], bytes]:
        path = root / piece.path
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            ranges = self.byte_ranges(content)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or one_line(error)}") from None
        except ValueError as error:
            raise StoreError(f"{path}: cannot be read: {one_line(error)}") from None
        if len(ranges) != piece.count or ranges[-1].sum() > len(content):
            raise StoreError(f"{path}: is cut short: holds {len(ranges)} of {piece.count} images")

        def read(position: int) -> bytes:
            offset, size = ranges[position].tolist()
            return content[offset : offset + size]

        return read
