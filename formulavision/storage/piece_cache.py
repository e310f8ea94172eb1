"""Local copies of a remote store's pieces, in a folder of limited size that several processes share.

The folder is ``stores`` in the cache folder. A piece is downloaded whole, compared with its checksum, and moved to its
place, so what is there is right. Before a download the pieces that were not used for longest are removed, until the
new one fits: all files together never take more than ``FORMULAVISION_STORE_CACHE_GB`` gigabytes. Copies of recipes,
which open stores read at any time, lie in the folder ``recipes`` and stay.

Of a store that is larger than that, training in random order would download a piece for nearly every image. It is read
by byte ranges, a request for each image: a piece is downloaded once, for the list of its ranges, which is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from formulavision.storage.formats import find_format
from formulavision.storage.formats.format import Piece, PieceReader
from formulavision.storage.manifest import RECIPE, Manifest
from formulavision.storage.pieces import files_of_piece, measure
from formulavision.storage.scene_objects import EncodedObjects
from formulavision.util.errors import ConfigError, StoreError, one_line
from formulavision.util.files import PARTIAL, atomic_write, cache_folder, partial_path
from formulavision.util.folders import locked
from formulavision.util.remote import RemoteFolder
from formulavision.util.text import byte_size

__all__ = ["PieceCache", "cache_limit", "in_use"]

_LIMIT = "FORMULAVISION_STORE_CACHE_GB"
_DEFAULT_LIMIT_GB = 50.0
_ATTEMPTS = 3
"""Downloads of a piece whose bytes are not those of its checksum."""
_WAIT_S = 0.1


def cache_limit() -> int:
    """Maximum size of the cache in bytes.

    Raises:
        ConfigError: the environment variable is no positive number.
    """
    text = os.environ.get(_LIMIT, str(_DEFAULT_LIMIT_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise ConfigError(f"{_LIMIT}: '{text}' is not allowed: must be a number of gigabytes above 0")
    return int(gigabytes * 1e9)


class PieceCache:
    """Local copies of the pieces of one store.

    Args:
        remote: the store's folder.
        manifest: of the store. Copies are known by its content, so a store has the same ones under another URL, and a
            new store under an old URL has its own.
    """

    def __init__(self, remote: RemoteFolder, manifest: Manifest) -> None:
        self.remote, self.manifest = remote, manifest
        self.is_read_by_ranges = manifest.bytes > cache_limit()
        self.key = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()[:24]

    def folder(self, piece: Piece) -> Path:
        """A folder with the piece's files, under their names in the store; they are downloaded if there is none.

        Raises:
            RemoteError: the file system does not answer, or refuses.
            StoreError: a file is missing or damaged, or the piece is larger than the cache may be.
        """
        size = self.manifest.pieces[piece.number].bytes
        place = _stores() / f"{self.key}-{piece.number:06d}-{size}"
        return _kept(place, size, lambda folder: self._download(piece, folder))

    def download_again(self, piece: Piece) -> Path:
        """:meth:`folder`, with files that are new from the store."""
        _remove(_stores() / f"{self.key}-{piece.number:06d}-{self.manifest.pieces[piece.number].bytes}")
        return self.folder(piece)

    def reader(self, piece: Piece) -> PieceReader:
        """Reads a piece, without a local copy, by byte ranges.

        Raises:
            RemoteError, StoreError: as of :meth:`folder`; here, or from the functions of the reader.
        """
        index = self._index(piece)

        def read(what: str, position: int) -> bytes:
            file, start, size = index[what][position]
            content = self.remote.read_range(file, start, start + size)
            if len(content) != size:
                raise StoreError(f"{self.remote / file}: is cut short: holds no {size} bytes at {start}")
            return content

        def objects(position: int) -> EncodedObjects:
            return EncodedObjects.from_facts(read("objects", position), index["facts"][position])

        return PieceReader(partial(read, "image"), objects if "facts" in index else None)

    def _index(self, piece: Piece) -> dict[str, Any]:
        """The places of a piece's images, and the facts of its scenes."""
        name = f"{self.key}-{piece.number:06d}-index"
        if index := _read_index(name):
            return index
        # One process makes it, while others wait: at its end it removes the piece, which another may have just found.
        with _told(_stores() / name), locked(_stores() / f"{name}.lock", lambda: None):
            return _read_index(name) or self._make_index(piece, name)

    def _make_index(self, piece: Piece, name: str) -> dict[str, Any]:
        folder, store_format, layout = self.folder(piece), find_format(self.manifest.format), self.manifest.layout
        index: dict[str, Any] = {**store_format.locate(folder, piece, layout)}
        if layout.scenes is not None and (objects := store_format.open_scenes(folder, piece, layout).objects):
            index["facts"] = [objects(position).facts() for position in range(piece.count)]
        content = json.dumps(index).encode()
        _kept(
            _stores() / f"{name}-{len(content)}",
            len(content),
            lambda place: (place / "index.json").write_bytes(content),
        )
        _remove(folder)
        return index

    def recipe_folder(self) -> Path:
        """A folder with the store's recipe and categories, which are read from the store each time."""
        names = [RECIPE, *(name for name in self.manifest.files or () if name != RECIPE)]
        contents = {name: content for name in names if (content := self.remote.read(name)) is not None}
        folder = cache_folder() / "recipes" / hashlib.sha256(repr(contents).encode()).hexdigest()[:24]
        with _told(folder):
            for name, content in contents.items():
                if not (folder / name).is_file():
                    with atomic_write(folder / name) as file:
                        file.write(content)
        return folder

    def _download(self, piece: Piece, folder: Path) -> None:
        record, store_format = self.manifest.pieces[piece.number], find_format(self.manifest.format)
        names = store_format.files(piece, self.manifest.layout)
        for _ in range(_ATTEMPTS):
            try:
                self.remote.download(names, folder)
            except FileNotFoundError:
                sizes = self.remote.sizes()
                missing = next((name for name in names if name not in sizes), piece.path)
                raise StoreError(f"{self.remote / missing}: is missing") from None
            size, sha256 = measure(files_of_piece(folder, store_format, piece, self.manifest.layout))
            if sha256 == record.sha256:
                return
        told = "its bytes are not those that were written (checksum)"
        if size != record.bytes:
            told = f"holds {size} bytes, not {record.bytes}"
        raise StoreError(f"{self.remote / piece.path}: {told}: the file is damaged")


