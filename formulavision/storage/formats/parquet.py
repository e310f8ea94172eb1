"""Parquet files in the layout of Hugging Face datasets: a column ``image`` of {bytes, path} and a column ``label``."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.storage.formats.format import Create, Piece, Sample, ShardFormat
from formulavision.storage.manifest import StoreLayout
from formulavision.util.errors import StoreError, one_line

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise StoreError("--format parquet: needs pyarrow: pip install pyarrow") from None

_ROW_GROUP = 64
"""Images in a row group, which foreign readers read as a whole: few for random access, many for small files."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LENGTH = struct.Struct("<I")


class Parquet(ShardFormat):
    name = "parquet"
    version = 2

    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        return f"data/train-{number:05d}-of-{pieces:05d}.parquet"

    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        schema = _schema(layout.category_names)
        samples = iter(samples)
        # PNGs are compressed already, and no two are equal. byte_ranges needs each column of a row group in one page.
        settings = {
            "compression": "none",
            "use_dictionary": False,
            "write_statistics": False,
            "data_page_size": 1 << 30,
        }
        with create(piece.path) as file, pq.ParquetWriter(file, schema, **settings) as writer:
            while rows := list(islice(samples, _ROW_GROUP)):
                pngs = pa.array([sample.png for sample in rows], pa.binary())
                paths = pa.array([f"{sample.name}.png" for sample in rows], pa.string())
                images = pa.StructArray.from_arrays([pngs, paths], fields=list(schema.field("image").type))
                labels = pa.array([sample.label for sample in rows], pa.int64())
                writer.write_table(pa.table([images, labels], schema=schema))

    def byte_ranges(self, content: mmap.mmap) -> NDArray[np.int64]:
        """Offset and size of each image, found without Parquet's reader.

        That reader decodes whole row groups: 70 times as slow for a single image. In an uncompressed page without a
        dictionary, each value follows its length in four bytes, to the end of the page (Parquet format, encoding
        PLAIN).
        """
        try:
            groups = pq.read_metadata(pa.BufferReader(pa.py_buffer(content)))
        except pa.ArrowException as error:
            raise ValueError(one_line(error)[:80]) from None
        ranges = []
        for number in range(groups.num_row_groups):
            group = groups.row_group(number)
            column = group.column(0)
            if column.has_dictionary_page:
                raise ValueError("its images are in a dictionary, as an earlier version wrote them: generate it again")
            end = column.data_page_offset + column.total_compressed_size
            # The page's header is shorter than an image and does not contain a PNG's signature.
            start = content.find(_PNG, column.data_page_offset, end) - 4
            for _ in range(group.num_rows):
                if not 0 <= start <= end - 4:
                    break
                (size,) = _LENGTH.unpack_from(content, start)
                ranges.append((start + 4, size))
                start += 4 + size
            if start != end:
                raise ValueError(f"the images of row group {number} are not where they were written")
        return np.array(ranges, np.int64).reshape(-1, 2)

    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        path = root / piece.path
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                table = file.read(columns=["label", "image.path"])
        except pa.ArrowException as error:
            raise ValueError(error) from None
        if not schema.equals(_schema(layout.category_names), check_metadata=True):
            yield f"{path}: its columns or class names are not the store's"
            return
        paths = [row["path"] for row in table["image"].to_pylist()]
        if paths != [f"{layout.name(index)}.png" for index in piece.indices]:
            yield f"{path}: its images are not those of the recipe, in its order"
        if table["label"].to_pylist() != [index // layout.instances for index in piece.indices]:
            yield f"{path}: its labels are not the recipe's"


def _schema(category_names: list[str]) -> Any:
    """Columns and types, with the features that Hugging Face datasets read."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": category_names}}
    return pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
