"""Categories in files: ``categories.json`` of a store, or one CSV file per category (the published layout)."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category, Generator
from formulavision.generators.failures import blamed
from formulavision.util.errors import ConfigError, StoreError, one_line
from formulavision.util.files import is_system_leftover, write_text
from formulavision.util.folders import OwnedFolder, State

__all__ = [
    "CATEGORIES",
    "Parameters",
    "check_digest",
    "digest",
    "holds_categories",
    "parameter_flaw",
    "read_folder",
    "write_file",
    "write_folder",
]

CATEGORIES = "categories.json"
"""File with all categories of a store; a folder that has it is a folder of categories."""

_IN_NO_NAME = re.compile("[\0\ud800-\udfff]")

Parameters = NDArray[np.float64]
"""Parameters of one category, float64 [rows, columns]."""


def holds_categories(folder: Path) -> bool:
    """Whether a folder has a file that :func:`read_folder` reads, or is one."""
    return _json_file(folder).is_file() or any(_csv_files(folder))


def read_folder(folder: Path, generator: Generator) -> dict[str, Parameters]:
    """Parameters of categories by name: from ``categories.json`` in its order, or from ``*.csv`` in the order of names.

    The JSON file may have the generator's columns in another order. A CSV file holds a table of numbers, or one
    ``name,value`` a line, in any order: the names are the generator's ``columns`` or ``published_names``.

    Args:
        folder: of the files; or a store's file of the categories of one of its parts, such as ``categories-0.json``.

    Raises:
        ConfigError: there is no such folder, no categories in it, or one that is no category of the generator.
    """
    file = _json_file(folder)
    if file.is_file():
        try:
            content = json.loads(file.read_bytes(), object_pairs_hook=_once)
            tables, columns = content["categories"].items(), list(content.get("columns", ()))
        except ConfigError as error:
            raise ConfigError(f"categories.folder: {file}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"categories.folder: {file}: is damaged ({type(error).__name__})") from None
        if not tables:
            raise ConfigError(f"categories.folder: {file}: holds no categories")
        found = {_checked(name, file): _read_table(rows, f"{file}: {name}", generator) for name, rows in tables}
        order = _order(columns, file, generator)
        return found if order is None else {name: table[:, order] for name, table in found.items()}
    files = _csv_files(folder)
    if not files:
        raise ConfigError(
            f"categories.folder: {folder}: holds no CSV file"
            if folder.is_dir()
            else f"categories.folder: {folder}: no such folder"
        )
    result: dict[str, Parameters] = {}
    for file in files:
        result[_checked(file.stem, folder)] = _read_table(
            _in_columns(_csv_rows(file), str(file), generator), str(file), generator
        )
    return result


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, each name of which must be there once."""
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ConfigError(f"{name!r} is there {times} times")
    return dict(pairs)


def _order(columns: list[Any], file: Path, generator: Generator) -> list[int] | None:
    """The places of the generator's columns among those of a file; None where they are the same, or one has no names.

    Raises:
        ConfigError: the file has other columns, as of another generator.
    """
    known = list(generator.columns)
    if not columns or not known or columns == known:
        return None
    if sorted(map(str, columns)) != sorted(known):
        raise ConfigError(
            f"categories.folder: {file}: has the columns {', '.join(map(str, columns))}, and those of "
            f"'{generator.name}' are {', '.join(known)}"
        )
    return [columns.index(name) for name in known]


def _checked(name: str, place: Path) -> str:
    """The name of a category, which is that of a folder or of files, too.

    Raises:
        ConfigError: it cannot be.
    """
    flaws = {
        "be empty": not name,
        "contain a dot": "." in name,
        "contain a slash": "/" in name,
        "contain a backslash": "\\" in name,
        "contain a character that names of files cannot have": _IN_NO_NAME.search(name),
    }
    for flaw, found in flaws.items():
        if found:
            raise ConfigError(f"categories.folder: {place}: the name of category {name!r} must not {flaw}")
    return name


def _json_file(folder: Path) -> Path:
    return folder if folder.suffix == ".json" and folder.is_file() else folder / CATEGORIES


def _csv_files(folder: Path) -> list[Path]:
    # By stem, as readers of image folders sort the classes.
    files = (file for file in folder.glob("*.csv") if not is_system_leftover(file.name))
    return sorted(files, key=lambda file: file.stem)


def _csv_rows(file: Path) -> list[list[str]]:
    try:
        return [line.split(",") for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"categories.folder: {file}: cannot be read ({error})") from None


