"""``score``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from formulavision.cli import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from formulavision.evaluation import FormulaScore


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Look")(score)


def score(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE",
            help="Recipes: names of generators, files (YAML), names of recipes that ship, or folders of stores.",
            show_default=False,
        ),
    ],
    categories: Annotated[
        int, typer.Option("--categories", help="Number of categories, at most; at even distances.")
    ] = 1000,
    images: Annotated[
        int, typer.Option("--images", help="Number of images of all categories together, about; at least 2 of each.")
    ] = 4000,
    crop: Annotated[
        int, typer.Option("--crop", help="Side in pixels to which images are resized before they are measured.")
    ] = 64,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            help="Network whose features are used, too: a run's folder, a file of weights, or timm:NAME.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the choice of images.")] = 0,
    settings: o.Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The PNG to write: a bar for each recipe and measure.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file to write: a line for each recipe.")] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Measure recipes by their images alone, before a model is trained on them: how well a random network tells their
    categories apart, spread within categories, slope of the spectrum, near-duplicates, entropy.

    formulavision score ifs perlin bezier --out scores.png
    """
    from dataclasses import asdict, replace

    from formulavision.util.errors import ConfigError
    from formulavision.util.files import check_new_file

    if out is not None:
        check_new_file(out, overwrite=overwrite)
    if csv is not None:
        check_new_file(csv, overwrite=overwrite, picture=False)
        if out is not None and out.absolute() == csv.absolute():
            raise ConfigError("--csv: is the file of --out, too: give another one")
    if settings and (store := next((name for name in names if _is_store(name)), None)):
        raise ConfigError(f"--set {settings[0]}: {store} is a store, whose images are drawn: settings are for recipes")
    from formulavision.storage import Store

    opened: list[Any] = [
        Store(name) if _is_store(name) else o.make_recipe(name, None, settings=settings) for name in names
    ]
    for name, data in zip(names, opened, strict=True):
        if data.layout.scenes is not None if isinstance(data, Store) else data.is_scene:
            raise ConfigError(f"{name}: has scenes of several objects: score measures images with one category each")
    from formulavision.evaluation import score as run
    from formulavision.evaluation import score_sheet
    from formulavision.util.console import STDOUT, say
    from formulavision.util.files import write_png
    from formulavision.util.text import write_csv

    scores = []
    for name, data in zip(names, opened, strict=True):
        found = run(data, categories=categories, images=images, crop=crop, checkpoint=checkpoint, seed=seed)
        scores.append(replace(found, name=name))
    STDOUT.print(_table(scores))
    fewest = min(each.categories for each in scores)
    if any(each.categories != fewest for each in scores):
        say(f"separability falls with the number of categories: --categories {fewest} makes these recipes comparable")
    if csv is not None:
        rows = [asdict(each) for each in scores]
        write_csv(csv, [list(rows[0]), *(list(row.values()) for row in rows)])
        say(f"written to {csv}")
    if out is not None:
        write_png(out, score_sheet(scores))
        say(f"written to {out}")


def _is_store(name: str) -> bool:
    from formulavision.generators.registry import plugins
    from formulavision.util.config import user_path
    from formulavision.util.remote import is_url

    return is_url(name) or (name not in plugins().generators and user_path(name).is_dir())


def _table(scores: list[FormulaScore]) -> Table:
    """A row for each recipe."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from formulavision.evaluation.image_measures import NATURAL_SLOPE

    table = Table(box=box.SIMPLE_HEAD, header_style="", padding=(0, 0, 0, 1))
    # Headings are broken into lines rather than names.
    table.add_column("recipe", overflow="fold", min_width=min(24, max(len(each.name) for each in scores)))
    given = any(each.given_separability is not None for each in scores)
    headings = ["cate-\ngories", "images", "separ-\nability", *(["by the given network"] if given else []), "by chance"]
    headings += ["spread within", f"slope,\nnatural\n{NATURAL_SLOPE:g}", "near-\ndupli-\ncates", "entropy"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in scores:
        shares = [each.separability, *([each.given_separability] if given else []), each.chance, each.spread]
        slope = "-" if each.slope is None else f"{each.slope:.2f}"
        table.add_row(
            escape(each.name), f"{each.categories:,}", f"{each.images:,}", *map(_share, shares), slope,
            _share(each.duplicates), f"{each.entropy:.2f}",
        )  # fmt: skip
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
