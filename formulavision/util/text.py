"""Other people's words in CSV files and in Markdown, where they must stay words."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["csv_text", "from_cell", "markdown_text"]

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV.

    Text that a spreadsheet takes for a formula (``=``, ``+``, ``-``, ``@``, tab or line break first) gets an apostrophe
    before it, which :func:`from_cell` takes away; numbers stay as they are.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def from_cell(text: str) -> str:
    """The text of a cell that :func:`csv_text` wrote."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def markdown_text(text: str) -> str:
    """Text in one line of Markdown, in a table too: pipes, tags and links in it are shown and not obeyed."""
    line = " ".join(text.split()).replace("|", "\\|")
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    return re.sub(r"\[(?=[^\]]*\]\()", "\\[", line)
