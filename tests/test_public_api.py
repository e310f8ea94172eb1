"""The public names: listed once in ``__init__.pyi``, which type checkers read, and imported on first use."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import formulavision

PACKAGE = Path(formulavision.__file__).parent
NAMES: list[str] = vars(formulavision)["__all__"]


def listed() -> dict[str, str]:
    """Public names, with the module that each comes from."""
    statements = ast.parse((PACKAGE / "__init__.pyi").read_text()).body
    imports = [statement for statement in statements if isinstance(statement, ast.ImportFrom)]
    assert len(imports) == len(statements)
    return {alias.asname or "": f"formulavision.{node.module}" for node in imports for alias in node.names}


def test_every_listed_name_is_there_and_no_other() -> None:
    assert sorted(NAMES) == sorted(listed()) == sorted(dir(formulavision))


def test_every_public_name_is_what_it_says_even_after_all_modules_were_imported() -> None:
    for name, module in listed().items():
        assert getattr(formulavision, name) is getattr(importlib.import_module(module), name)
    assert [name for name in NAMES if isinstance(getattr(formulavision, name), ModuleType)] == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, formulavision; assert not {'torch', 'numba', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_list_and_the_types_are_installed() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    data = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
    assert {file.name for pattern in data["formulavision"] for file in PACKAGE.glob(pattern)} == {
        "__init__.pyi",
        "py.typed",
    }
