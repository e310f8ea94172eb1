"""Base classes of the formats of stores: :class:`Format`, and :class:`ShardFormat` for one file per piece."""

from __future__ import annotations

import io
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formulavision.storage.manifest import StoreLayout
from formulavision.storage.scene_objects import EncodedObjects
from formulavision.util.errors import StoreError, one_line

__all__ = ["SHARD_IMAGES", "Create", "Format", "Piece", "PieceReader", "Sample", "ShardFile", "ShardFormat", "reading"]

SHARD_IMAGES = 4096
"""Maximum number of images in a shard: about 33 MB of FractalDB, a few seconds of work. A million scenes are 245
shards, which ``Store`` keeps open, so that it reads them quickly in any order."""

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
    """One encoded image and its label, or one encoded scene and its objects.

    Attributes:
        name: path of the image in the store without its suffix, ``CATEGORY/CATEGORY_INSTANCE``, or a scene's number.
        label: the number of its category; -1 for a scene.
        png: the encoded image.
        objects: of a scene.
    """

    name: str
    label: int
    png: bytes
    objects: EncodedObjects | None = None


class PieceReader(NamedTuple):
    """Reads a piece by positions in it, 0 to ``piece.count - 1``.

    Attributes:
        image: gives an encoded image.
        objects: gives the objects of a scene; None in a store without scenes.
    """

    image: Callable[[int], bytes]
    objects: Callable[[int], EncodedObjects] | None = None


class Format(ABC):
    """A format of stores: how images and labels are written to files and read from them.

    To add a format: write a module beside this one, with a subclass that sets ``name`` and implements ``path``,
    ``write``, ``open_piece``, ``locate`` and ``check`` (and ``files``, where a piece has several), and enter the
    subclass in ``_CLASSES`` of ``formats/__init__.py``; ``tests/storage/test_new_format.py`` is an example. A format
    that also holds scenes (``layout.scenes``) sets ``holds_scenes`` and implements ``open_scenes``. A format defines
    only the content of the files. Folders, temporary names, checksums, locks, the manifest and resuming are the same
    for all formats (``pieces.py``, ``generation.py``), and the tests in ``tests/storage`` run over the whole table.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when pieces of the new version cannot stand in one store with those of the old one."""
    holds_scenes: ClassVar[bool] = False

    def images_per_piece(self, layout: StoreLayout) -> int:
        """Number of images in each piece but the last: whole categories up to SHARD_IMAGES, or SHARD_IMAGES."""
        if layout.scenes is not None:
            return SHARD_IMAGES
        return layout.instances * (SHARD_IMAGES // layout.instances) or SHARD_IMAGES

    def starts(self, layout: StoreLayout) -> Sequence[int]:
        """The index of the first image of each piece."""
        return range(0, layout.images, self.images_per_piece(layout))

    def plan(self, layout: StoreLayout) -> list[Piece]:
        """All pieces of a store, in order."""
        starts = self.starts(layout)
        return [
            Piece(number, first, end - first, self.path(number, len(starts), layout))
            for number, (first, end) in enumerate(pairwise([*starts, layout.images]))
        ]

    def check_names(self, layout: StoreLayout) -> None:
        """Refuse a layout with names that the format cannot hold, before anything is written.

        Raises:
            StoreError: a name is too long.
        """
        return

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

    def open_scenes(self, root: Path, piece: Piece, layout: StoreLayout) -> PieceReader:
        """Open a piece of scenes for reading, as :meth:`open_piece` opens one of images.

        Raises:
            StoreError: a file is missing or damaged; here, or from the functions of the reader.
        """
        raise NotImplementedError

    @abstractmethod
    def locate(self, root: Path, piece: Piece, layout: StoreLayout) -> dict[str, list[tuple[str, int, int]]]:
        """File in the store, offset and size in bytes of each image of a piece, as ``image``.

        Of scenes also those of the object maps, as ``objects``.

        Args:
            root: a folder with the piece's files.

        Raises:
            StoreError: a file is missing or damaged.
        """

    @abstractmethod
    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        """Problems with the names and labels inside of a written piece, as other readers see them, one line each.

        Raises:
            OSError, ValueError: the piece cannot be read.
        """


class ShardFile:
    """A shard that is open for reading, by ranges of bytes, from any thread and any process that is forked.

    It is not mapped into memory: the operating system ends a process that reads from a mapped file which another
    program has cut meanwhile. A shard that was replaced or removed is read to the end as it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size

    def __len__(self) -> int:
        """Size in bytes, as it was when the shard was opened."""
        return self._size

    def read(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on.

        Raises:
            StoreError: the shard ends before.
        """
        content = os.pread(self._file, size, start)
        while len(content) < size:  # the end of the file, or a signal
            more = os.pread(self._file, size - len(content), start + len(content))
            if not more:
                raise StoreError(f"{self.path}: is cut short: ends before byte {start + size:,}: verify the store")
            content += more
        return content

    def stream(self) -> io.BufferedReader:
        """A stream of the whole shard with a position of its own, for other libraries."""
        return io.BufferedReader(_ShardStream(self))


class _ShardStream(io.RawIOBase):
    """The shard as a file object."""

    def __init__(self, shard: ShardFile) -> None:
        self._shard, self._position = shard, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._shard)}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), len(self._shard) - self._position))
        buffer[:size] = self._shard.read(self._position, size)
        self._position += size
        return size


