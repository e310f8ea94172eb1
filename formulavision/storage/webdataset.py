"""Tar shards in the layout of the webdataset package: ``NAME.png`` and ``NAME.cls`` (the label in digits) an image.

The standard library's tarfile writes them, since ``webdataset.TarWriter`` imports torch; the tests read them with the
webdataset package and with timm.
"""

from __future__ import annotations

import io
import mmap
import tarfile
from collections.abc import Iterable, Iterator
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

    def check(self, target: Path, piece: Piece, layout: Layout) -> Iterator[str]:
        with target.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            members = [(name, content[start : start + size]) for name, start, size in _members(content)]
        images, labels = members[::2], members[1::2]
        names = [layout.name(i) for i in piece.indices]
        if [name for name, _ in images] != [f"{name}.png" for name in names]:
            yield f"{target}: its images are not those of the recipe, in its order"
        if labels != [(f"{n}.cls", b"%d" % (i // layout.instances)) for n, i in zip(names, piece.indices, strict=True)]:
            yield f"{target}: its labels are not the recipe's"

    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader:
        return _WebDatasetReader(root, layout, pieces)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    try:
        tar.addfile(member, io.BytesIO(content))
    except ValueError as error:
        raise StoreError(f"{name}: {error} for --format webdataset: use parquet") from None


def _members(content: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each member of a tar shard, by a walk over the headers.

    Raises:
        ValueError: it is none.
    """
    start = 0
    while start + _BLOCK <= len(content) and content[start]:
        header = content[start : start + _BLOCK]
        try:
            size = int(header[124:135], 8)
        except ValueError:
            raise ValueError("is no tar shard") from None
        # Each of both parts of a name ends at a zero, or where its field is full.
        name, prefix = (header[i:j].partition(b"\0")[0] for i, j in ((0, 100), (345, 500)))
        yield (prefix + b"/" + name if prefix else name).decode(errors="replace"), start + _BLOCK, size
        start += _BLOCK - (-size // _BLOCK) * _BLOCK


class _WebDatasetReader(ShardReader):
    def path(self, piece: Piece) -> Path:
        return self.root / f"shard-{piece.number:06d}.tar"

    def places(self, path: Path, content: mmap.mmap) -> Places:
        """Of each .png."""
        places = [(start, size) for name, start, size in _members(content) if name.endswith(".png")]
        return np.array(places, np.int64).reshape(-1, 2)
