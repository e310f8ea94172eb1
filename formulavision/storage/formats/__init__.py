"""The formats of stores. ``FORMATS`` lists them, ``find_format`` gives one by name.

To add a format, see :class:`formulavision.storage.formats.format.Format`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from formulavision.storage.formats.format import Format
from formulavision.util.config import did_you_mean
from formulavision.util.errors import StoreError

__all__ = ["DEFAULT_FORMAT", "FORMATS", "find_format"]

_CLASSES = {"parquet": "Parquet", "webdataset": "WebDataset", "imagefolder": "ImageFolder"}
"""Class of each format; the module of the same name holds it, and is imported when the format is used."""

FORMATS = tuple(_CLASSES)
DEFAULT_FORMAT = "parquet"
"""The format that is fastest to write and takes the least space: see docs/architecture.md."""


@lru_cache
def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        StoreError: there is no such format, or a package that it needs is not installed.
    """
    if name not in FORMATS:
        raise StoreError(
            f"--format {name}: there is no such format{did_you_mean(name, FORMATS)}; known: {', '.join(FORMATS)}"
        )
    found: Format = getattr(import_module(f"{__name__}.{name}"), _CLASSES[name])()
    return found
