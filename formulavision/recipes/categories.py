"""A recipe's categories: found by its generator (and kept in a cache), or read from a folder of CSV files."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category, Generator
from formulavision.generators.failures import blamed
from formulavision.generators.registry import THIS_PROCESS, plugins
from formulavision.util.config import identity
from formulavision.util.errors import ConfigError, FormulaVisionError, PluginError, StoreError, one_line
from formulavision.util.files import atomic_write, cache_folder, is_system_leftover, write_text
from formulavision.util.folders import OwnedFolder, State
from formulavision.util.processes import BROKEN_POOL, end_workers, worker_pool

if TYPE_CHECKING:
    from formulavision.recipes.recipe import Recipe, RecipeLike

__all__ = [
    "CATEGORIES",
    "check_digest",
    "digest",
    "find_categories",
    "holds_categories",
    "read_folder",
    "write_file",
    "write_folder",
]

CATEGORIES = "categories.json"
"""File with all categories of a store; a folder that has it is a folder of categories."""

Parameters = NDArray[np.float64]

_CACHE_WORTH_S = 0.5
"""Categories that took longer than this to find are kept in the user's cache folder."""


def find_categories(
    recipe: RecipeLike, *, workers: int = 1, progress: Callable[[int], None] = lambda found: None
) -> list[Category]:
    """The recipe's categories, in the order of their labels.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        workers: processes to search with, where the generator's categories are independent of each other.
        progress: called with the number found so far.

    Raises:
        PluginError: the generator raised.
        ConfigError: the folder of categories is missing or cannot be read.
    """
    from formulavision.recipes.recipe import as_recipe

    recipe = as_recipe(recipe)
    count = recipe.num_categories
    generator = recipe.build()
    if recipe.categories.folder is not None:
        read = dict(list(read_folder(recipe.categories.folder, generator).items())[:count])
        check_digest(recipe.categories.folder, read, recipe.categories.sha256)
        return [Category(i, name, parameters) for i, (name, parameters) in enumerate(read.items())]
    if recipe.categories.sha256 is not None:
        raise ConfigError("categories.folder: is missing: the recipe's categories were read from files, not found")
    cache = _cache_file(generator)
    # A notebook's cell may run again with another search, which its version does not tell.
    kept = plugins()[generator.name].package != THIS_PROCESS
    found = _read_cache(cache) if kept else []
    if len(found) < count:
        started = time.monotonic()
        found = []
        for parameters in _search(recipe, generator, count, workers):
            found.append(_as_table(parameters, len(found), generator))
            if found[-1].shape[1] != found[0].shape[1]:
                raise PluginError(f"'{generator.name}': its categories differ in their number of columns")
            progress(len(found))
        if kept and time.monotonic() - started > _CACHE_WORTH_S:
            _write_cache(cache, found)
    return [Category(i, category_name(i), found[i]) for i in range(count)]


def category_name(index: int) -> str:
    """Name of a category that its generator found: ``00042``, as in the published FractalDB."""
    return f"{index:05d}"


def _as_table(parameters: object, index: int, generator: Generator) -> Parameters:
    """What a generator gave out as a category's parameters, float64 [rows, columns].

    Raises:
        PluginError: that is no category of the generator.
    """
    try:
        table = np.atleast_2d(np.array(parameters, dtype=np.float64))
    except (TypeError, ValueError):
        flaw = f"must be numbers, [columns] or [rows, columns], not {type(parameters).__name__}"
    else:
        flaw = _flaw(table, generator)
    if flaw:
        origin = plugins()[generator.name].origin
        raise PluginError(f"'{generator.name}' ({origin}): the parameters of category {index} {flaw}")
    return table


def _flaw(table: Parameters, generator: Generator) -> str:
    """Why a table is no category of the generator, or nothing; it goes on from "the parameters"."""
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


