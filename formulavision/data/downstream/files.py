"""Image files: a million of them are listed and checked in seconds, and read by their index."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.images import spread_evenly
from formulavision.data.downstream.pixels import to_rgb, why_not_rgb
from formulavision.util.errors import DownstreamError
from formulavision.util.files import is_system_leftover

__all__ = ["UNREADABLE", "ImageFiles", "images_in", "read_text", "subfolders"]

_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that PIL recognises, and decodes with another program or not at all."""

_SIZES = 100_000
_CONTENTS = 300
_MEGABYTE = 1 << 20
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""Exceptions that Pillow raises for files that are no images, or damaged ones."""


class ImageFiles:
    """An :class:`~formulavision.data.downstream.images.ImageSource` of files; the files' headers are checked.

    Args:
        folder: the folder that holds all files.
        names: paths of the files in it.
        known_as: names of the files that are the same in every layout of the dataset; None: ``names``.

    Raises:
        DownstreamError: a file is missing, is empty, or is no image; the first one, and how many more there are.
    """

    checked = 2000
    """Files whose headers are checked, at even distances."""

    def __init__(self, folder: Path, names: Sequence[str], known_as: Sequence[str] | None = None) -> None:
        self.folder = folder
        # One block of memory, which worker processes share: touching a str copies the page that it lies in.
        self.names: NDArray[np.bytes_] = np.array([os.fsencode(name) for name in names])
        self.known_as = self.names if known_as is None else np.array([os.fsencode(name) for name in known_as])
        self._check()

    def path(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.names[index]))  # noqa: PTH118 - str, as the names are

    def __call__(self, index: int) -> Image.Image:
        file = self.path(index)
        try:
            # torchvision's decoder takes a quarter less time, and is deprecated.
            with Image.open(file) as image:
                return to_rgb(image)
        except UNREADABLE as error:
            raise DownstreamError(f"{file}: cannot be decoded ({error}): replace or remove it") from None

    def content(self, indices: NDArray[np.int64]) -> bytes:
        """The files' names, and of files at even distances 100,000 sizes and the first megabyte of 300."""
        sizes = self._sizes(spread_evenly(indices, _SIZES))
        # Images without compression have the same size, whatever they show.
        pixels = hashlib.sha256()
        for index in spread_evenly(indices, _CONTENTS):
            pixels.update(self._bytes(index))
        return b"\0".join(self.known_as[indices].tolist()) + sizes.tobytes() + pixels.digest()

    def _check(self) -> None:
        """Look for empty files among 100,000 at even distances, and for unreadable headers among ``checked``.

        An unreadable file that these miss is named when it is read.
        """
        everything = np.arange(len(self.names))
        looked_at = spread_evenly(everything, _SIZES)
        empty = looked_at[self._sizes(looked_at) == 0]
        bad = [(int(index), "is empty (0 bytes)") for index in empty]
        headers = np.setdiff1d(spread_evenly(everything, self.checked), empty)
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
        except UNREADABLE as error:
            return f"is not an image that can be read ({error})"


@cache
def _suffixes() -> frozenset[str]:
    """Suffixes of the files that PIL reads, in lower case."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _NOT_DECODED)


def subfolders(folder: Path) -> list[str]:
    """Names of the subfolders, sorted, without hidden ones and those that operating systems leave behind.

    Raises:
        DownstreamError: the folder cannot be listed.
    """
    return sorted(entry.name for entry in _entries(str(folder)) if _is_folder(entry))


def images_in(folder: Path, skipped: Counter[str] | None = None) -> list[str]:
    """Paths of the images in a folder and below it, relative to it and sorted, without hidden ones.

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
        elif _is_folder(entry):
            yield from _scan(entry.path, f"{below}{entry.name}/", skipped)
        else:
            skipped[suffix or "without a suffix"] += 1


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not (e.name.startswith(".") or is_system_leftover(e.name))]
    except OSError as error:
        raise DownstreamError(f"{folder}: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # such as a link to itself
        raise DownstreamError(f"{entry.path}: {error.strerror}") from None


def read_text(file: Path) -> str:
    """The text of a dataset's list or annotation.

    Raises:
        DownstreamError: the file is missing or is not text.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DownstreamError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DownstreamError(f"{file}: is not text") from None
