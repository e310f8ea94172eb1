"""``push`` and ``pull``."""

from __future__ import annotations

from typing import Annotated

import typer

from formulavision.cli import options as o


def add_to(app: typer.Typer) -> None:
    for command in (push, pull):
        app.command(rich_help_panel="Share")(command)


Url = Annotated[str, typer.Argument(help="Repository of the Hugging Face Hub: hf://USER/NAME.", show_default=False)]


def push(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a store or of a complete run; or a recipe: a file or a name.", show_default=False
        ),
    ],
    url: Url,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a store, a run's model or a recipe to the Hugging Face Hub, with a card.

    formulavision push data/ifs hf://me/my-fractals

    A store and a recipe become a dataset, whose card has a contact sheet; a run becomes a model, as export writes it.
    Log in first: hf auth login. Set the licence in the card's first lines before you share it.
    """
    from formulavision.training.hub import push as run
    from formulavision.util.console import say

    say(run(source, url, private=private))


def pull(url: Url, out: o.Out) -> None:
    """Download a store, a model or a recipe from the Hugging Face Hub. A store's files are compared with its checksums.

    formulavision pull hf://me/my-fractals --out data/fractals

    A dataset is looked for first, then a model; hf://models/USER/NAME names a model.
    """
    from formulavision.training.hub import fetch
    from formulavision.util.console import say

    folder, kind = fetch(url, out)
    say(f"{folder}: the {kind} {url}")
