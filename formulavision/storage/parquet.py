"""Parquet files in the Hugging Face layout: a column ``image`` of {bytes, path} and a column ``label``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from formulavision.errors import StoreError
from formulavision.files import atomic_write
from formulavision.storage.formats import Format, Piece, Reader, Sample
from formulavision.storage.manifest import Layout

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise StoreError("--format parquet: needs pyarrow: pip install 'formulavision[parquet]'") from None

_ROW_GROUP = 64
"""Images that are read together: few enough for random access, many enough for small files."""
_KEPT_GROUPS = 32


class Parquet(Format):
    name = "parquet"

    def path(self, piece: Piece, layout: Layout, pieces: int) -> str:
        return f"data/train-{piece.number:05d}-of-{pieces:05d}.parquet"

    def write(self, target: Path, samples: Iterable[Sample], layout: Layout) -> None:
        schema = _schema(layout.category_names)
        samples = iter(samples)
        # The images are compressed already.
        with atomic_write(target) as file, pq.ParquetWriter(file, schema, compression="none") as writer:
            while rows := list(islice(samples, _ROW_GROUP)):
                images = [{"bytes": sample.png, "path": f"{sample.name}.png"} for sample in rows]
                labels = [sample.label for sample in rows]
                writer.write_table(pa.table([images, labels], schema=schema))

    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader:
        return _ParquetReader(root, layout, pieces)


def _schema(names: list[str]) -> Any:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    return pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


class _ParquetReader(Reader):
    """Reads the row group of an image, and keeps the last ones."""

    def __init__(self, root: Path, layout: Layout, pieces: list[Piece]) -> None:
        super().__init__(root, layout, pieces)
        self._groups: dict[tuple[int, int], list[bytes]] = {}

    def read(self, index: int) -> bytes:
        piece, place = self.locate(index)
        path = self.root / Parquet().path(piece, self.layout, len(self.pieces))
        key = (piece.number, place // _ROW_GROUP)
        try:
            if key not in self._groups:
                if len(self._groups) == _KEPT_GROUPS:
                    del self._groups[next(iter(self._groups))]
                self._groups[key] = _row_group(path, key[1])
            return self._groups[key][place % _ROW_GROUP]
        except (OSError, IndexError, pa.ArrowInvalid) as error:
            raise StoreError(f"{path}: is missing or damaged ({' '.join(str(error).split())[:80]})") from None


def _row_group(path: Path, number: int) -> list[bytes]:
    with pq.ParquetFile(path) as file:
        table = file.read_row_group(number, columns=["image.bytes"])
    return table.column("image").combine_chunks().field("bytes").to_pylist()
