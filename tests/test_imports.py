"""Modules import along the order that docs/architecture.md states, and never in a circle.

Every import counts: inside of functions, under ``TYPE_CHECKING``, relative, and ``importlib.import_module("...")``.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"formulavision": "formulavision", "formulavision_plugins": "plugins"}
"""Packages by their import names, with their folders in the repository."""

Imports = Mapping[str, set[str]]
"""By the name of a module, the names of the modules of ours that it imports."""


def read_imports(root: Path) -> Imports:
    """All imports among the modules of the packages in ``root``, of sources and of stubs."""
    files = []
    for package, folder in PACKAGES.items():
        for file in sorted((root / folder).rglob("*.py*")):
            if file.suffix in {".py", ".pyi"}:
                parts = (package, *file.relative_to(root / folder).with_suffix("").parts)
                files.append((file, ".".join(parts).removesuffix(".__init__")))
    imports: dict[str, set[str]] = {module: set() for _, module in files}
    for file, module in files:
        package = module if file.stem == "__init__" else module.rpartition(".")[0]
        for name in names_imported(ast.parse(file.read_text()), package):
            while name and name not in imports:  # a class or a function: its module counts
                name = name.rpartition(".")[0]
            if name and name != module:
                imports[module].add(name)
    return imports


def names_imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Absolute names of everything that a module of ``package`` imports: modules, and what is taken out of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield absolute(node.args[0].value, package)


def absolute(name: str, package: str) -> str:
    """``..points`` in the package ``formulavision.a.b`` is ``formulavision.a.points``."""
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    if level == 0:
        return name
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([rest] if rest else [])])


def circles(imports: Imports) -> set[frozenset[str]]:
    """The groups of modules that import each other, directly or through others of the group."""
    reached = {module: reach(imports, module) for module in imports}
    return {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in imports
        if module in reached[module]
    }


def reach(imports: Imports, module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = imports[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def allowed_rooms(architecture: str) -> dict[str, set[str]]:
    """By room, the rooms that it may import, as the document says: ``upper -> lower -> lowest``, a line an order."""
    lines = re.findall(r"^ {4}(\w+(?: -> \w+)+)$", architecture, re.MULTILINE)
    allowed: dict[str, set[str]] = {}
    for line in lines:
        order = line.split(" -> ")
        for place, room in enumerate(order):
            allowed.setdefault(room, set()).update(order[place:])
    return allowed


def room_of(module: str) -> str:
    """``cli`` for ``formulavision.cli.bench``, ``plugins`` for any plugin, ``formulavision`` outside of all rooms."""
    package, _, rest = module.partition(".")
    if package == "formulavision_plugins":
        return "plugins"
    first = rest.partition(".")[0]
    return package if first in {"", "__main__"} else first


def arrows_against(imports: Imports, allowed: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    return {
        (module, other)
        for module, others in imports.items()
        for other in others
        if room_of(other) not in allowed.get(room_of(module), set())
    }


@pytest.fixture(scope="module")
def imports() -> Imports:
    return read_imports(ROOT)


@pytest.fixture(scope="module")
def allowed() -> dict[str, set[str]]:
    return allowed_rooms((ROOT / "docs" / "architecture.md").read_text())


def test_no_modules_import_each_other_in_a_circle(imports: Imports) -> None:
    assert circles(imports) == set()
    TopologicalSorter(imports).prepare()  # the standard library's judgement beside ours


def test_no_import_runs_against_the_order_of_the_rooms(imports: Imports, allowed: dict[str, set[str]]) -> None:
    assert arrows_against(imports, allowed) == set()


def test_the_document_gives_every_room_a_place(allowed: dict[str, set[str]]) -> None:
    folders = {path.parent.name for path in (ROOT / "formulavision").glob("*/__init__.py")}
    assert set(allowed) == folders | {"formulavision", "plugins"}
    assert "util" in allowed["cli"] and "cli" not in allowed["util"]
    assert "comparison" not in allowed["plugins"]


# What the two tests above would find


def tree(root: Path, files: Mapping[str, str]) -> Imports:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return read_imports(root)


IMPORTS_OF_B = {
    "plain": "import formulavision.util.b",
    "renamed": "import formulavision.util.b as other",
    "of a name": "from formulavision.util.b import B",
    "of a module": "from formulavision.util import b",
    "relative": "from . import b",
    "relative, of a name": "from .b import B",
    "relative, by way of the parent": "from ..util.b import B",
    "lazy": "def f():\n    from formulavision.util.b import B\n    return B",
    "lazy, in a class": "class A:\n    def f(self):\n        import formulavision.util.b",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from formulavision.util.b import B",
    "tried": "try:\n    import formulavision.util.b\nexcept ImportError:\n    pass",
    "importlib": "import importlib\nimportlib.import_module('formulavision.util.b')",
    "importlib, relative": "from importlib import import_module\nimport_module('.b', __package__)",
    "__import__": "__import__('formulavision.util.b')",
}


@pytest.mark.parametrize("text", IMPORTS_OF_B.values(), ids=IMPORTS_OF_B)
def test_a_planted_circle_is_found(tmp_path: Path, text: str) -> None:
    back = "from formulavision.util.a import A\n"
    found = tree(tmp_path, {"formulavision/util/a.py": text, "formulavision/util/b.py": back})
    assert circles(found) == {frozenset({"formulavision.util.a", "formulavision.util.b"})}


def test_a_planted_circle_through_a_package_and_a_third_module_is_found(tmp_path: Path) -> None:
    files = {
        "formulavision/util/__init__.py": "from formulavision.util.a import A",
        "formulavision/util/a.py": "def f():\n    from formulavision.util.b import B",
        "formulavision/util/b.py": "from formulavision.util import A",
        "formulavision/util/c.py": "from formulavision.util import A",
    }
    found = tree(tmp_path, files)
    assert circles(found) == {frozenset({"formulavision.util", "formulavision.util.a", "formulavision.util.b"})}
    with pytest.raises(CycleError):
        TopologicalSorter(found).prepare()


@pytest.mark.parametrize("text", IMPORTS_OF_B.values(), ids=IMPORTS_OF_B)
def test_a_planted_arrow_up_is_found(tmp_path: Path, allowed: dict[str, set[str]], text: str) -> None:
    for below, above in (
        (".util", ".cli"),
        ("from . ", "from ..cli "),
        ("from .b", "from ..cli.b"),
        ("'.b", "'..cli.b"),
    ):
        text = text.replace(below, above)
    files = {"formulavision/util/a.py": text, "formulavision/cli/b.py": ""}
    assert arrows_against(tree(tmp_path, files), allowed) == {("formulavision.util.a", "formulavision.cli.b")}


@pytest.mark.parametrize(
    ("file", "text", "fine"),
    [
        ("formulavision/cli/a.py", "from formulavision.storage.b import B", True),
        ("formulavision/storage/a.py", "from formulavision.storage.b import B", True),
        ("formulavision/recipes/a.py", "from formulavision.storage.b import B", False),
        ("formulavision/unknown/a.py", "from formulavision.storage.b import B", False),
        ("formulavision/__init__.pyi", "from .storage.b import B as B", True),
        ("formulavision/recipes/__init__.pyi", "from ..storage.b import B as B", False),
        ("plugins/ifs/a.py", "from formulavision.storage.b import B", False),
        ("plugins/ifs/a.py", "from ..storage.b import B", True),  # no module of formulavision
    ],
)
def test_rooms_import_what_the_document_allows(
    tmp_path: Path, allowed: dict[str, set[str]], file: str, text: str, fine: bool
) -> None:
    files = {file: text, "formulavision/storage/b.py": "", "plugins/bezier.py": ""}
    assert (arrows_against(tree(tmp_path, files), allowed) == set()) == fine


@pytest.mark.parametrize("text", ["import formulavision", "from formulavision import Recipe"])
def test_no_room_imports_the_public_names_and_plugins_do(
    tmp_path: Path, allowed: dict[str, set[str]], text: str
) -> None:
    found = tree(tmp_path, {"formulavision/__init__.py": "", "formulavision/cli/a.py": text, "plugins/b.py": text})
    assert arrows_against(found, allowed) == {("formulavision.cli.a", "formulavision")}


def test_a_plugin_is_known_to_nobody(tmp_path: Path, allowed: dict[str, set[str]]) -> None:
    found = tree(tmp_path, {"formulavision/cli/a.py": "import formulavision_plugins.b", "plugins/b.py": ""})
    assert arrows_against(found, allowed) == {("formulavision.cli.a", "formulavision_plugins.b")}


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    # pytest imports test files by their name alone, without the folder: two of one name stop all tests.
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
