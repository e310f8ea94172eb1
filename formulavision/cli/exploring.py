"""``explore``."""

from __future__ import annotations

from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Look")(explore)


def explore(
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RECIPE|STORE|COMPARISON",
            help="Name of a generator (ifs), file of a recipe (YAML), or name of a recipe that ships (fractaldb-1k); "
            "folder or URL of a store; folder of a comparison, of one that is going on too.",
        ),
    ] = "ifs",
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address that is listened on; 0.0.0.0: every address of this machine, then with a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Number of the port; 0: one that is free.")
    ] = 7860,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help="Text that the page's address must hold. By default none for this machine alone, and one at random "
            "where others reach the page.",
        ),
    ] = None,
) -> None:
    """Look at a formula in the browser: turn its parameters, see its images, take its recipe; or at a store or a
    comparison. Needs Gradio: pip install 'formulavision\\[explore]'.

    formulavision explore ifs

    formulavision explore runs/comparison
    """
    from formulavision.explorer.app import explore as run

    run(target, host=host, port=port, token=token)
