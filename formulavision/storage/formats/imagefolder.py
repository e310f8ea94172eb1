"""A PNG file for each image and a folder for each category, named as in the published FractalDB.

The field's scripts read this layout (``torchvision.datasets.ImageFolder``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from formulavision.storage.formats.format import Create, Format, Piece, Sample
from formulavision.storage.manifest import StoreLayout
from formulavision.util.errors import StoreError


class ImageFolder(Format):
    name = "imagefolder"

    def images_per_piece(self, layout: StoreLayout) -> int:
        return layout.instances

    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        return layout.category_names[number]

    def files(self, piece: Piece, layout: StoreLayout) -> list[str]:
        return sorted(f"{layout.name(index)}.png" for index in piece.indices)

    def patterns(self, piece: Piece, layout: StoreLayout) -> list[str]:
        return [f"{piece.path}/{piece.path}_*.png"]

    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        for sample in samples:
            with create(f"{sample.name}.png") as file:
                file.write(sample.png)

    def open_piece(self, root: Path, piece: Piece, layout: StoreLayout) -> Callable[[int], bytes]:
        def read(position: int) -> bytes:
            path = root / f"{layout.name(piece.first + position)}.png"
            try:
                return path.read_bytes()
            except OSError as error:
                raise StoreError(f"{path}: {error.strerror}") from None

        return read

    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        yield from ()  # names and labels are those of the files
