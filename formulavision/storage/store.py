"""A complete store: its recipe, and its images or scenes by index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from formulavision.generators.contract import Scene
from formulavision.recipes.recipe import Recipe
from formulavision.storage.formats import find_format
from formulavision.storage.formats.format import Piece, PieceReader
from formulavision.storage.manifest import MANIFEST, Manifest, read_manifest
from formulavision.storage.own_categories import with_own_folders
from formulavision.storage.piece_cache import PieceCache, in_use
from formulavision.storage.png import decode_image, decode_object_map
from formulavision.storage.scene_objects import EncodedObjects
from formulavision.util.errors import DamagedStoreError, StoreError, one_line
from formulavision.util.indices import positions
from formulavision.util.remote import AnyFolder, RemoteFolder, folder_of

__all__ = ["Store"]


class Store:
    """A recipe rendered to disk. Images are read by index, in any order; a store can be sent to worker processes.

    A store also stands for its path, wherever a path is taken.

    Args:
        path: the store's folder, or its fsspec URL (``s3://BUCKET/FOLDER``). Of a URL, pieces are read into a cache
            folder of this machine (:class:`formulavision.storage.piece_cache.PieceCache`).

    Raises:
        StoreError: there is no store at ``path``, or it is not complete.
    """

    OPEN_PIECES: ClassVar[int] = 256
    """Maximum number of pieces kept open: about a million images, and a quarter of the open files that a process may
    have by default."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.root: AnyFolder = folder_of(path)
        self._modified = self._last_modified()
        self.manifest: Manifest = read_manifest(self.root)
        self.layout = self.manifest.layout
        self._cache = None if isinstance(self.root, Path) else PieceCache(self.root, self.manifest)
        self._open: dict[int, PieceReader] = {}
        self._folders: dict[int, Path] = {}  # of open pieces in the cache

    @property
    def path(self) -> Path:
        """The store's folder.

        Raises:
            StoreError: it is not on this machine: ``root`` has its URL.
        """
        if not isinstance(self.root, Path):
            raise StoreError(f"{self.root}: is no folder of this machine: Store.root has its URL")
        return self.root

    def __fspath__(self) -> str:
        return str(self.root)

    def __repr__(self) -> str:
        what = "images" if self.layout.scenes is None else "scenes"
        images = f"{len(self):,} {what} of {self.layout.size} x {self.layout.size}"
        return f"Store({str(self.root)!r}: {images}, {self.manifest.format}, recipe {self.manifest.recipe_id})"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, with its categories from the store where they were read from files.

        Raises:
            ConfigError: its generator is not installed, or in another version; or the store's categories are damaged.
        """
        return Recipe.from_dict(with_own_folders(self.manifest.recipe, self.recipe_folder))

    @cached_property
    def recipe_folder(self) -> Path:
        """A folder of this machine with the store's recipe and categories: the store, or a copy of these files."""
        return self.root.absolute() if isinstance(self.root, Path) else self._pieces.recipe_folder()

    @property
    def _pieces(self) -> PieceCache:
        assert self._cache is not None
        return self._cache

    def __len__(self) -> int:
        return self.layout.images

    @cached_property
    def pieces(self) -> list[Piece]:
        """All pieces, in order."""
        records = enumerate(self.manifest.pieces)
        return [Piece(number, record.first, record.count, record.path) for number, record in records]

    @cached_property
    def _starts(self) -> list[int]:
        return [record.first for record in self.manifest.pieces]

    def check_sizes(self) -> None:
        """Compare the sizes of all files with the manifest's: quick, where ``verify`` reads and draws.

        Raises:
            DamagedStoreError: a file is missing, or has another size.
        """
        store_format = find_format(self.manifest.format)
        size_of = self.root.sizes().get if isinstance(self.root, RemoteFolder) else partial(_size, self.root)
        for piece, record in zip(self.pieces, self.manifest.pieces, strict=True):
            names = store_format.files(piece, self.layout)
            found = [size_of(name) for name in names]
            missing = next((name for name, size in zip(names, found, strict=True) if size is None), None)
            if missing is None and sum(size or 0 for size in found) == record.bytes:
                continue
            told = f"{self.root / (missing or piece.path)} {'is missing' if missing else 'has another size'}"
            again = "generate into a new folder" if isinstance(self.root, RemoteFolder) else "--overwrite"
            raise DamagedStoreError(
                f"{self.root}: is damaged: {told}; 'formulavision verify' tells all of it, and {again} draws the store "
                "again"
            )

    def download_again(self, piece: Piece) -> Path:
        """A folder of this machine with a piece that is new from the store's URL.

        Raises:
            RemoteError: the file system does not answer, or refuses.
            StoreError: a file is missing or damaged.
        """
        return self._pieces.download_again(piece)

    def label(self, index: int) -> int:
        """The label of an image; a negative index counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
            StoreError: the store holds scenes, whose objects have labels (:meth:`scene`).
        """
        if self.layout.scenes is not None:
            raise StoreError(f"{self.root}: holds scenes, which have no label: read them by scene()")
        return self.layout.label(int(positions([index], len(self))[0]))

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
        with self._damaged("image", index):
            image = decode_image(data, layout.channels)
            if image.shape != (layout.size, layout.size, layout.channels):
                raise ValueError(f"it has shape {list(image.shape)}, not {[layout.size, layout.size, layout.channels]}")
        return image

    def scene(self, index: int) -> Scene:
        """The scene: its image, its object map and its objects' categories; a negative index counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
            StoreError: the scene is missing or damaged, or the store holds none.
        """
        index = int(positions([index], len(self))[0])
        image, objects, size = self.read(index), self._objects(index), self.layout.size
        with self._damaged("object map", index):
            object_map = decode_object_map(objects.png)
            if object_map.shape != (size, size):
                raise ValueError(f"it has shape {list(object_map.shape)}, not {[size, size]}")
            if object_map.max() > len(objects.categories):
                raise ValueError(f"it shows object {object_map.max()} of {len(objects.categories)}")
            if not np.all((objects.categories >= 0) & (objects.categories < len(self.layout.category_names))):
                raise ValueError(f"an object's category is none of {len(self.layout.category_names)}")
        return Scene(image, object_map, objects.categories)

    def encoded(self, index: int) -> bytes:
        """The encoded image (PNG) at an index from 0.

        Raises:
            StoreError: the image is missing or damaged.
        """
        reader, position = self._reader(index)
        return reader.image(position)

    def boxes(self, index: int) -> Int64[np.ndarray, "objects 4"]:
        """Left, top, right and bottom of each object of a scene, in pixels; right and bottom are the first outside.

        Four zeros for an object that has no box: with fewer visible pixels than the recipe's ``min_visible``. A
        negative index counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
            StoreError: the scene is missing or damaged, or the store holds none.
        """
        return self._objects(int(positions([index], len(self))[0])).boxes

    def object_labels(self, index: int) -> Int64[np.ndarray, " objects"]:
        """The label of each object of a scene, also of hidden ones; a negative index counts from the end.

        Raises: as of :meth:`boxes`.
        """
        return self._objects(int(positions([index], len(self))[0])).categories

    def _objects(self, index: int) -> EncodedObjects:
        reader, position = self._reader(index)
        if reader.objects is None:
            raise StoreError(f"{self.root}: holds images with a label each, no scenes: its recipe has no 'scene'")
        return reader.objects(position)

    def _reader(self, index: int) -> tuple[PieceReader, int]:
        """The reader of an image's piece, and the image's position in the piece."""
        number = bisect_right(self._starts, index) - 1
        piece = self.pieces[number]
        reader = self._open.get(number)
        if reader is None or (number in self._folders and not in_use(self._folders[number])):
            if len(self._open) >= self.OPEN_PIECES:
                self._open.pop(next(iter(self._open)), None)
            reader = self._open[number] = self._open_piece(piece)
        return reader, index - piece.first

    def _open_piece(self, piece: Piece) -> PieceReader:
        if isinstance(self.root, Path):
            self._check_same()
            folder = self.root
        elif self._pieces.is_read_by_ranges:
            return self._pieces.reader(piece)
        else:
            folder = self._folders[piece.number] = self._pieces.folder(piece)
        store_format = find_format(self.manifest.format)
        if self.layout.scenes is None:
            return PieceReader(store_format.open_piece(folder, piece, self.layout))
        return store_format.open_scenes(folder, piece, self.layout)

    def _check_same(self) -> None:
        """Refuse a folder into which another store was written since this one was opened."""
        modified = self._last_modified()
        if modified != self._modified and read_manifest(self.root) != self.manifest:
            raise StoreError(f"{self.root}: another store was written there since it was opened: open it again")
        self._modified = modified

    def _last_modified(self) -> int | None:
        """Time at which the manifest of a folder of this machine was written, ns; None where there is none."""
        file = self.root / MANIFEST
        return file.stat().st_mtime_ns if isinstance(file, Path) and file.is_file() else None

    @contextmanager
    def _damaged(self, what: str, index: int) -> Iterator[None]:
        """Tell in one line why what was read cannot be decoded."""
        try:
            yield
        except (OSError, SyntaxError, ValueError) as error:
            message = f"{self.root}: {what} {self.layout.name(index)} is damaged: {one_line(error)}"
            raise StoreError(message) from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_folders": {}}


def _size(root: Path, name: str) -> int | None:
    """The size of a file in bytes; None where it is missing."""
    file = root / name
    return file.stat().st_size if file.is_file() else None
