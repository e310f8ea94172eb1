"""Adding a format, as the docstring of ``Format`` tells it: the new one is written, resumed, read and verified."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from formulavision import Drawer, FormulaVisionError, Recipe, generate, verify
from formulavision.storage import formats
from formulavision.storage.formats import find_format
from formulavision.storage.formats.format import Create, Format, Piece, Sample
from formulavision.storage.manifest import StoreLayout

RECIPE = Recipe.from_dict({"generator": {"name": "perlin", "grid": 3}, "instances": 6, "canvas": {"size": 16}})


class Pairs(Format):
    """Two files a piece, in two folders: one of images, one of labels."""

    name = "pairs"

    def images_per_piece(self, layout: StoreLayout) -> int:
        return 12

    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        return f"images/{number}.bin"

    def files(self, piece: Piece, layout: StoreLayout) -> list[str]:
        return [piece.path, piece.path.replace("images/", "labels/")]

    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        images, labels = self.files(piece, layout)
        with create(images) as image_file, create(labels) as label_file:
            for sample in samples:
                image_file.write(len(sample.png).to_bytes(4, "little") + sample.png)
                label_file.write(b"%d\n" % sample.label)

    def open_piece(self, root: Path, piece: Piece, layout: StoreLayout) -> Callable[[int], bytes]:
        content, pngs = (root / piece.path).read_bytes(), []
        while content:
            size = int.from_bytes(content[:4], "little")
            pngs.append(content[4 : 4 + size])
            content = content[4 + size :]
        return pngs.__getitem__

    def locate(self, root: Path, piece: Piece, layout: StoreLayout) -> dict[str, list[tuple[str, int, int]]]:
        pngs = self.open_piece(root, piece, layout)
        sizes = [len(pngs(position)) for position in range(piece.count)]
        starts = accumulate((4 + size for size in sizes), initial=4)
        return {"image": [(piece.path, start, size) for start, size in zip(starts, sizes, strict=False)]}

    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        labels = root / self.files(piece, layout)[1]
        if labels.read_text().split() != [str(index // layout.instances) for index in piece.indices]:
            yield f"{labels}: its labels are not the recipe's"


@pytest.fixture(autouse=True)
def entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats._CLASSES, "pairs", "Pairs")
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, "pairs"))
    monkeypatch.setitem(sys.modules, "formulavision.storage.formats.pairs", SimpleNamespace(Pairs=Pairs))


def test_it_holds_the_images_and_is_verified(tmp_path: Path) -> None:
    store = generate(RECIPE, tmp_path / "store", format="pairs")
    images, labels = Drawer(RECIPE).draw_batch(range(len(RECIPE)))
    assert all(np.array_equal(store.read(i), images[i]) for i in range(len(RECIPE)))
    assert [store.label(i) for i in range(len(RECIPE))] == labels.tolist()
    assert verify(store.path, sample=0).problems == []  # another process, which draws again, does not know the format
    assert len(list(store.path.glob("labels/*"))) == len(store.pieces) == len(RECIPE) // 12 + 1
    where = find_format("pairs").locate(store.path, store.pieces[1], store.layout)["image"][3]
    assert (store.path / where[0]).read_bytes()[where[1] :][: where[2]] == store.encoded(store.pieces[1].first + 3)
    (store.path / "labels" / "1.bin").unlink()
    assert verify(store.path, sample=0).problems == [f"{store.path}/labels/1.bin: is missing"]


def test_it_is_resumed_and_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formulavision.storage import destinations

    written: list[Piece] = []

    def stop_at_the_third(*arguments: object) -> object:
        written.append(arguments[2])  # type: ignore[arg-type]
        if len(written) == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    real = destinations.write_piece
    monkeypatch.setattr(destinations, "write_piece", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate(RECIPE, tmp_path / "store", format="pairs")
    with pytest.raises(FormulaVisionError, match="is not complete"):
        verify(tmp_path / "store")
    store = generate(RECIPE, tmp_path / "store", format="pairs")
    assert [piece.number for piece in written] == [0, 1, 2, *range(2, len(store.pieces))]
    assert verify(store.path, sample=0).ok
    smaller = Recipe.from_dict({**RECIPE.to_dict(), "categories": 2})
    assert verify(generate(smaller, store.path, format="pairs", overwrite=True).path, sample=0).ok
    assert [path.name for path in (store.path / "labels").iterdir()] == ["0.bin"]


def test_a_sample_that_fails_leaves_no_file_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: np.ndarray, encoding: str) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("formulavision.storage.piece_workers.encode_png", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(RECIPE, tmp_path / "store", format="pairs")
    assert not (tmp_path / "store" / "images").exists()
