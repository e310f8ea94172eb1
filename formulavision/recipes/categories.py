"""A recipe's categories: found by its generator and kept in a cache, or read from files."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from formulavision.generators.contract import Canvas, Category, Generator
from formulavision.generators.failures import blamed
from formulavision.generators.registry import THIS_PROCESS, plugins
from formulavision.recipes.category_files import Parameters, check_digest, parameter_flaw, read_folder
from formulavision.recipes.parts import GeneratorSettings, Part, category_prefixes, check_names
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe
from formulavision.util.config import WRITTEN_OUT, identity, parse
from formulavision.util.errors import ConfigError, FormulaVisionError, PluginError, one_line
from formulavision.util.files import atomic_write, cache_folder
from formulavision.util.processes import BROKEN_POOL, Pools, end_workers, worker_pool
from formulavision.util.text import counted

__all__ = ["category_key", "category_name", "find_categories", "find_categories_of_part", "search"]

_CACHE_WORTH_S = 0.5
"""Categories that took longer than this to find are kept in the user's cache folder."""


def find_categories(
    recipe: RecipeLike,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda found: None,
    pools: Pools | None = None,
) -> list[Category]:
    """The recipe's categories, in the order of their labels: those of its first part come first.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        workers: processes to search with, where the generator's categories are independent of each other.
        progress: called with the number found so far.
        pools: makes the pool of ``workers`` processes; None: processes of this machine.

    Raises:
        PluginError: the generator raised.
        ConfigError: the folder of categories is missing or cannot be read, or two parts have categories of one name.
    """
    recipe = as_recipe(recipe)
    found: list[Category] = []
    for part, prefix in zip(recipe.all_parts, category_prefixes(recipe.all_parts), strict=True):
        further = partial(_further, progress, len(found))
        own = find_categories_of_part(recipe, part, workers=workers, progress=further, pools=pools)
        found += [replace(category, name=prefix + category.name) for category in own] if prefix else own
    owners = np.repeat(np.arange(len(recipe.all_parts)), recipe.categories_of_parts).tolist()
    check_names(recipe.all_parts, zip(owners, (category.name for category in found), strict=True))
    tell_of_equals([recipe], found, "recipe")
    return found


def tell_of_equals(recipes: Sequence[Recipe], found: Sequence[Category], whole: str) -> None:
    """Warn of categories that two parts of one generator have in common: their images may be equal, too.

    Args:
        found: the categories of all parts of all recipes, in their order.
        whole: what the parts are parts of.
    """
    parts = [part for recipe in recipes for part in recipe.all_parts]
    generators = [part.generator.name for part in parts for _ in range(part.num_categories)]
    if len(set(generators)) == len(parts):
        return
    counts = Counter(
        (generator, category.index, category.parameters.tobytes())
        for generator, category in zip(generators, found, strict=True)
    )
    equal = Counter(generator for (generator, *_), count in counts.items() if count > 1)
    for generator, number in equal.items():
        logging.getLogger("formulavision").warning(
            f"{counted(number, 'category')} of '{generator}' in two parts of the {whole}: their images "
            "have two labels: give the parts other generators, or settings (of a mixture: seeds) that find other ones"
        )


def _further(progress: Callable[[int], None], before: int, found: int) -> None:
    progress(before + found)


def find_categories_of_part(
    recipe: Recipe,
    part: Part,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda found: None,
    pools: Pools | None = None,
) -> list[Category]:
    """The categories of a part of the recipe, or of its scene's background; see :func:`find_categories`."""
    count = part.num_categories
    generator = part.generator.build(recipe.canvas, recipe.seed)
    if part.categories.folder is not None:
        read = dict(list(read_folder(part.categories.folder, generator).items())[:count])
        check_digest(part.categories.folder, read, part.categories.sha256)
        categories = [Category(i, name, parameters) for i, (name, parameters) in enumerate(read.items())]
        with blamed(generator.name, "in check_categories()"):
            try:
                generator.check_categories(categories)
            except ValueError as error:
                raise ConfigError(f"categories.folder: {part.categories.folder}: {one_line(error)}") from None
        return categories
    if part.categories.sha256 is not None:
        raise ConfigError("categories.folder: is missing: the recipe's categories were read from files, not found")
    cache = _cache_file(generator)
    # A notebook's cell may define the generator anew with another search and the same version.
    kept = plugins()[generator.name].package != THIS_PROCESS
    found = _read_cache(cache) if kept else []
    if len(found) < count:
        started = time.monotonic()
        found = []
        for table in search(part.generator, generator, count, workers, pools):
            found.append(table)
            progress(len(found))
        if kept and time.monotonic() - started > _CACHE_WORTH_S:
            _write_cache(cache, found)
    return [Category(i, category_name(i), found[i]) for i in range(count)]


def search(
    settings: GeneratorSettings, generator: Generator, count: int, workers: int = 1, pools: Pools | None = None
) -> Iterator[Parameters]:
    """Parameters of the first categories, checked, without the cache. Its arguments are those of the generator.

    Raises:
        PluginError: the generator raised, or returned what cannot be parameters.
    """
    columns = 0
    for index, parameters in enumerate(_search(settings, generator, count, workers, pools)):
        table = _as_table(parameters, index, generator)
        if table.shape[1] != (columns := columns or table.shape[1]):
            raise PluginError(f"'{generator.name}': its categories differ in their number of columns")
        yield table


