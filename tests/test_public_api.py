"""The public names: listed once in ``__init__.pyi``, which type checkers read, and imported on first use."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

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


INTERNAL = {"ImageSource", "Piece", "Variant"}
"""Classes of attributes that only this package's own code needs: of LabelledImages, Store and ComparisonSettings."""


def test_the_classes_of_all_arguments_results_and_attributes_are_public() -> None:
    absent = {
        f"{cls.__name__} of {name}"
        for name in NAMES
        for cls in classes_of(getattr(formulavision, name))
        if cls.__name__ not in {*NAMES, *INTERNAL}
    }
    assert absent == set()


def classes_of(made: Any) -> Iterator[type]:
    """Our classes in the annotations of a function, or of a class's constructor, public methods and attributes."""
    if not isinstance(made, type | FunctionType) or not made.__module__.startswith("formulavision."):
        return
    module = importlib.import_module(made.__module__)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    node = next(node for node in tree.body if getattr(node, "name", None) == made.__name__)
    inside = node.body if isinstance(node, ast.ClassDef) else [node]
    annotations: list[ast.expr | None] = []
    for each in inside:
        if isinstance(each, ast.AnnAssign):
            annotations.append(each.annotation)
        elif isinstance(each, ast.FunctionDef) and (each.name == "__init__" or not each.name.startswith("_")):
            annotations += [
                each.returns,
                *(argument.annotation for argument in ast.walk(each.args) if isinstance(argument, ast.arg)),
            ]
    words = {word.id for each in annotations if each for word in ast.walk(each) if isinstance(word, ast.Name)}
    imported = {
        alias.asname or alias.name: importlib.import_module(found.module or "")
        for found in ast.walk(tree)
        if isinstance(found, ast.ImportFrom) and (found.module or "").startswith("formulavision.")
        for alias in found.names
    }
    for word in words:
        cls = getattr(imported.get(word, module), word, None)
        if isinstance(cls, type) and cls.__module__.startswith("formulavision."):
            yield cls


def test_settings_state_their_defaults_as_type_checkers_read_them() -> None:
    """Without ``default=`` mypy and pyright take the field of a pydantic model for one that must be given."""
    calls = (
        (path.name, node.lineno)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field" and node.args
    )
    assert list(calls) == []


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
