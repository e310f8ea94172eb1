"""A PNG file for each image and a folder for each category, named as in the published FractalDB.

The field's scripts read this layout (``torchvision.datasets.ImageFolder``).

Scenes are ``images/FOLDER/NAME.png``, with their object maps in ``objects/FOLDER/NAME.png``. A folder holds 1,000
scenes, because file systems and programs are slow with folders of a million files. ``images/FOLDER/metadata.jsonl`` has
a line of JSON for each scene: ``file_name``, ``object_categories`` and ``boxes``. It lies beside the images, because
Hugging Face datasets (``load_dataset("imagefolder", data_dir="STORE/images")``) refuses names of files elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from formulavision.storage.formats.format import Create, Format, Piece, PieceReader, Sample, reading
from formulavision.storage.manifest import StoreLayout
from formulavision.storage.scene_objects import EncodedObjects
from formulavision.util.errors import StoreError

FOLDER_SCENES = 1000
"""Number of scenes in a folder, whose name is then the first digits of theirs."""
_MAX_NAME = 255
"""Maximum length of the name of a file in file systems, bytes."""
_METADATA = "metadata.jsonl"


class ImageFolder(Format):
    name = "imagefolder"
    holds_scenes = True

    def starts(self, layout: StoreLayout) -> Sequence[int]:
        if layout.scenes is not None:
            return range(0, layout.scenes, FOLDER_SCENES)
        return layout.first_of_categories()

    def check_names(self, layout: StoreLayout) -> None:
        for name in layout.longest_names():
            file = f"{name.rpartition('/')[2]}.png"
            if len(file.encode()) > _MAX_NAME:
                raise StoreError(f"{file}: name is too long for --format imagefolder: use parquet")

    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        return layout.category_names[number] if layout.scenes is None else f"images/{number:05d}"

    def files(self, piece: Piece, layout: StoreLayout) -> list[str]:
        names = [layout.name(index) for index in piece.indices]
        if layout.scenes is None:
            return sorted(f"{name}.png" for name in names)
        files = [f"{folder}/{name}.png" for folder in (piece.path, _maps(piece)) for name in names]
        return [*files, f"{piece.path}/{_METADATA}"]

    def patterns(self, piece: Piece, layout: StoreLayout) -> list[str]:
        if layout.scenes is None:
            return [f"{piece.path}/{piece.path}_*.png"]
        # ``files`` lists each file; the marker's list would be as long as the store.
        start = os.path.commonprefix([layout.name(piece.first), layout.name(piece.indices[-1])])  # noqa: RUF071
        return [f"{piece.path}/{start}*.png", f"{_maps(piece)}/{start}*.png", f"{piece.path}/{_METADATA}"]

    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        lines = []
        for sample in samples:
            folder = "" if sample.objects is None else f"{piece.path}/"
            with create(f"{folder}{sample.name}.png") as file:
                file.write(sample.png)
            if sample.objects is not None:
                with create(f"{_maps(piece)}/{sample.name}.png") as file:
                    file.write(sample.objects.png)
                lines.append(json.dumps({"file_name": f"{sample.name}.png", **sample.objects.facts()}) + "\n")
        if lines:
            with create(f"{piece.path}/{_METADATA}") as file:
                file.write("".join(lines).encode())

    def open_piece(self, root: Path, piece: Piece, layout: StoreLayout) -> Callable[[int], bytes]:
        folder = root if layout.scenes is None else root / piece.path

        def read(position: int) -> bytes:
            path = folder / f"{layout.name(piece.first + position)}.png"
            with reading(path):
                return path.read_bytes()

        return read

    def open_scenes(self, root: Path, piece: Piece, layout: StoreLayout) -> PieceReader:
        metadata = root / piece.path / _METADATA
        with reading(metadata):
            facts = _read_metadata(metadata)

        def objects(position: int) -> EncodedObjects:
            path = root / _maps(piece) / f"{layout.name(piece.first + position)}.png"
            with reading(path):
                png = path.read_bytes()
            with reading(metadata):
                return EncodedObjects.from_facts(png, facts[position])

        return PieceReader(self.open_piece(root, piece, layout), objects)

    def locate(self, root: Path, piece: Piece, layout: StoreLayout) -> dict[str, list[tuple[str, int, int]]]:
        names = [layout.name(index) for index in piece.indices]
        folders = {"image": ""} if layout.scenes is None else {"image": f"{piece.path}/", "objects": f"{_maps(piece)}/"}
        with reading(root / piece.path):
            return {
                what: [(file := f"{folder}{name}.png", 0, (root / file).stat().st_size) for name in names]
                for what, folder in folders.items()
            }

    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        if layout.scenes is None:
            return  # names and labels are those of the files
        metadata = root / piece.path / _METADATA
        if [line.get("file_name") for line in _read_metadata(metadata)] != [
            f"{layout.name(index)}.png" for index in piece.indices
        ]:
            yield f"{metadata}: its scenes are not those of the recipe, in its order"


def _maps(piece: Piece) -> str:
    """The folder of a piece's object maps."""
    return piece.path.replace("images/", "objects/", 1)


def _read_metadata(path: Path) -> list[dict[str, Any]]:
    """The lines of a folder's metadata, a scene each; OSError or ValueError where it cannot be read."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if not all(isinstance(line, dict) for line in lines):
        raise ValueError("a line is no mapping")
    return lines
