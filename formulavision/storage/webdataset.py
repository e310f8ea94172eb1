"""Tar shards in the layout of the webdataset package: ``NAME.png`` and ``NAME.cls`` (the label in digits) an image.

The standard library's tarfile writes them, since ``webdataset.TarWriter`` imports torch; the tests read them with the
webdataset package and with timm.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from formulavision.errors import StoreError
from formulavision.files import atomic_write
from formulavision.storage.formats import Format, Piece, Reader, Sample
from formulavision.storage.manifest import Layout

_BLOCK = 512


class WebDataset(Format):
    name = "webdataset"

    def path(self, piece: Piece, layout: Layout, pieces: int) -> str:
        return f"shard-{piece.number:06d}.tar"

    def write(self, target: Path, samples: Iterable[Sample], layout: Layout) -> None:
        with atomic_write(target) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                _add(tar, f"{sample.name}.png", sample.png)
                _add(tar, f"{sample.name}.cls", str(sample.label).encode())

    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader:
        return _WebDatasetReader(root, layout, pieces)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


class _WebDatasetReader(Reader):
    """Reads an image where it lies in its shard, found once by walking over the shard's headers."""

    def __init__(self, root: Path, layout: Layout, pieces: list[Piece]) -> None:
        super().__init__(root, layout, pieces)
        self._places: dict[int, list[tuple[int, int]]] = {}

    def read(self, index: int) -> bytes:
        piece, place = self.locate(index)
        path = self.root / f"shard-{piece.number:06d}.tar"
        if piece.number not in self._places:
            self._places[piece.number] = _image_places(path)
        places = self._places[piece.number]
        if place >= len(places):
            raise StoreError(f"{path}: is cut short: holds {len(places)} of {piece.count} images")
        offset, size = places[place]
        try:
            # A shard is opened for each image: kept open, the shards of a large store would be too many.
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
        if len(data) != size:
            raise StoreError(f"{path}: is cut short")
        return data


def _image_places(path: Path) -> list[tuple[int, int]]:
    """(offset, size) of each .png in a shard, in order."""
    places = []
    try:
        with path.open("rb") as file:
            while header := file.read(_BLOCK):
                if len(header) < _BLOCK or not header[0]:
                    break
                size = int(header[124:135], 8)
                if header[: header.index(0)].endswith(b".png"):
                    places.append((file.tell(), size))
                file.seek(-(-size // _BLOCK) * _BLOCK, os.SEEK_CUR)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise StoreError(f"{path}: is no tar shard, or is damaged") from None
    return places
