"""``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from formulavision.cli import options as o


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Compare")(compare)


def compare(
    config: Annotated[Path, typer.Argument(help="A comparison (YAML), such as configs/quickstart.yaml.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; default: runs/NAME-OF-THE-FILE.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting by its path: --set downstreams.cifar10.root=/data/cifar10"),
    ] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Pre-train, fine-tune and evaluate every arm; leave a table and a report. Run again, it goes on where it stopped.

    formulavision compare configs/quickstart.yaml
    """
    from formulavision.comparison import ComparisonSettings
    from formulavision.comparison import compare as run

    comparison = ComparisonSettings.load(config, settings or [])
    result = run(comparison, out=out or Path("runs") / config.stem, overwrite=overwrite)
    if result.failures:
        raise typer.Exit(1)
