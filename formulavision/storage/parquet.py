"""Parquet files in the Hugging Face layout: a column ``image`` of {bytes, path} and a column ``label``."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from formulavision.storage.formats import Format, Piece, Places, Reader, Sample, ShardReader
from formulavision.storage.manifest import Layout
from formulavision.util.errors import StoreError, one_line
from formulavision.util.files import atomic_write

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise StoreError("--format parquet: needs pyarrow: pip install pyarrow") from None

_ROW_GROUP = 64
"""Images that foreign readers read together: few enough for random access, many enough for small files."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LENGTH = struct.Struct("<I")


class Parquet(Format):
    name = "parquet"
    version = 2

    def path(self, piece: Piece, layout: Layout, pieces: int) -> str:
        return f"data/train-{piece.number:05d}-of-{pieces:05d}.parquet"

    def write(self, target: Path, samples: Iterable[Sample], layout: Layout) -> None:
        schema = _schema(layout.category_names)
        samples = iter(samples)
        # The images are compressed already, and no two are equal. A column of a row group is one page, for the reader.
        settings = {
            "compression": "none",
            "use_dictionary": False,
            "write_statistics": False,
            "data_page_size": 1 << 30,
        }
        with atomic_write(target) as file, pq.ParquetWriter(file, schema, **settings) as writer:
            while rows := list(islice(samples, _ROW_GROUP)):
                pngs = pa.array([sample.png for sample in rows], pa.binary())
                paths = pa.array([f"{sample.name}.png" for sample in rows], pa.string())
                images = pa.StructArray.from_arrays([pngs, paths], fields=list(schema.field("image").type))
                labels = pa.array([sample.label for sample in rows], pa.int64())
                writer.write_table(pa.table([images, labels], schema=schema))

    def check(self, target: Path, piece: Piece, layout: Layout) -> Iterator[str]:
        try:
            with pq.ParquetFile(target) as file:
                schema = file.schema_arrow
                table = file.read(columns=["label", "image.path"])
        except pa.ArrowException as error:
            raise ValueError(error) from None
        if not schema.equals(_schema(layout.category_names), check_metadata=True):
            yield f"{target}: its columns or class names are not the store's"
            return
        paths = [row["path"] for row in table["image"].to_pylist()]
        if paths != [f"{layout.name(i)}.png" for i in piece.indices]:
            yield f"{target}: its images are not those of the recipe, in its order"
        if table["label"].to_pylist() != [i // layout.instances for i in piece.indices]:
            yield f"{target}: its labels are not the recipe's"

    def reader(self, root: Path, layout: Layout, pieces: list[Piece]) -> Reader:
        return _ParquetReader(root, layout, pieces)


def _schema(names: list[str]) -> Any:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    return pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


class _ParquetReader(ShardReader):
    def path(self, piece: Piece) -> Path:
        return self.root / Parquet().path(piece, self.layout, len(self.pieces))

    def places(self, path: Path, content: mmap.mmap) -> Places:
        """Of each image, without Parquet's reader, which reads whole row groups: 70 times as slow for a single image.

        The values of an uncompressed page without a dictionary lie one after the other, each behind its length in four
        bytes (Parquet format, encoding PLAIN), to the end of the page.
        """
        try:
            groups = pq.read_metadata(path)
        except pa.ArrowException as error:
            raise ValueError(one_line(error)[:80]) from None
        places = []
        for number in range(groups.num_row_groups):
            group = groups.row_group(number)
            column = group.column(0)
            if column.has_dictionary_page:
                raise ValueError("its images are in a dictionary, as an earlier version wrote them: generate it again")
            end = column.data_page_offset + column.total_compressed_size
            # What lies before the values is shorter than an image, and has none of its signature.
            start = content.find(_PNG, column.data_page_offset, end) - 4
            for _ in range(group.num_rows):
                if not 0 <= start <= end - 4:
                    break
                (size,) = _LENGTH.unpack_from(content, start)
                places.append((start + 4, size))
                start += 4 + size
            if start != end:
                raise ValueError(f"the images of row group {number} are not where they were written")
        return np.array(places, np.int64).reshape(-1, 2)
