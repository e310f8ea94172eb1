"""What YAML says is what the project reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from formulavision.util.config import apply_settings, dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        ("-2.5E+2", -250.0),
        ("+.5e1", 5.0),
        ("1.0e-3", 0.001),
        ("0.5", 0.5),
        ("12", 12),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1e-3x", "1e-3x"),
        ("n01440764", "n01440764"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_a_number_with_an_exponent_is_a_number_and_all_else_is_as_it_was(tmp_path: Path, text: str, value: Any) -> None:
    (tmp_path / "file.yaml").write_text(f"rates: [{text}]")
    for found in (load_yaml(tmp_path / "file.yaml")["rates"], apply_settings({}, [f"rates=[{text}]"])["rates"]):
        assert found == [value] and type(found[0]) is type(value)


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    data = {"name": "1e3", "rates": [1e-3, 1e-7, 3.0, 2], "classes": ["1e", "12", "yes", "1e-3"], "none": None}
    (tmp_path / "file.yaml").write_text(dump_yaml(data))
    assert load_yaml(tmp_path / "file.yaml") == data
