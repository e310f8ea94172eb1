"""A PNG an image and a folder a category, named as the published FractalDB, which the field's scripts read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from formulavision.storage.formats import Format, Piece, Reader, Sample
from formulavision.storage.manifest import INCOMPLETE, Layout
from formulavision.util.errors import StoreError
from formulavision.util.files import PARTIAL_SUFFIX, flush_folder


class ImageFolder(Format):
    name = "imagefolder"

    def images_a_piece(self, layout: Layout) -> int:
        return layout.instances

    def path(self, piece: Piece, layout: Layout, pieces: int) -> str:
        return layout.category_names[piece.number]

    def write(self, target: Path, samples: Iterable[Sample], layout: Layout) -> None:
        partial = target.parent / INCOMPLETE / (target.name + PARTIAL_SUFFIX)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for sample in samples:
            (partial / (sample.name.partition("/")[2] + ".png")).write_bytes(sample.png)
        # One flush for the whole folder: one for each of its files would cost more than drawing them.
        os.sync()
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
        flush_folder(target.parent)

    def files(self, target: Path) -> Iterator[Path]:
        yield from sorted(target.iterdir())

    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader:
        return _ImageFolderReader(root, layout, pieces)


class _ImageFolderReader(Reader):
    def read(self, index: int) -> bytes:
        path = self.root / f"{self.layout.name(index)}.png"
        try:
            return path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