def category_name(index: int) -> str:
    """Name of a category that its generator found: ``00042``, as in the published FractalDB."""
    return f"{index:05d}"


def _as_table(parameters: object, index: int, generator: Generator) -> Parameters:
    """Parameters of a category that a generator returned, as float64 [rows, columns].

    Raises:
        PluginError: they cannot be parameters of the generator.
    """
    try:
        table = np.atleast_2d(np.array(parameters, dtype=np.float64))
    except (TypeError, ValueError):
        flaw = f"must be numbers, [columns] or [rows, columns], not {type(parameters).__name__}"
    else:
        flaw = parameter_flaw(table, generator)
    if flaw:
        origin = plugins()[generator.name].origin
        raise PluginError(f"'{generator.name}' ({origin}): the parameters of category {index} {flaw}")
    return table


def _search(
    settings: GeneratorSettings, generator: Generator, count: int, workers: int, pools: Pools | None
) -> Iterator[object]:
    """Parameters of the first ``count`` categories, in order, as the generator returns them.

    The number of workers decides where the generator is called, not which of its methods, so it changes no category.
    """
    with blamed(generator.name, "in categories_are_independent()"):
        independent = generator.categories_are_independent() and type(generator).category is not Generator.category
    if not independent:
        yield from _one_after_another(generator, count)
    elif workers > 1 and count > 1:
        yield from _in_parallel(settings, generator, count, workers, pools)
    else:
        yield from (_ask(generator, index) for index in range(count))


def _one_after_another(generator: Generator, count: int) -> Iterator[object]:
    with blamed(generator.name, "while finding categories"):
        found = iter(generator.categories(count))
    for index in range(count):
        with blamed(generator.name, f"while finding category {index}"):
            parameters = next(found, _END)
            if parameters is _END:
                raise ValueError(f"categories() ended after {index} of {count}")
        yield parameters


def _in_parallel(
    settings: GeneratorSettings, generator: Generator, count: int, workers: int, pools: Pools | None = None
) -> Iterator[object]:
    canvas = generator.canvas.model_dump()
    pool = (pools or partial(worker_pool, workers))(_start, settings.model_dump(mode="json"), canvas, generator.seed)
    chunk = max(1, min(16, count // (4 * workers)))
    try:
        # Not pool.map: it cancels what was not done yet, which the pool cannot mark as failed when its workers end.
        futures = [pool.submit(_some, range(i, min(i + chunk, count))) for i in range(0, count, chunk)]
        for future in futures:
            yield from future.result()
    except BrokenProcessPool:
        raise PluginError(BROKEN_POOL) from None
    finally:
        end_workers(pool)


_END = object()


def _start(settings: dict[str, object], canvas: dict[str, object], seed: int) -> None:
    """Build the generator of a worker process."""
    global _generator
    try:
        _generator = parse(GeneratorSettings, settings, context=WRITTEN_OUT).build(parse(Canvas, canvas), seed)
    except FormulaVisionError as error:
        _generator = error  # raised by the first call: an error here would end the process with a traceback


def _some(indices: range) -> list[object]:
    if isinstance(_generator, FormulaVisionError):
        raise _generator
    return [_ask(_generator, index) for index in indices]


def _ask(generator: Generator, index: int) -> object:
    with blamed(generator.name, f"while finding category {index}"):
        return generator.category(index)


_generator: Generator | FormulaVisionError


# The cache -----------------------------------------------------------------------------------------------------------


def category_key(generator: Generator) -> str:
    """Equal for generators with the same categories: the name, and a digest of package, version and settings.

    Of a package of somebody else's also of its code: before its first release the same version may find others.
    """
    params = identity(generator.params)
    if generator.category_params is not None:
        params = {name: value for name, value in params.items() if name in generator.category_params}
    package = plugins()[generator.name].package
    # Two of them may have a generator of one name.
    others = [] if package == "formulavision" else [package, _code_of(type(generator))]
    key = json.dumps([*others, generator.name, generator.version, params, generator.seed], sort_keys=True)
    return f"{generator.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _code_of(generator: type[Generator]) -> str:
    """A digest of the file that a class is in and, in a package's folder, of all Python files there and below."""
    file = getattr(sys.modules.get(generator.__module__), "__file__", None)
    if file is None:
        return ""
    folder = Path(file).parent
    files = sorted(folder.rglob("*.py")) if (folder / "__init__.py").is_file() else [Path(file)]
    total = hashlib.sha256()
    for each in files:
        total.update(hashlib.sha256(each.read_bytes()).digest())
    return total.hexdigest()


def _cache_file(generator: Generator) -> Path:
    return cache_folder() / "categories" / f"{category_key(generator)}.npz"


def _read_cache(file: Path) -> list[Parameters]:
    try:
        with np.load(file, allow_pickle=False) as data:
            return np.split(data["rows"], np.cumsum(data["lengths"])[:-1])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []  # missing or damaged: the categories are searched again


def _write_cache(file: Path, found: list[Parameters]) -> None:
    content = io.BytesIO()
    np.savez(content, rows=np.concatenate(found), lengths=np.array([len(table) for table in found]))
    try:
        with atomic_write(file) as cache:
            cache.write(content.getvalue())
    except OSError:
        return  # a cache that cannot be written costs time, not results
