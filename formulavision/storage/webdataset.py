"""Tar shards in the layout of the webdataset package: ``NAME.png`` and ``NAME.cls`` (the label in digits) an image.

The standard library's tarfile writes them, since ``webdataset.TarWriter`` imports torch; the tests read them with the
webdataset package and with timm.
"""

from __future__ import annotations

import io
import mmap
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from formulavision.storage.formats import Format, Piece, Places, Reader, Sample, ShardReader
from formulavision.storage.manifest import Layout
from formulavision.util.errors import StoreError
from formulavision.util.files import atomic_write

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
    try:
        tar.addfile(member, io.BytesIO(content))
    except ValueError as error:
        raise StoreError(f"{name}: {error} for --format webdataset: use parquet") from None


class _WebDatasetReader(ShardReader):
    def path(self, piece: Piece) -> Path:
        return self.root / f"shard-{piece.number:06d}.tar"

    def places(self, path: Path, content: mmap.mmap) -> Places:
        """Of each .png, by a walk over the headers."""
        places = []
        start = 0
        while start + _BLOCK <= len(content) and content[start]:
            header = content[start : start + _BLOCK]
            try:
                size = int(header[124:135], 8)
            except ValueError:
                raise ValueError("is no tar shard") from None
            if header[:100].partition(b"\0")[0].endswith(b".png"):  # a name of 100 bytes has no end
                places.append((start + _BLOCK, size))
            start += _BLOCK - (-size // _BLOCK) * _BLOCK
        return np.array(places, np.int64).reshape(-1, 2)
