"""No room grows without somebody's decision: each has an upper bound of lines of code (benchmarks/lines.py)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "lines.py"
specification = importlib.util.spec_from_file_location("lines", SCRIPT)
assert specification is not None and specification.loader is not None
lines = importlib.util.module_from_spec(specification)
specification.loader.exec_module(lines)

AT_MOST = {
    "cli": 1_650,
    "comparison": 3_700,
    "data": 3_600,
    "evaluation": 1_700,
    "explorer": 1_750,
    "formulavision": 150,
    "generators": 750,
    "plugins": 6_650,
    "recipes": 1_850,
    "rendering": 2_100,
    "storage": 3_300,
    "testing": 1_050,
    "training": 4_600,
    "util": 1_550,
}
"""The lines of today, rounded up to 50. Lower a bound when a room has become smaller."""


def test_no_room_has_more_lines_than_its_bound() -> None:
    rooms = lines.count_rooms(lines.count_files(SCRIPT.parents[1]))
    assert set(rooms) == set(AT_MOST)
    assert {room: count for room, count in rooms.items() if count > AT_MOST[room]} == {}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("", 0),
        ('"""A module."""\n\n\n# a comment\nx = 1  # one\n', 1),
        ('def f():\n    """Two\n\n    lines."""\n    # none\n    return 1\n', 2),
        ('class A:\n    """One."""\n    async def f(self):\n        """Two."""\n        return """a\nb"""\n', 4),
        ('x = 1\n"""A string that stands alone counts."""\n', 2),
        ("x = (\n    1,\n\n    2,\n)\n", 4),
        ('"""Of the module."""; x = 1\n', 0),
    ],
)
def test_blank_lines_comments_and_docstrings_do_not_count(source: str, count: int) -> None:
    assert lines.count_lines(source) == count


def test_a_room_is_the_folder_below_the_package(tmp_path: Path) -> None:
    for name in ("__init__.pyi", "util/a.py", "data/downstream/b.py", "py.typed"):
        (tmp_path / "formulavision" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "formulavision" / name).write_text("x = 1\n")
    (tmp_path / "plugins" / "ifs").mkdir(parents=True)
    (tmp_path / "plugins" / "ifs" / "__init__.py").write_text("x = 1\ny = 2\n")
    assert lines.count_rooms(lines.count_files(tmp_path)) == {"formulavision": 1, "util": 1, "data": 1, "plugins": 2}


def test_the_script_prints_rooms_and_files() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--files"], capture_output=True, text=True, check=True)
    assert "  util\n" in done.stdout and "  formulavision/util/text.py\n" in done.stdout
    assert done.stdout.endswith("  formulavision/ in all\n")
