"""Parquet files in the layout of Hugging Face datasets: a column ``image`` of {bytes, path} and a column ``label``.

Scenes have in place of ``label`` the columns ``objects`` (the object map, {bytes, path}), ``object_categories`` (the
label of object k at k - 1) and ``boxes`` (its left, top, right and bottom; zeros where it has no box).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.storage.formats.format import Create, Piece, Sample, ShardFile, ShardFormat
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
_HEADER = 1024
"""Bytes in which the header of a page ends."""
_LENGTH = struct.Struct("<I")


class Parquet(ShardFormat):
    name = "parquet"
    version = 2

    def path(self, number: int, pieces: int, layout: StoreLayout) -> str:
        return f"data/train-{number:05d}-of-{pieces:05d}.parquet"

    def write(self, samples: Iterable[Sample], create: Create, piece: Piece, layout: StoreLayout) -> None:
        schema = _schema_of(layout)
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
                columns = [_image_column([(sample.png, f"{sample.name}.png") for sample in rows])]
                if layout.scenes is None:
                    columns.append(pa.array([sample.label for sample in rows], pa.int64()))
                else:
                    scenes = [(sample.name, sample.objects) for sample in rows if sample.objects is not None]
                    columns.append(_image_column([(objects.png, f"{name}.png") for name, objects in scenes]))
                    for field, values in (("object_categories", "categories"), ("boxes", "boxes")):
                        lists = [getattr(objects, values).tolist() for _, objects in scenes]
                        columns.append(pa.array(lists, schema.field(field).type))
                writer.write_table(pa.table(columns, schema=schema))

    def byte_ranges(self, shard: ShardFile) -> dict[str, NDArray[np.int64]]:
        """Offset and size of each image, found without Parquet's reader.

        That reader decodes whole row groups: 70 times as slow for a single image. In an uncompressed page without a
        dictionary, each value follows its length in four bytes, to the end of the page (Parquet format, encoding
        PLAIN).
        """
        try:
            groups = pq.read_metadata(shard.stream())
        except pa.ArrowException as error:
            raise ValueError(_first_sentence(error)) from None
        ranges: dict[str, list[tuple[int, int]]] = {}
        for number in range(groups.num_row_groups):
            group = groups.row_group(number)
            for column in map(group.column, range(group.num_columns)):
                what, _, part = column.path_in_schema.partition(".")
                if part == "bytes":
                    ranges.setdefault(what, []).extend(_values_of_page(shard, column, group.num_rows))
        return {what: np.array(found, np.int64).reshape(-1, 2) for what, found in ranges.items()}

    def read_facts(self, shard: ShardFile, ranges: dict[str, NDArray[np.int64]]) -> Callable[[int], Any]:
        try:
            table = pq.read_table(shard.stream(), columns=["object_categories", "boxes"])
        except pa.ArrowException as error:
            raise ValueError(_first_sentence(error)) from None
        categories, boxes = (table[name].combine_chunks() for name in ("object_categories", "boxes"))
        starts, values = np.asarray(categories.offsets), np.asarray(categories.values)
        sides = np.asarray(boxes.flatten().flatten()).reshape(-1, 4)

        def read(position: int) -> dict[str, NDArray[np.int64]]:
            chosen = slice(starts[position], starts[position + 1])
            return {"object_categories": values[chosen], "boxes": sides[chosen]}

        return read

    def check(self, root: Path, piece: Piece, layout: StoreLayout) -> Iterator[str]:
        path = root / piece.path
        scenes = layout.scenes is not None
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                table = file.read(columns=["image.path", "objects.path"] if scenes else ["label", "image.path"])
        except pa.ArrowException as error:
            raise ValueError(error) from None
        if not schema.equals(_schema_of(layout), check_metadata=True):
            yield f"{path}: its columns or class names are not the store's"
            return
        names = [f"{layout.name(index)}.png" for index in piece.indices]
        for column in ("image", "objects") if scenes else ("image",):
            if [row["path"] for row in table[column].to_pylist()] != names:
                yield f"{path}: its images are not those of the recipe, in its order"
        if not scenes and table["label"].to_pylist() != [layout.label(index) for index in piece.indices]:
            yield f"{path}: its labels are not the recipe's"


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_DECODED = {"_type": "Image"}
"""The feature of a column that Hugging Face datasets decode to images."""


def _image_column(rows: list[tuple[bytes, str]]) -> Any:
    """A column of PNGs with their names."""
    pngs, paths = zip(*rows, strict=True)
    arrays = [pa.array(pngs, pa.binary()), pa.array(paths, pa.string())]
    return pa.StructArray.from_arrays(arrays, fields=list(_IMAGE))


def _first_sentence(error: pa.ArrowException) -> str:
    """What pyarrow says, without its advice and its addresses in C++."""
    return one_line(error).partition(". ")[0]


def _values_of_page(shard: ShardFile, column: Any, rows: int) -> Iterator[tuple[int, int]]:
    """Offset and size of each PNG in a column of a row group.

    Raises:
        ValueError: the column is not one page of PNGs without a dictionary.
    """
    if column.has_dictionary_page:
        raise ValueError("its images are in a dictionary, as an earlier version wrote them: generate it again")
    first, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    # The page's header is some tens of bytes long and does not contain a PNG's signature.
    start = first + shard.read(first, min(end - first, _HEADER)).find(_PNG) - 4
    for _ in range(rows):
        if not first <= start <= end - 4:
            break
        (size,) = _LENGTH.unpack(shard.read(start, 4))
        yield start + 4, size
        start += 4 + size
    if start != end:
        raise ValueError(f"the images of a row group are not where they were written (byte {first})")


def _schema_of(layout: StoreLayout) -> Any:
    return (_schema if layout.scenes is None else _scene_schema)(layout.category_names)


def _schema(category_names: list[str]) -> Any:
    """Columns and types, with the features that Hugging Face datasets read."""
    label = {"_type": "ClassLabel", "names": category_names}
    return _with_features({"image": (_IMAGE, _DECODED), "label": (pa.int64(), label)})


def _scene_schema(category_names: list[str]) -> Any:
    """Columns and types of scenes. Features of lists are in the form that all versions of datasets read."""
    label, side = {"_type": "ClassLabel", "names": category_names}, {"_type": "Value", "dtype": "int64"}
    numbers = pa.list_(pa.field("element", pa.int64()))  # the name that Parquet gives to what is in a list
    return _with_features(
        {
            "image": (_IMAGE, _DECODED),
            "objects": (_IMAGE, _DECODED),
            "object_categories": (numbers, [label]),
            "boxes": (pa.list_(pa.field("element", numbers)), [[side]]),
        }
    )


def _with_features(columns: dict[str, tuple[Any, Any]]) -> Any:
    """A schema from the type and the feature of each column."""
    features = {name: feature for name, (_, feature) in columns.items()}
    return pa.schema(
        [(name, kind) for name, (kind, _) in columns.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
