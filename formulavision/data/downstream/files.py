"""Image files: listed and checked in seconds where there are a million, and read by their index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.util.errors import DownstreamError

__all__ = ["Files", "images_in", "open_class_folders", "read_text", "subfolders"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SIZES = 100_000
_HEADERS = 2000
_CONTENTS = 300
_MEGABYTE = 1 << 20
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class Files:
    """Reads image files by their index.

    Args:
        folder: where they all are.
        names: their paths from there.
        known_as: what they are known by in every layout of the dataset; None: these paths.
    """

    def __init__(self, folder: Path, names: Sequence[str], known_as: Sequence[str] | None = None) -> None:
        self.folder = folder
        # One block of memory, which worker processes share: touching a str copies the page that it lies in.
        self.names: NDArray[np.bytes_] = np.array([os.fsencode(name) for name in names])
        self.known_as = self.names if known_as is None else np.array([os.fsencode(name) for name in known_as])

    def path(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.names[index]))  # noqa: PTH118 - str, as the names are

    def __call__(self, index: int) -> Image.Image:
        file = self.path(index)
        try:
            # torchvision's decoder takes a quarter less time, and is deprecated.
            with Image.open(file) as image:
                return image.convert("RGB")
        except _UNREADABLE as error:
            raise DownstreamError(f"{file}: cannot be decoded ({error}): replace or remove it") from None

    def content(self, indices: NDArray[np.int64]) -> bytes:
        """Names of the files, and of files that lie evenly over them the sizes of 100,000 and the bytes of 300."""
        sizes = self._sizes(_evenly(indices, _SIZES))
        # Images without compression have the same size whatever they show.
        pixels = hashlib.sha256()
        for index in _evenly(indices, _CONTENTS):
            pixels.update(self._bytes(index))
        return b"\0".join(self.known_as[indices].tolist()) + sizes.tobytes() + pixels.digest()

    def check(self) -> None:
        """Look for empty files among 100,000 that lie evenly over the list, and for unreadable headers among 2,000.

        What these miss is found when the image is read.

        Raises:
            DownstreamError: an image is missing, is empty, or is none; the first one, and how many more there are.
        """
        everything = np.arange(len(self.names))
        looked_at = _evenly(everything, _SIZES)
        empty = looked_at[self._sizes(looked_at) == 0]
        bad = [(int(index), "is empty (0 bytes)") for index in empty]
        headers = np.setdiff1d(_evenly(everything, _HEADERS), empty)
        bad += [(int(index), reason) for index in headers if (reason := self._wrong_with(index))]
        if bad:
            index, reason = min(bad)
            others = f", and {len(bad) - 1} more like it" if len(bad) > 1 else ""
            raise DownstreamError(f"{self.path(index)}: {reason}{others}: replace or remove it")

    def _sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        paths = [self.path(index) for index in indices]
        try:
            return np.array([os.stat(path).st_size for path in paths], dtype=np.int64)  # noqa: PTH116
        except OSError as error:
            raise DownstreamError(f"{error.filename}: {error.strerror}: replace or remove it") from None

    def _bytes(self, index: int) -> bytes:
        """The file, or the first megabyte of it."""
        try:
            with Path(self.path(index)).open("rb") as file:
                return file.read(_MEGABYTE)
        except OSError as error:
            raise DownstreamError(f"{error.filename}: {error.strerror}: replace or remove it") from None

    def _wrong_with(self, index: int) -> str | None:
        try:
            with Image.open(self.path(index)):
                return None
        except OSError as error:
            return error.strerror if error.strerror else "is not an image that can be read"
        except _UNREADABLE as error:
            return f"is not an image that can be read ({error})"


def _evenly(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """All of the indices, or ``most`` that lie evenly over them."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]


def subfolders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted; hidden ones are left out.

    Raises:
        DownstreamError: the folder cannot be listed.
    """
    return sorted(entry.name for entry in _entries(str(folder)) if entry.is_dir())


def images_in(folder: Path) -> list[str]:
    """Paths of the images in a folder and below it, from there, sorted; hidden ones are left out.

    Raises:
        DownstreamError: the folder cannot be listed.
    """
    return sorted(_scan(str(folder), ""))


def _scan(folder: str, below: str) -> Iterator[str]:
    # Sizes are not asked for: on a network file system, those of a million files take minutes.
    for entry in _entries(folder):
        if entry.name[entry.name.rfind(".") :].lower() in _SUFFIXES:
            yield below + entry.name
        elif entry.is_dir():
            yield from _scan(entry.path, f"{below}{entry.name}/")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DownstreamError(f"{folder}: {error.strerror}") from None


def read_text(file: Path) -> str:
    """A list or an annotation that belongs to a dataset.

    Raises:
        DownstreamError: it is missing or is not text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DownstreamError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DownstreamError(f"{file}: is not text") from None


def open_class_folders(train: Path, test: Path) -> Sides:
    """Two folders with the same subfolders, a subfolder a class; the labels are those of the sorted names.

    Raises:
        DownstreamError: a folder has not that layout, a class is in one of them only, or an image cannot be used.
    """
    names = subfolders(train)
    sides = _read_side(train, names), _read_side(test, subfolders(test))
    first, second = (side.class_names for side in sides)
    if first != second:
        other = min(set(first) ^ set(second))
        where = (train if other in first else test).name
        raise DownstreamError(
            f"{train.parent}: class '{other}' is in {where}/ only: both sides must have the same classes"
        )
    return Sides(*sides)


def _read_side(folder: Path, names: list[str]) -> LabelledImages:
    if not names:
        raise DownstreamError(f"{folder}: holds no classes: it must have a subfolder a class")
    if len(names) == 1:
        raise DownstreamError(f"{folder}: holds the one class '{names[0]}': there must be at least two to tell apart")
    files: list[str] = []
    counts: list[int] = []
    for name in names:
        found = images_in(folder / name)
        if not found:
            raise DownstreamError(f"{folder / name}: holds no images: put some in, or remove the class")
        files += [f"{name}/{file}" for file in found]
        counts.append(len(found))
    read = Files(folder, files)
    read.check()
    return LabelledImages(read, np.arange(len(files)), np.repeat(np.arange(len(names)), counts), names)
