"""A PNG an image and a folder a category, named as the published FractalDB, which the field's scripts read."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from formulavision.storage.formats import Format, Piece, Reader, Sample
from formulavision.storage.manifest import INCOMPLETE, Layout
from formulavision.util.errors import StoreError
from formulavision.util.files import flush_everything, flush_folder, is_system_leftover, partial_path


class ImageFolder(Format):
    name = "imagefolder"

    def images_a_piece(self, layout: Layout) -> int:
        return layout.instances

    def path(self, piece: Piece, layout: Layout, pieces: int) -> str:
        return layout.category_names[piece.number]

    def files_of(self, path: str) -> str:
        return f"{path}/{path}_*.png"

    def write(self, target: Path, samples: Iterable[Sample], layout: Layout) -> None:
        partial = partial_path(target.parent / INCOMPLETE / target.name)
        partial.mkdir(parents=True)
        for sample in samples:
            (partial / (sample.name.partition("/")[2] + ".png")).write_bytes(sample.png)
        # One flush for the whole folder: one for each of its files would cost more than drawing them.
        flush_everything()
        if target.exists():
            # With files of this piece from a run that was killed, or with somebody's, which stay.
            for file in partial.iterdir():
                file.replace(target / file.name)
            partial.rmdir()
        else:
            partial.replace(target)
        flush_folder(target.parent)

    def check(self, target: Path, piece: Piece, layout: Layout) -> Iterator[str]:
        wanted = {layout.name(i).partition("/")[2] + ".png" for i in piece.indices}
        there = {entry.name for entry in target.iterdir() if not is_system_leftover(entry.name)}
        yield from (f"{target / name}: is missing" for name in sorted(wanted - there))
        yield from (f"{target / name}: is no part of the store" for name in sorted(there - wanted))

    def files(self, target: Path) -> Iterator[Path]:
        yield from sorted(file for file in target.iterdir() if file.match(f"{glob.escape(target.name)}_*.png"))

    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader:
        return _ImageFolderReader(root, layout, pieces)


class _ImageFolderReader(Reader):
    def read(self, index: int) -> bytes:
        path = self.root / f"{self.layout.name(index)}.png"
        try:
            return path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