def _in_columns(rows: list[list[str]], where: str, generator: Generator) -> list[list[str]]:
    """Rows of a file in the generator's columns: as they are, or one row of the values in a file of named values."""
    if not generator.columns or not rows or _is_number(rows[0][0]):
        return rows
    names = {column: column for column in generator.columns} | dict(generator.published_names)
    values: dict[str, str] = {}
    for row in rows:
        name, value = row[0].strip(), row[-1].strip()
        if len(row) != 2:
            flaw = f"has neither numbers nor one name and one value in each line: {','.join(row)[:60]!r}"
        elif name not in names:
            flaw = f"unknown name {name[:60]!r}, known are: {', '.join(names)}"
        elif not _is_number(value):
            flaw = f"{name!r}: {value[:60]!r} is not a number"
        elif names[name] in values:
            flaw = f"{name!r}: is a second value of {names[name]}"
        else:
            values[names[name]] = value
            continue
        raise ConfigError(f"categories.folder: {where}: {flaw}")
    if missing := [column for column in generator.columns if column not in values]:
        published = {column: f" ({name})" for name, column in generator.published_names.items() if name != column}
        missing = [column + published.get(column, "") for column in missing]
        raise ConfigError(f"categories.folder: {where}: has no value of: {', '.join(missing)}")
    return [[values[column] for column in generator.columns]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_table(rows: object, where: str, generator: Generator) -> Parameters:
    try:
        table = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"categories.folder: {where}: is not a table of numbers ({error})") from None
    if flaw := parameter_flaw(table, generator):
        raise ConfigError(f"categories.folder: {where}: the parameters {flaw}")
    return table


def write_file(categories: list[Category], generator: Generator, folder: Path, name: str = CATEGORIES) -> None:
    """Write all categories to a file, a line each; float64 values are read back unchanged."""
    lines = (f"{json.dumps(c.name)}: {json.dumps(c.parameters.tolist(), allow_nan=False)}" for c in categories)
    columns = json.dumps(list(generator.columns))
    write_text(folder / name, f'{{"columns": {columns}, "categories": {{\n' + ",\n".join(lines) + "\n}}\n")


def write_folder(categories: list[Category], folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a CSV file per category in the published FractalDB layout: no header, ``%.18e``, which keeps every bit.

    Args:
        overwrite: remove the categories that were written there before; other files stay.

    Raises:
        StoreError: the folder holds categories already and ``overwrite`` is not set, or it holds other files.
    """
    folder = Path(folder)
    files = [f"{category.name}.csv" for category in categories]
    owned = OwnedFolder(folder, "set of categories", last=files[-1])
    if owned.state() is not State.NEW and not overwrite:
        raise StoreError(f"{folder}: holds categories already; give another --out, or --overwrite")
    with owned.writing({}, files, overwrite=overwrite):
        for category, file in zip(categories, files, strict=True):
            text = io.StringIO()
            np.savetxt(text, category.parameters, delimiter=",")
            write_text(folder / file, text.getvalue())
    return folder


def digest(categories: dict[str, Parameters]) -> str:
    """sha256 of names and parameters, in hexadecimal digits."""
    total = hashlib.sha256()
    for name, table in categories.items():
        total.update(f"{name}:{table.shape}\n".encode())
        total.update(np.ascontiguousarray(table, dtype="<f8").tobytes())
    return total.hexdigest()


def check_digest(folder: Path, categories: dict[str, Parameters], sha256: str | None) -> None:
    """Refuse categories with another digest than the recipe's.

    Raises:
        ConfigError: the folder holds other categories.
    """
    found = digest(categories)
    if found != sha256:
        raise ConfigError(
            f"categories.folder: {folder} holds other categories than the recipe was made with"
            f" (sha256 {found[:12]}..., not {str(sha256)[:12]}...)"
        )


def parameter_flaw(table: Parameters, generator: Generator) -> str:
    """Why a table cannot hold parameters of the generator: the end of a sentence that begins with "the parameters".

    Empty where nothing is wrong.
    """
    columns = generator.columns
    if table.ndim != 2 or table.size == 0 or (columns and table.shape[1] != len(columns)):
        named = f" ({', '.join(columns)})" if columns else ""
        return f"have shape {list(table.shape)}, not [rows, {len(columns) or 'columns'}]{named}"
    if not np.isfinite(table).all():
        return "must be finite numbers"
    with blamed(generator.name, "in check_category()"):
        try:
            generator.check_category(table)
        except ValueError as error:
            return one_line(error)
    return ""