# The folder ----------------------------------------------------------------------------------------------------------
# Entries are folders called NAME-BYTES; under a temporary name while they are filled or removed.


def _stores() -> Path:
    return cache_folder() / "stores"


def _kept(place: Path, size: int, fill: Callable[[Path], object]) -> Path:
    """An entry of the cache, which ``fill`` makes if it is missing: in one process, while the others wait."""
    while not in_use(place):
        with _told(place), locked(_lock_of(place), lambda: None):
            if not place.is_dir():
                partial = _reserve(place, size)
                try:
                    fill(partial)
                    partial.rename(place)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    return place


def _read_index(name: str) -> dict[str, Any] | None:
    for place in _stores().glob(f"{name}-*[0-9]"):
        with suppress(FileNotFoundError):  # it is removed just now
            if in_use(place):
                index: dict[str, Any] = json.loads((place / "index.json").read_bytes())
                return index
    return None


def in_use(place: Path) -> bool:
    """Note that an entry of the cache is used now. False where it was removed."""
    try:
        os.utime(place)
    except FileNotFoundError:
        return False
    return True


def _reserve(place: Path, size: int) -> Path:
    """A new temporary folder for an entry, for which there is room until the folder is removed."""
    limit = cache_limit()
    if size > limit:
        raise ConfigError(
            f"{_LIMIT}: the cache may have {byte_size(limit)}, and one piece of the store has {byte_size(size)}"
        )
    while True:
        with locked(_stores() / ".lock", lambda: None):
            if _make_room(limit - size):
                partial = partial_path(place)
                partial.mkdir(parents=True)
                return partial
        time.sleep(_WAIT_S)  # others fill the rest


def _make_room(limit: int) -> bool:
    """Remove entries, those first that were not used for longest. Returns whether the others take ``limit`` or less."""
    total, complete = 0, []
    for entry in _stores().iterdir():
        if not entry.is_dir():
            continue
        name = PARTIAL.sub("", entry.name)
        if name != entry.name and _is_left_behind(entry.with_name(name)):
            _delete(entry)
            continue
        size = int(name.rpartition("-")[2])
        total += size
        if name == entry.name:
            with suppress(FileNotFoundError):
                complete.append((entry.stat().st_mtime, size, entry))
    for _, size, entry in sorted(complete):
        if total <= limit:
            break
        _remove(entry)
        total -= size
    return total <= limit


def _remove(entry: Path) -> None:
    """Remove an entry, unless another process does. Those who read its files go on, and it takes space until then."""
    partial = partial_path(entry)
    with suppress(FileNotFoundError):
        entry.rename(partial)
    _delete(partial)


def _delete(folder: Path) -> None:
    """Delete a folder, which other processes may be deleting too."""
    while folder.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _is_left_behind(place: Path) -> bool:
    """Whether nobody fills an entry: the process that did was killed."""
    lock = FileLock(_lock_of(place))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    _lock_of(place).unlink(missing_ok=True)
    lock.release()
    return True


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


@contextmanager
def _told(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{place.parent}: the cache of stores cannot be written: {error.strerror or one_line(error)}; "
            f"FORMULAVISION_CACHE names another folder, {_LIMIT} its size"
        ) from None