class ShardFormat(Format):
    """A format that writes a piece as one file, a shard, and reads each image by its byte range in that file."""

    holds_scenes = True

    @abstractmethod
    def byte_ranges(self, shard: ShardFile) -> dict[str, NDArray[np.int64]]:
        """Offset and size in bytes of each image in a shard, in order: int64 [images, 2], as ``image``.

        In a shard of scenes also those of the object maps, as ``objects``, and of what ``read_facts`` needs.

        Raises:
            ValueError: the shard is not of this format.
        """

    @abstractmethod
    def read_facts(self, shard: ShardFile, ranges: dict[str, NDArray[np.int64]]) -> Callable[[int], Any]:
        """A function from a scene's position to the facts of its objects (:meth:`EncodedObjects.facts`).

        Raises:
            ValueError: the shard is not of this format.
        """

    def open_piece(self, root: Path, piece: Piece, layout: StoreLayout) -> Callable[[int], bytes]:
        return self._open(root / piece.path, piece, scenes=False).image

    def open_scenes(self, root: Path, piece: Piece, layout: StoreLayout) -> PieceReader:
        return self._open(root / piece.path, piece, scenes=True)

    def locate(self, root: Path, piece: Piece, layout: StoreLayout) -> dict[str, list[tuple[str, int, int]]]:
        kinds = ("image",) if layout.scenes is None else ("image", "objects")
        _, ranges = self._ranges(root / piece.path, piece, kinds)
        return {what: [(piece.path, start, size) for start, size in ranges[what].tolist()] for what in kinds}

    def _ranges(
        self, path: Path, piece: Piece, kinds: tuple[str, ...]
    ) -> tuple[ShardFile, dict[str, NDArray[np.int64]]]:
        """A shard that is open, and its byte ranges."""
        with reading(path):
            shard = ShardFile(path)
            ranges = self.byte_ranges(shard)
            for what in kinds:
                found = ranges.get(what, np.empty((0, 2), np.int64))
                if len(found) != piece.count or found[-1].sum() > len(shard):
                    raise StoreError(f"{path}: is cut short: holds {len(found)} of {piece.count} images")
        return shard, ranges

    def _open(self, path: Path, piece: Piece, *, scenes: bool) -> PieceReader:
        shard, ranges = self._ranges(path, piece, ("image", "objects") if scenes else ("image",))
        with reading(path):
            facts = self.read_facts(shard, ranges) if scenes else None

        def read(what: str, position: int) -> bytes:
            return shard.read(*ranges[what][position].tolist())

        def objects(position: int) -> EncodedObjects:
            assert facts is not None
            with reading(path):
                return EncodedObjects.from_facts(read("objects", position), facts(position))

        return PieceReader(partial(read, "image"), objects if scenes else None)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell the errors of reading a file in one line.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or one_line(error)}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read: {one_line(error)}") from None
