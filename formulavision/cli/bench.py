"""``bench``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from formulavision.cli import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from formulavision.data.bench import Figures

_LABELS, _COLUMN = 44, 14
"""Characters for the names of the rows, and for a recipe."""


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Draw")(bench)


def bench(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CONFIG", help="Recipes (YAML); nothing: every installed generator.", show_default=False
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="Generator to measure with its defaults (may be repeated).", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Time for each measurement; a recipe has seven.")] = 1.0,
    settings: o.Settings = None,
    device: o.Device = "cpu",
) -> None:
    """Measure what searching, drawing, storing and reading cost here, and what that means for 1,000 x 1,000 images.

    formulavision bench configs/fractaldb-1k.yaml
    """
    from formulavision.data.bench import bench as run
    from formulavision.generators.registry import plugins
    from formulavision.recipes.device import check_device
    from formulavision.util.console import STDERR, STDOUT, say
    from formulavision.util.machine import cores as count_cores
    from formulavision.util.progress import progress_bars

    check_device(device)
    named = bool(configs or plugin)
    recipes = [(path.stem, o.make_recipe(path, None, settings=settings)) for path in configs or []]
    recipes += [(name, o.make_recipe(None, name, settings=settings)) for name in plugin or []]
    problems: list[str] = []
    if not named:
        problems += [f"not loaded {name}: {line}" for name, line in plugins().problems.items()]
        for name in sorted(plugins().generators):
            with _noted(problems):
                recipes.append((name, o.make_recipe(None, name, settings=settings)))
    measured: list[tuple[str, Figures]] = []
    with progress_bars() as bars:

        def show(before: int, done: int, total: int) -> None:
            bars.show("bench", before * total + done, len(recipes) * total)

        def compiling(generator: str) -> None:
            say(f"compiling {generator}, once an installation", STDERR)

        for i, (name, recipe) in enumerate(recipes):
            with _noted(problems, named):
                (figures,) = run(
                    [recipe], seconds=seconds, device=device, progress=partial(show, i), compiling=compiling,
                    note=problems.append,
                )  # fmt: skip
                measured.append((name, figures))
    cores = count_cores()
    across = max(1, (STDOUT.width - _LABELS) // _COLUMN)
    devices = sorted({figures.device for _, figures in measured}, key=lambda name: name == "cpu")
    for drew in devices:
        shown = [(name, figures) for name, figures in measured if figures.device == drew]
        for start in range(0, len(shown), across):
            STDOUT.print(_table(shown[start : start + across], cores, drew))
    for problem in problems:
        say(problem)
    gpu = any(drew != "cpu" for drew in devices)
    if gpu:
        say(
            "on the GPU: up to 256 images at once, which stay there. "
            "GPU to CPU: a batch of generate's, with its copy to the CPU's memory. Both are waited for."
        )
    say(
        "time: draw in a store's order + encode + write, if cores share the work evenly"
        + (", but no less than the one GPU takes to draw for all of them" if gpu else "")
        + "; the search is not in it."
    )


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


def _table(measured: list[tuple[str, Figures]], cores: int, device: str) -> Table:
    """The figures of recipes that one device drew."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from formulavision.util.text import byte_size, counted, duration

    gpu = device != "cpu"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("one core of this machine" + (f",\ndrawing on its {escape(device)}" if gpu else ""), no_wrap=True)
    for name, _ in measured:
        table.add_column(escape(name), justify="right", overflow="fold")
    figures = [figures for _, figures in measured]

    table.add_row("canvas, pixels", *(f"{f.recipe.canvas.size} x {f.recipe.canvas.size}" for f in figures))
    rates = (f.categories_per_second for f in figures)
    table.add_row("search, categories a second", *("-" if rate is None else _digits(rate) for rate in rates))
    table.add_section()
    table.add_row("milliseconds an image")
    table.add_row(
        "  draw on demand, at random" + (", on the GPU" if gpu else ""), *(_digits(f.on_demand_ms) for f in figures)
    )
    table.add_row("  draw in a store's order" + (", GPU to CPU" if gpu else ""), *(_digits(f.draw_ms) for f in figures))
    table.add_row("  encode as PNG", *(_digits(f.encode_ms) for f in figures))
    table.add_row("  write", *(_digits(f.write_ms) for f in figures))
    table.add_row("  read back, at random", *(_digits(f.read_ms) for f in figures))
    table.add_row("images a second")
    table.add_row("  on demand", *(f"{1000 / f.on_demand_ms:,.0f}" for f in figures))
    table.add_row("  into a store", *(f"{1 / f.generate_seconds(1, 1):,.0f}" for f in figures))
    table.add_row("bytes an image", *(f"{f.image_bytes:,.0f}" for f in figures))
    table.add_section()
    machine = ("one GPU and " if gpu else "") + counted(cores, "core")
    table.add_row(f"1,000 x 1,000 images on {machine}")
    table.add_row("  time", *(duration(f.generate_seconds(1_000_000, cores)) for f in figures))
    table.add_row("  size", *(byte_size(1_000_000 * f.image_bytes) for f in figures))
    return table


def _digits(value: float) -> str:
    """Two digits that count, where there are as many."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:#.2g}"
