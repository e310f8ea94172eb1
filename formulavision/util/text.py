"""Text for people and programs: counts, durations and sizes; CSV and Markdown that hold other people's words."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from formulavision.util.files import write_text

__all__ = ["byte_size", "counted", "csv_text", "duration", "from_cell", "markdown_text", "read_csv", "write_csv"]


def counted(count: int, noun: str) -> str:
    """A number with a noun that agrees with it: ``1 epoch``, ``2 epochs``, ``1,000 categories``, ``0 classes``.

    Args:
        noun: in the singular, with a regular plural.
    """
    if count == 1:
        return f"1 {noun}"
    if re.search("[^aeiou]y$", noun):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if re.search('(s|x|z|sh|[^o]ch)$', noun) else 's'}"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that count: ``3.4 s``, ``45 s``, ``3 min``, ``12 min 5 s``, ``2 d 4 h``."""
    for unit, size, part, part_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if round(seconds) >= size:
            number, rest = divmod(round(seconds / part_size), size // part_size)
            return f"{number:,} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"


def byte_size(size: float) -> str:
    """Bytes with three digits that count, in powers of 1,000: ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:,.0f} TB"


# CSV -----------------------------------------------------------------------------------------------------------------

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, None as an empty cell.

    Text that a spreadsheet takes for a formula (``=``, ``+``, ``-``, ``@``, tab or line break first) gets an apostrophe
    before it, which :func:`read_csv` takes away; numbers stay as they are.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as a CSV file, whole or not at all; see :func:`csv_text`."""
    write_text(path, csv_text(rows))


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a file that :func:`write_csv` wrote, each by the names in the file's first row.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not text in UTF-8, or a row has more or fewer cells than the first.
    """
    with path.open(encoding="utf-8", newline="") as file:
        try:
            names, *rows = [[from_cell(cell) for cell in row] for row in csv.reader(file, strict=True)] or [[]]
        except csv.Error as error:
            raise ValueError(str(error)) from None
    return [dict(zip(names, row, strict=True)) for row in rows]


def _cell(value: Any) -> Any:
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def from_cell(text: str) -> str:
    """The text of a cell that :func:`csv_text` wrote."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


# Markdown ------------------------------------------------------------------------------------------------------------


def markdown_text(text: str) -> str:
    """Text in one line of Markdown, in a table too: pipes, tags and links in it are shown and not obeyed."""
    line = " ".join(text.split()).replace("|", "\\|")
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    return re.sub(r"\[(?=[^\]]*\]\()", "\\[", line)
