"""Lines of code by room: physical lines without blank lines, comment lines and docstrings.

    python benchmarks/lines.py              every room of formulavision/, and plugins/
    python benchmarks/lines.py --files      every file, too

tests/test_lines.py holds a room to its upper bound.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def count_lines(source: str) -> int:
    """Lines of a module that are not blank, not a comment alone, and not part of a docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is not None:
            text = node.body[0]
            docstrings.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in docstrings
        for number, line in enumerate(source.splitlines(), 1)
    )


def count_files(root: Path) -> dict[str, int]:
    """Lines by file, sources and stubs, of ``formulavision`` and ``plugins`` in ``root``."""
    files = (file for folder in ("formulavision", "plugins") for file in sorted((root / folder).rglob("*.py*")))
    return {
        file.relative_to(root).as_posix(): count_lines(file.read_text(encoding="utf-8"))
        for file in files
        if file.suffix in {".py", ".pyi"}
    }


def room_of(file: str) -> str:
    """``cli`` for ``formulavision/cli/bench.py``, ``plugins``, or ``formulavision`` for the files beside the rooms."""
    package, *inner = Path(file).parts[:-1]
    return inner[0] if inner and package == "formulavision" else package


def count_rooms(files: dict[str, int]) -> dict[str, int]:
    rooms: dict[str, int] = {}
    for file, lines in files.items():
        rooms[room_of(file)] = rooms.get(room_of(file), 0) + lines
    return rooms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="every file, too")
    show_files = parser.parse_args().files
    files = count_files(ROOT)
    rooms = count_rooms(files)
    for room in sorted(rooms):
        print(f"{rooms[room]:6,}  {room}")
        for file in files if show_files else ():
            if room_of(file) == room:
                print(f"{files[file]:14,}  {file}")
    print(f"{sum(rooms.values()) - rooms['plugins']:6,}  formulavision/ in all")


if __name__ == "__main__":
    main()