def _search(recipe: Recipe, generator: Generator, count: int, workers: int) -> Iterator[object]:
    name = generator.name
    with blamed(name, "in categories_are_independent()"):
        independent = generator.categories_are_independent() and type(generator).category is not Generator.category
    if independent and workers > 1 and count > 1:
        pool = worker_pool(workers, _start, recipe.to_dict())
        try:
            yield from pool.map(_one, range(count), chunksize=max(1, min(16, count // (4 * workers))))
        except BrokenProcessPool:
            raise PluginError(BROKEN_POOL) from None
        finally:
            end_workers(pool)
        return
    if independent:  # asked as worker processes ask, so that their number changes nothing
        for index in range(count):
            yield _ask(generator, index)
        return
    with blamed(name, "while finding categories"):
        found = iter(generator.categories(count))
    for index in range(count):
        with blamed(name, f"while finding category {index}"):
            parameters = next(found, _END)
            if parameters is _END:
                raise ValueError(f"categories() ended after {index} of {count}")
        yield parameters


_END = object()


def _start(recipe: dict[str, object]) -> None:
    from formulavision.recipes.recipe import Recipe

    global _generator
    try:
        _generator = Recipe.from_dict(recipe).build()
    except FormulaVisionError as error:
        _generator = error  # what fails here would be told with a traceback


def _one(index: int) -> object:
    if isinstance(_generator, FormulaVisionError):
        raise _generator
    return _ask(_generator, index)


def _ask(generator: Generator, index: int) -> object:
    with blamed(generator.name, f"while finding category {index}"):
        return generator.category(index)


_generator: Generator | FormulaVisionError


# Files ---------------------------------------------------------------------------------------------------------------


def holds_categories(folder: Path) -> bool:
    """Whether there is anything in a folder that :func:`read_folder` would read."""
    return (folder / CATEGORIES).is_file() or any(_csv_files(folder))


def read_folder(folder: Path, generator: Generator) -> dict[str, Parameters]:
    """Categories by name, from a store's ``categories.json`` in their order, or from ``folder/*.csv`` in the order of
    their names.

    Raises:
        ConfigError: there is no such folder, no categories in it, or one that is no category of the generator.
    """
    file = folder / CATEGORIES
    if file.is_file():
        try:
            tables = json.loads(file.read_bytes())["categories"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"categories.folder: {file}: is damaged ({type(error).__name__})") from None
        return {name: _read_table(rows, f"{file}: {name}", generator) for name, rows in tables}
    files = _csv_files(folder)
    if not files:
        raise ConfigError(
            f"categories.folder: {folder}: holds no CSV file"
            if folder.is_dir()
            else f"categories.folder: {folder}: no such folder"
        )
    result: dict[str, Parameters] = {}
    for file in files:
        if "." in file.stem:
            raise ConfigError(f"categories.folder: {file}: a category's name must not contain a dot")
        result[file.stem] = _read_table(_csv_rows(file), str(file), generator)
    return result


def _csv_files(folder: Path) -> list[Path]:
    # By stem, as readers of image folders sort the classes.
    files = (file for file in folder.glob("*.csv") if not is_system_leftover(file.name))
    return sorted(files, key=lambda file: file.stem)


def _csv_rows(file: Path) -> list[list[str]]:
    try:
        return [line.split(",") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"categories.folder: {file}: cannot be read ({error})") from None


def _read_table(rows: object, where: str, generator: Generator) -> Parameters:
    try:
        table = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"categories.folder: {where}: is not a table of numbers ({error})") from None
    if flaw := _flaw(table, generator):
        raise ConfigError(f"categories.folder: {where}: the parameters {flaw}")
    return table


def write_file(categories: list[Category], generator: Generator, folder: Path) -> None:
    """All categories into ``folder/categories.json``, one a line, which float64 survives unchanged."""
    lines = (f"{json.dumps(c.name)}: {json.dumps(c.parameters.tolist(), allow_nan=False)}" for c in categories)
    columns = json.dumps(list(generator.columns))
    write_text(folder / CATEGORIES, f'{{"columns": {columns}, "categories": {{\n' + ",\n".join(lines) + "\n}}\n")


def write_folder(categories: list[Category], folder: str | Path, *, overwrite: bool = False) -> Path:
    """One CSV a category in the published FractalDB layout: no header, ``%.18e``, which float64 survives unchanged.

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
    """sha256 over names and parameters."""
    total = hashlib.sha256()
    for name, table in categories.items():
        total.update(f"{name}:{table.shape}\n".encode())
        total.update(np.ascontiguousarray(table, dtype="<f8").tobytes())
    return total.hexdigest()


def check_digest(folder: Path, categories: dict[str, Parameters], sha256: str | None) -> None:
    """Refuse other categories than those of a digest.

    Raises:
        ConfigError: the folder holds others.
    """
    found = digest(categories)
    if found != sha256:
        raise ConfigError(
            f"categories.folder: {folder} holds other categories than the recipe was made with"
            f" (sha256 {found[:12]}..., not {str(sha256)[:12]}...)"
        )


# The cache -----------------------------------------------------------------------------------------------------------


def _cache_file(generator: Generator) -> Path:
    params = identity(generator.params)
    if generator.category_params is not None:
        params = {name: value for name, value in params.items() if name in generator.category_params}
    key = json.dumps([generator.name, generator.version, params, generator.seed], sort_keys=True)
    name = f"{generator.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    return cache_folder() / "categories" / name


def _read_cache(file: Path) -> list[Parameters]:
    try:
        with np.load(file, allow_pickle=False) as data:
            return np.split(data["rows"], np.cumsum(data["lengths"])[:-1])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []  # not there, or damaged: the search says it again


def _write_cache(file: Path, found: list[Parameters]) -> None:
    content = io.BytesIO()
    np.savez(content, rows=np.concatenate(found), lengths=np.array([len(table) for table in found]))
    try:
        with atomic_write(file) as cache:
            cache.write(content.getvalue())
    except OSError:
        return  # a cache that cannot be written costs time, not results
