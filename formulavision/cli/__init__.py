"""The command line: a command parses, calls one public function, prints. Nothing heavy is imported before it runs."""

from __future__ import annotations

import sys
import traceback
from typing import Any, NoReturn

import typer

from formulavision.cli import (
    bench,
    comparing,
    configs,
    doctor,
    drawing,
    evaluating,
    exploring,
    plugins,
    scoring,
    sharing,
    training,
)
from formulavision.cli.commands import App, Group

__all__ = ["app", "main"]


_GOES_ON = {
    **dict.fromkeys(("generate", "compare"), "; what is finished is kept: run the same command again{} to go on"),
    **dict.fromkeys(
        ("pretrain", "finetune"), "; run the same command with --resume{} to go on from the last checkpoint"
    ),
}
"""By the name of a command that keeps unfinished work, what to do after Ctrl-C. Other commands begin again."""


class _Commands(Group):
    """Runs a command; what the user can mend ends in one line and exit status 2, Ctrl-C and SIGTERM in one line and 130
    and 143.

    Any other exception is a bug of FormulaVision, which ends in one line and 1. ``--debug`` shows the traceback, too.
    """

    def invoke(self, ctx: Any) -> Any:
        from formulavision.util.errors import FormulaVisionError, one_line
        from formulavision.util.interrupts import Terminated, catch_signals

        # A cluster's or a container's request to end is answered as Ctrl-C is: the state can be resumed.
        try:
            with catch_signals():
                return super().invoke(ctx)
        except FormulaVisionError as error:
            _fail(ctx, str(error))
        except KeyboardInterrupt as error:
            without = ", without --overwrite," if ctx.params.get("overwrite") else ""
            sys.stderr.write(f"\nstopped{_GOES_ON.get(ctx.invoked_subcommand, '').format(without)}\n")
            sys.exit(error.code if isinstance(error, Terminated) else 130)
        except BrokenPipeError:
            raise  # by what reads the output, such as head: see __main__.py
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):  # Rich says so
                raise
            _fail(ctx, "a plugin or a library ended the command by itself (sys.exit)")
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(ctx, f"{where}{error.strerror or error}")
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("click", "typer"):
                raise
            told = f"{type(error).__name__}: {one_line(error)}".rstrip(": ")
            _fail(ctx, f"this is a bug in FormulaVision ({told}): --debug shows where; please report it", status=1)


def _fail(ctx: Any, message: str, status: int = 2) -> NoReturn:
    if ctx.params["debug"]:
        traceback.print_exc()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(status)


app = App(
    cls=_Commands,
    name="formulavision",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Formula-driven supervised learning: draw labelled images from formulas, pre-train, fine-tune, compare."
    "\n\nA first look: [bold]formulavision preview ifs --out sheet.png[/bold]"
    "\n\nThe whole way in one command: [bold]formulavision compare quickstart[/bold]",
)
plugins.add_to(app)
drawing.add_to(app)
bench.add_to(app)
scoring.add_to(app)
exploring.add_to(app)
training.add_to(app)
evaluating.add_to(app)
comparing.add_to(app)
sharing.add_to(app)
configs.add_to(app)
doctor.add_to(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit.")) -> None:
    if version:
        from formulavision.util.version import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()
