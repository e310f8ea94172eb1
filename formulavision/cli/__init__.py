"""The command line: a command parses, calls one public function, prints. Nothing heavy is imported before it runs."""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from formulavision.cli import bench, comparing, drawing, evaluating, plugins, training

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Runs a command; what the user can mend ends in one line and exit status 2, and Ctrl-C in one line and 130."""

    def invoke(self, ctx: Any) -> Any:
        from formulavision.util.errors import FormulaVisionError

        # A cluster's or a container's request to end is answered as Ctrl-C is: the state can be resumed.
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except FormulaVisionError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            sys.stderr.write(
                "\nstopped; what is finished is kept: run the same command again to go on (training: with --resume)\n"
            )
            sys.exit(130)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}")


def _interrupt(*signal_and_frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(2)


app = typer.Typer(
    cls=_Commands,
    name="formulavision",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Formula-driven supervised learning: draw labelled images from formulas, pre-train, fine-tune, compare."
    "\n\nA first look: [bold]formulavision preview --plugin ifs --out sheet.png[/bold]"
    "\n\nThe whole way in one command: [bold]formulavision compare configs/quickstart.yaml[/bold]",
)
plugins.add_to(app)
drawing.add_to(app)
bench.add_to(app)
training.add_to(app)
evaluating.add_to(app)
comparing.add_to(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from formulavision import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()
