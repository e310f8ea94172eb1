"""Class names and labels of other people stay text in spreadsheets and in Markdown."""

from __future__ import annotations

import csv
import io

import pytest

from formulavision.util.text import csv_text, from_cell, markdown_text

FORMULAS = [
    "=1+1",
    "@SUM(A1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "\t=1",
    "\r=1",
    "\n=1",
    "'=1",
    "''@x",
    "-",
    "-x",
    "+",
    "=a,b",
]
PLAIN = ["cat", "'", "'cat", "a=b", "", "3-5", "it's", "ä", 'say "x"']
NUMBERS = ["-0.5", "+1", "-1e-05", "-.5", "12"]


@pytest.mark.parametrize("word", FORMULAS + PLAIN + NUMBERS)
def test_a_cell_is_text_and_reads_back(word: str) -> None:
    ((cell, number),) = csv.reader(io.StringIO(csv_text([[word, -0.25]]), newline=""))
    assert from_cell(cell) == word
    assert number == "-0.25"
    assert cell == (f"'{word}" if word in FORMULAS else word)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a|b", "a\\|b"),
        ("a\n# b\r\nc", "a # b c"),
        ("[x](javascript:1) ![y](http://z)", "\\[x](javascript:1) !\\[y](http://z)"),
        ("<!-- a", "&lt;!-- a"),
        ("p < 0.05, a [b] & c > d", "p < 0.05, a [b] & c > d"),
    ],
)
def test_markdown_shows_what_it_would_obey(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
