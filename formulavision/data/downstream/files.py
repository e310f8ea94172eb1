"""Image files: listed and checked in seconds where there are a million, and read by their index."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.pixels import to_rgb, why_not_rgb
from formulavision.util.errors import DownstreamError
from formulavision.util.files import is_system_leftover

__all__ = [
    "Files",
    "images_in",
    "labelled",
    "list_classes",
    "open_class_folders",
    "read_text",
    "subfolders",
    "told",
]

_NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""PIL knows these formats, and needs another program to read their pixels, or cannot."""

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
                return to_rgb(image)
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
            with Image.open(self.path(index)) as image:
                return why_not_rgb(image)
        except OSError as error:
            return error.strerror if error.strerror else "is not an image that can be read"
        except _UNREADABLE as error:
            return f"is not an image that can be read ({error})"


def _evenly(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """All of the indices, or ``most`` that lie evenly over them."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]


@cache
def _suffixes() -> frozenset[str]:
    """Of the files that PIL reads, in lower case."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _NO_PIXELS)


def subfolders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted; hidden ones, and those that operating systems leave behind, are left out.

    Raises:
        DownstreamError: the folder cannot be listed.
    """
    return sorted(entry.name for entry in _entries(str(folder)) if entry.is_dir())


def images_in(folder: Path, skipped: Counter[str] | None = None) -> list[str]:
    """Paths of the images in a folder and below it, from there, sorted; hidden ones are left out.

    Args:
        skipped: counts the other files by their suffixes.

    Raises:
        DownstreamError: the folder cannot be listed.
    """
    return sorted(_scan(str(folder), "", Counter() if skipped is None else skipped))


def _scan(folder: str, below: str, skipped: Counter[str]) -> Iterator[str]:
    # Sizes are not asked for: on a network file system, those of a million files take minutes.
    for entry in _entries(folder):
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - str, as the names are
        if suffix in _suffixes():
            yield below + entry.name
        elif entry.is_dir():
            yield from _scan(entry.path, f"{below}{entry.name}/", skipped)
        else:
            skipped[suffix or "without a suffix"] += 1


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not (e.name.startswith(".") or is_system_leftover(e.name))]
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


def open_class_folders(train: Path, test: Path, keep: Callable[[str], bool] = lambda name: True) -> Sides:
    """Two folders with the same subfolders, a subfolder a class; the labels are those of the sorted names.

    Args:
        train, test: the folders.
        keep: which classes are looked at; others may be as they are.

    Raises:
        DownstreamError: a folder has not that layout, a class is in one of them only, or an image cannot be used.
    """
    skipped: Counter[str] = Counter()
    first, second = (list_classes(folder, keep, skipped) for folder in (train, test))
    if list(first) != list(second):
        other = min(set(first) ^ set(second))
        where = (train if other in first else test).name
        raise DownstreamError(
            f"{train.parent}: class '{other}' has images in {where}/ only: both sides must have the same classes"
        )
    numbers = list(map(subfolders(train).index, first))
    return Sides(labelled(train, first), labelled(test, second), note=told(skipped), numbers=numbers)


def list_classes(folder: Path, keep: Callable[[str], bool], skipped: Counter[str]) -> dict[str, list[str]]:
    """The images of each subfolder that is kept and holds any, by its name: paths from there.

    Raises:
        DownstreamError: there are not two of them, or a folder cannot be listed.
    """
    found = {name: images_in(folder / name, skipped) for name in subfolders(folder) if keep(name)}
    classes = {name: images for name, images in found.items() if images}
    if len(classes) < 2:
        empty = [name for name in found if name not in classes]
        held = f"the one class '{next(iter(classes))}'" if classes else "no classes"
        without = f" ({', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}: no images)" if empty else ""
        raise DownstreamError(f"{folder}: holds {held}{without}: it must have a subfolder a class, at least two")
    return classes


def labelled(folder: Path, classes: Mapping[str, Sequence[str]]) -> LabelledImages:
    """The images of classes, which are subfolders.

    Raises:
        DownstreamError: an image cannot be used.
    """
    read = Files(folder, [f"{name}/{file}" for name, files in classes.items() for file in files])
    read.check()
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return LabelledImages(read, np.arange(len(labels)), labels, list(classes))


def told(skipped: Counter[str]) -> str:
    """How many files are no images, in words; nothing where there are none."""
    if not skipped:
        return ""
    kinds = ", ".join(sorted(skipped, key=lambda kind: (-skipped[kind], kind))[:3]) + ", ..." * (len(skipped) > 3)
    count = skipped.total()
    return f"{count:,} {'file' if count == 1 else 'files'} skipped: no images ({kinds})"
