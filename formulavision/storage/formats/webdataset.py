"""Tar shards in the layout of the webdataset package: ``NAME.png`` and ``NAME.cls`` (the label in digits) per image.

A scene is ``NAME.png``, ``NAME.objects.png`` (its object map) and ``NAME.json`` (``object_categories`` and ``boxes``).

The standard library's tarfile writes them, because ``webdataset.TarWriter`` imports torch. The tests read them with the
webdataset package and with timm.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.storage.formats.format import Create, Piece, Sample, ShardFile, ShardFormat
from formulavision.storage.manifest import StoreLayout
from formulavision.util.errors import StoreError

_BLOCK = 512
_SCENE = (".png", ".objects.png", ".json")
"""The files of a scene."""
_PARTS = {".objects.png": "objects", ".png": "image", ".json": "facts"}
"""What a file is, by the end of its name; the first that fits."""


class WebDataset(ShardFormat):
    name = "webdataset"

    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        return f"shard-{number:06d}.tar"

    def check_names(self, layout: StoreLayout) -> None:
        for name in layout.longest_names():
            try:
                tarfile.TarInfo(f"{name}.png").tobuf(tarfile.USTAR_FORMAT)
            except ValueError as error:
                raise StoreError(f"{name}.png: {error} for --format webdataset: use parquet") from None

    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        with create(piece.path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                _add(tar, f"{sample.name}.png", sample.png)
                if sample.objects is None:
                    _add(tar, f"{sample.name}.cls", str(sample.label).encode())
                else:
                    _add(tar, f"{sample.name}.objects.png", sample.objects.png)
                    _add(tar, f"{sample.name}.json", json.dumps(sample.objects.facts()).encode())

    def byte_ranges(self, shard: ShardFile) -> dict[str, NDArray[np.int64]]:
        ranges: dict[str, list[tuple[int, int]]] = {"image": []}
        for name, start, size in _members(shard):
            what = next((what for suffix, what in _PARTS.items() if name.endswith(suffix)), None)
            if what is not None:
                ranges.setdefault(what, []).append((start, size))
        return {what: np.array(found, np.int64).reshape(-1, 2) for what, found in ranges.items()}

    def read_facts(self, shard: ShardFile, ranges: dict[str, NDArray[np.int64]]) -> Callable[[int], Any]:
        def read(position: int) -> Any:
            return json.loads(shard.read(*ranges["facts"][position].tolist()))

        return read

    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        path = root / piece.path
        shard = ShardFile(path)
        members = [(name, shard.read(start, size)) for name, start, size in _members(shard)]
        names = [layout.name(index) for index in piece.indices]
        if layout.scenes is not None:
            if [name for name, _ in members] != [f"{name}{suffix}" for name in names for suffix in _SCENE]:
                yield f"{path}: its scenes are not those of the recipe, in its order"
            return
        images, labels = members[::2], members[1::2]
        if [name for name, _ in images] != [f"{name}.png" for name in names]:
            yield f"{path}: its images are not those of the recipe, in its order"
        expected = [b"%d" % layout.label(index) for index in piece.indices]
        if labels != [(f"{name}.cls", label) for name, label in zip(names, expected, strict=True)]:
            yield f"{path}: its labels are not the recipe's"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _members(shard: ShardFile) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size in bytes of each file in a tar archive, read from the headers alone.

    Raises:
        ValueError: the content is no tar archive.
    """
    start = 0
    while start + _BLOCK <= len(shard) and (header := shard.read(start, _BLOCK))[0]:
        try:
            size = int(header[124:135], 8)
        except ValueError:
            raise ValueError("is no tar shard") from None
        # A name has two fields; each ends at a zero byte, or is full.
        name, prefix = (header[i:j].partition(b"\0")[0] for i, j in ((0, 100), (345, 500)))
        yield (prefix + b"/" + name if prefix else name).decode(errors="replace"), start + _BLOCK, size
        start += _BLOCK - (-size // _BLOCK) * _BLOCK
