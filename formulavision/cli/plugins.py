"""``plugins``: the installed generators, their parameters and checks; new ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from formulavision.cli import options as o
from formulavision.cli.commands import App, Group

if TYPE_CHECKING:
    from pydantic import BaseModel

    from formulavision.generators.contract import Generator

plugins = App(
    cls=Group,
    help="List generators; [bold]show NAME[/bold] explains one, [bold]check NAME[/bold] checks one, "
    "[bold]new NAME[/bold] writes one.",
    invoke_without_command=True,
)
_SECONDS_WITHOUT_A_BAR = 2


def add_to(app: typer.Typer) -> None:
    app.add_typer(plugins, name="plugins", rich_help_panel="Look")


@plugins.callback()
def list_plugins(context: typer.Context) -> None:
    """List the installed generators with package and version; [bold]plugins show NAME[/bold] explains one."""
    if context.invoked_subcommand is not None:
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from formulavision.generators.registry import plugins
    from formulavision.util.console import STDOUT, say

    found = plugins()
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("generator", "pixel version", "GPU", "package", "what it draws"):
        table.add_column(heading, overflow="fold")
    for name, entry in sorted(found.generators.items()):
        generator, gpu = entry.generator, "yes" if entry.draws_on_devices else "no"
        table.add_row(
            name, str(generator.version), gpu, escape(entry.origin), escape(summary(generator).replace("`", ""))
        )
    STDOUT.print(table)
    for plugin, line in found.problems.items():
        say(f"not loaded {plugin}: {line}")
    STDOUT.print("Parameters: [bold]formulavision plugins show NAME[/bold]")


@plugins.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of a generator.")]) -> None:
    """Show every parameter of a generator: type, unit, range, default and meaning."""
    from rich.markup import escape
    from rich.padding import Padding

    from formulavision.generators.contract import Canvas
    from formulavision.generators.registry import plugins
    from formulavision.util.console import STDOUT

    entry = plugins()[name]
    generator = entry.generator
    STDOUT.print(f"[bold]{name}[/bold], pixel version {generator.version}, from {entry.origin}")
    STDOUT.print(escape(summary(generator).replace("`", "")))
    STDOUT.print(f"draws on the CPU{', and on a GPU (--device cuda)' if entry.draws_on_devices else ' only'}")
    for title, model in (("generator", generator.Params), ("canvas", Canvas)):
        STDOUT.print(f"\n--set {title}.PARAMETER=VALUE", style="dim")
        for parameter, facts, description in describe(model, channels=generator.default_channels):
            STDOUT.print(f"[bold]{parameter}[/bold]  [cyan]{escape(facts)}[/cyan]", soft_wrap=True)
            STDOUT.print(Padding(escape(description), (0, 0, 0, 4)))


@plugins.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Name of a generator.")],
    digests: Annotated[
        Path | None, typer.Option("--digests", help="File of digests of its images, in the plugin's tests.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the file of digests, for a new version or where there is none.")
    ] = False,
    settings: o.Settings = None,
) -> None:
    """Check whether a generator keeps the contract: same images always, alone and in batches, on every canvas, ...

    formulavision plugins check ifs --set generator.dots=1000

    Without a GPU, TRITON_INTERPRET=1 in the environment draws with Triton's interpreter, which is slow.

    Exit status: 0 if all is right, 1 if a check failed, 2 if nothing can be checked.
    """
    from formulavision.testing import TITLES, Check, run_checks, write_digests
    from formulavision.util.config import apply_settings
    from formulavision.util.console import say
    from formulavision.util.errors import ConfigError
    from formulavision.util.progress import progress_bars
    from formulavision.util.text import counted

    params = apply_settings({}, settings or []).get("generator", {})
    if any(not setting.startswith("generator.") for setting in settings or []):
        raise ConfigError("--set: takes parameters of the generator here: generator.NAME=VALUE")
    if write and digests is None:
        raise ConfigError("--write: needs --digests with the file to write")
    checks: list[Check] = []
    with progress_bars() as bars:

        def show(title: str, done: int, total: int) -> None:
            bars.show("checks", len(checks), len(TITLES))
            if total > 1 and time.monotonic() - began > _SECONDS_WITHOUT_A_BAR:
                bars.show(title, done, total)

        if write and digests is not None:
            write_digests(name, digests, params=params)
        began = time.monotonic()
        for found in run_checks(name, params=params, digests=digests, progress=show):
            checks.append(found)
            began = time.monotonic()
    for found in checks:
        mark = "skipped" if found.skipped else "failed " if found.problems else "ok     "
        say(f"{mark}  {found.title}" + (f": {found.notes[0]}" if found.skipped else ""))
        for line in [*found.problems, *([] if found.skipped else found.notes)]:
            say(f"           {line}")
    failed = sum(bool(found.problems) for found in checks)
    say(f"{name}: {counted(failed, 'check')} failed" if failed else f"{name}: keeps the contract")
    if failed:
        raise typer.Exit(1)


@plugins.command("new")
def new(name: Annotated[str, typer.Argument(help="Name of the new generator.")]) -> None:
    """Write a package with a new generator into ./formulavision-NAME: it draws, and its test passes.

    formulavision plugins new ripples
    """
    from formulavision.testing import new_plugin
    from formulavision.util.console import say

    folder = new_plugin(name)
    say(f"written to {folder}")
    say(f"install it:  pip install -e {folder}")
    say(f"look at it:  formulavision preview {name} --out sheet.png")
    say(f"check it:    formulavision plugins check {name}")


def describe(model: type[BaseModel], **defaults: object) -> Iterator[tuple[str, str, str]]:
    """Name, facts (type or choices, range, unit, default) and description of each field.

    Args:
        defaults: of fields whose default is the generator's own.
    """
    properties = model.model_json_schema()["properties"]
    for name, info in model.model_fields.items():
        schema = properties[name]
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        choices = schema.get("enum")
        kind = " | ".join(str(c) for c in choices) if isinstance(choices, list) else schema.get("type", "value")
        default = defaults.get(name, info.default)
        words = "unset" if default is None else str(default).lower() if isinstance(default, bool) else default
        facts = [kind, range_text(schema), str(extra.get("unit", "")), f"default {words}"]
        yield name, ", ".join(fact for fact in facts if fact), info.description or ""


def summary(generator: type[Generator]) -> str:
    """First line of the docstring of the generator's class, or else of its module."""
    import sys

    text = generator.__dict__.get("__doc__") or sys.modules[generator.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]


def range_text(schema: dict[str, object]) -> str:
    """The limits of a number in words."""
    limits = []
    for name, inside in (("minimum", 1), ("maximum", -1)):
        beyond = schema.get(f"exclusive{name.title()}")
        if isinstance(beyond, int) and schema.get("type") == "integer":
            beyond += inside
        limits.append(schema.get(name, beyond))
    # pydantic before 2.11 gives the limits of float fields as floats.
    low, high = (int(n) if isinstance(n, float) and n.is_integer() else n for n in limits)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"from {low}" if low is not None else f"to {high}" if high is not None else ""
