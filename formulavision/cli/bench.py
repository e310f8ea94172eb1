"""``bench``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from formulavision.cli import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from formulavision.data.bench import RecipeCost
    from formulavision.recipes.recipe import Recipe


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Draw")(bench)


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE",
            help="Recipes: names of generators or files (YAML); nothing: every installed generator.",
            show_default=False,
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            metavar="NAME",
            help="Generator to measure with its defaults (may be repeated).",
            show_default=False,
        ),
    ] = None,
    categories: o.CategoryCount = None,
    instances: o.Instances = None,
    size: o.Size = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Time of each measurement; a recipe has three.")] = 1.0,
    settings: o.Settings = None,
    device: o.Device = "cpu",
) -> None:
    """Measure how fast this machine draws a recipe, and how long and how large a store of it would be.

    formulavision bench fractaldb-1k ifs perlin
    """
    from formulavision.data.bench import bench as run
    from formulavision.generators.registry import plugins
    from formulavision.recipes.device import check_device
    from formulavision.util.console import STDOUT, say
    from formulavision.util.machine import cores as count_cores
    from formulavision.util.progress import progress_bars

    check_device(device)

    def recipe_of(name: str | None, plugin: str | None = None) -> Recipe:
        return o.make_recipe(
            name, plugin, categories=categories, instances=instances, size=size, settings=settings
        )  # fmt: skip

    named = bool(names or plugin)
    recipes = [(Path(name).stem, recipe_of(name)) for name in names or []]
    recipes += [(name, recipe_of(None, name)) for name in plugin or []]
    problems: list[str] = []
    if not named:
        problems += [f"not loaded {name}: {line}" for name, line in plugins().problems.items()]
        for name in sorted(plugins().generators):
            with _noted(problems):
                recipes.append((name, recipe_of(None, name)))
    measured: list[tuple[str, RecipeCost]] = []
    with progress_bars() as bars:
        for i, (name, recipe) in enumerate(recipes):
            bars.show("bench", i, len(recipes))
            with _noted(problems, named):
                measured.append((name, run(recipe, seconds=seconds, device=device, note=problems.append)))
        bars.show("bench", len(recipes), len(recipes))
    cores = count_cores()
    STDOUT.print(_table(measured, cores))
    for problem in problems:
        say(problem)
    say("draw: one core, or the GPU, in random order. store: a core draws, encodes and writes an image.")
    say(f"search, time: a store with {cores} workers (--workers 0). The search is done once, and kept in a cache.")


@contextmanager
def _noted(problems: list[str], named: bool = False) -> Iterator[None]:
    """A problem of a generator that the user did not name is noted, and the others are measured."""
    from formulavision.util.errors import FormulaVisionError

    try:
        yield
    except FormulaVisionError as error:
        if named:
            raise
        problems.append(f"not measured: {error}")


def _table(measured: list[tuple[str, RecipeCost]], cores: int) -> Table:
    """A row for each recipe."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from formulavision.util.text import byte_size, duration

    table = Table(box=box.SIMPLE_HEAD, header_style="")
    table.add_column("recipe", overflow="fold")
    table.add_column("drawn on", overflow="fold")
    for column in ("images", "pixels", "draw", "store", "search", "time", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, cost in measured:
        table.add_row(
            escape(name),
            escape(cost.device),
            f"{len(cost.recipe):,}",
            str(cost.recipe.canvas.size),
            f"{_digits(cost.draw_ms)} ms",
            f"{_digits(cost.store_ms)} ms",
            duration(search) if (search := cost.search_seconds(cores)) else "-",
            duration(cost.store_seconds(cores)),
            byte_size(len(cost.recipe) * cost.image_bytes),
        )
    return table


def _digits(value: float) -> str:
    """Two digits that count, where there are as many."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:#.2g}"
