"""Options that several commands share, and how they make a recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from formulavision.recipes.recipe import Recipe

Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
ConfigFile = Annotated[
    Path | None, typer.Argument(help="A recipe (YAML); or name a generator with --plugin.", show_default=False)
]
Plugin = Annotated[
    str | None, typer.Option("--plugin", help="Generator to draw with its defaults; see 'formulavision plugins'.")
]
CategoryCount = Annotated[int | None, typer.Option("--categories", help="Number of categories.")]
CategoryFolder = Annotated[
    Path | None, typer.Option("--categories-from", help="Folder of category CSVs in the published layout.")
]
Instances = Annotated[int | None, typer.Option("--instances", help="Images a category.")]
Size = Annotated[int | None, typer.Option("--size", help="Width and height in pixels.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of categories and instances.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting, by its path: --set generator.fill_rate=0.1 (may be repeated)."),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="What draws: cpu, or cuda (a GPU; what the generator cannot draw there the CPU draws).",
    ),
]
Workers = Annotated[int, typer.Option("--workers", help="Processes to draw with; 0: one a core.")]


def count_workers(workers: int) -> int:
    """0 stands for one worker a core that this process may use."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_recipe(
    config: Path | None,
    plugin: str | None,
    *,
    categories: int | None = None,
    categories_from: Path | None = None,
    instances: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    settings: list[str] | None = None,
) -> Recipe:
    """The recipe that a command line stands for: the file's or the plugin's, with the options laid over it.

    Raises:
        ConfigError: neither or both of config and plugin are given, or a value is not allowed.
    """
    from formulavision.recipes.recipe import Recipe
    from formulavision.util.errors import ConfigError

    values: dict[str, Any] = {
        "categories.count": categories,
        "categories.folder": None if categories_from is None else str(categories_from),
        "instances": instances,
        "canvas.size": size,
        "seed": seed,
    }
    changes = [f"{path}={json.dumps(value)}" for path, value in values.items() if value is not None] + (settings or [])
    if (config is None) == (plugin is None):
        raise ConfigError("give either a recipe file or --plugin NAME (see 'formulavision plugins')")
    if config is not None:
        return Recipe.load(config, changes)
    return Recipe.from_dict({"generator": {"name": plugin}}, changes)
