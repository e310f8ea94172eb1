"""Counts agree with their nouns, durations round up well; words of others stay text in spreadsheets and in Markdown."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from formulavision.util.text import (
    byte_size,
    counted,
    csv_text,
    duration,
    from_cell,
    markdown_text,
    read_csv,
    write_csv,
)

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


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "epoch", "0 epochs"),
        (1, "epoch", "1 epoch"),
        (2, "epoch", "2 epochs"),
        (1_000, "image", "1,000 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "category", "1 category"),
        (3, "category", "3 categories"),
        (3, "batch", "3 batches"),
        (3, "search", "3 searches"),
        (2, "index", "2 indexes"),
        (2, "day", "2 days"),
        (2, "training image", "2 training images"),
    ],
)
def test_a_noun_agrees_with_its_number(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (3.44, "3.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (180, "3 min"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (12_000, "3 h 20 min"),
        (3585, "59 min 45 s"),
        (86_399, "24 h"),
        (187_200, "2 d 4 h"),
        (100_000_000, "1,157 d 10 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_234_567, "1.23 MB"),
        (5e15, "5,000 TB"),
    ],
)
def test_a_size_has_three_digits(size: float, text: str) -> None:
    assert byte_size(size) == text


def test_a_table_reads_back_by_its_first_row(tmp_path: Path) -> None:
    words = [*FORMULAS, *PLAIN]
    write_csv(tmp_path / "table.csv", [["class", "-x", "share"], *([word, word, None] for word in words)])
    assert read_csv(tmp_path / "table.csv") == [{"class": word, "-x": word, "share": ""} for word in words]


@pytest.mark.parametrize("content", [b"a,b\n1\n", b"a,b\n1,2,3\n", b"\xff,b\n", b'a,"b\n1,2\n', b'a,b\n"1"2,3\n'])
def test_a_damaged_table_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError):
        read_csv(tmp_path / "table.csv")


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "table.csv").touch()
    assert read_csv(tmp_path / "table.csv") == []
