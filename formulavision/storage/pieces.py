"""Writes and measures the pieces of a store in a local folder, for all formats.

A piece is written into a folder of its own below ``.incomplete``, flushed to the disk, and moved to its place. So a
piece in the store is always complete, and two processes can write the same piece at the same time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from formulavision.storage.formats.format import Format, Piece, Sample
from formulavision.storage.manifest import INCOMPLETE, PieceRecord, StoreLayout
from formulavision.util.files import flush_everything, flush_folder, partial_path

__all__ = ["files_of_piece", "measure", "write_files", "write_piece"]


def write_piece(
    root: Path, store_format: Format, piece: Piece, samples: Iterable[Sample], layout: StoreLayout
) -> PieceRecord:
    """Write a piece of the store in ``root`` atomically, replacing files of the same names.

    Args:
        samples: all images of the piece, in the order of their indices.

    Returns:
        The piece's size and checksum, for the manifest.

    Raises:
        OSError: a file cannot be written.
        StoreError: the format cannot hold a sample.
    """
    temporary = partial_path(root / INCOMPLETE / f"{piece.number:06d}")
    record = write_files(temporary, store_format, piece, samples, layout)
    _flush(files_of_piece(temporary, store_format, piece, layout))
    for entry in temporary.iterdir():
        _move(entry, root / entry.name)
    temporary.rmdir()
    for folder in {root, *(file.parent for file in files_of_piece(root, store_format, piece, layout))}:
        flush_folder(folder)
    return record


def write_files(
    folder: Path, store_format: Format, piece: Piece, samples: Iterable[Sample], layout: StoreLayout
) -> PieceRecord:
    """Write the files of a piece into a new folder, where they have their names in the store.

    Args, Returns, Raises: as of :func:`write_piece`.
    """
    made = {folder}
    folder.mkdir(parents=True)

    def create(name: str) -> BinaryIO:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True)
            made.add(path.parent)
        return path.open("wb")

    store_format.write(samples, create, piece, layout)
    size, sha256 = measure(files_of_piece(folder, store_format, piece, layout))
    return PieceRecord(path=piece.path, first=piece.first, count=piece.count, bytes=size, sha256=sha256)


def _flush(files: list[Path]) -> None:
    """Write files from the system's memory to the disk."""
    if len(files) > 1:
        flush_everything()  # costs less than flushing thousands of small files one by one
        return
    with files[0].open("rb+") as file:
        os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    """Move a file or folder to its place. Into a folder that is there already, the entries are moved one by one."""
    try:
        source.replace(target)
    except OSError:
        if not (source.is_dir() and target.is_dir()):
            raise
        for entry in source.iterdir():
            _move(entry, target / entry.name)
        source.rmdir()


def files_of_piece(root: Path, store_format: Format, piece: Piece, layout: StoreLayout) -> list[Path]:
    """The files of a piece of the store in ``root``, in the order in which :func:`measure` takes them."""
    return [root / name for name in store_format.files(piece, layout)]


def measure(files: Sequence[Path]) -> tuple[int, str]:
    """Size of files in bytes, and the sha256 over their names and contents.

    Raises:
        OSError: a file cannot be read.
    """
    size, total = 0, hashlib.sha256()
    block = memoryview(bytearray(1 << 18))
    for path in files:
        total.update(path.name.encode() + b"\0")
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                size += count
                total.update(block[:count])
    return size, total.hexdigest()
