"""``plugins``: the installed generators and their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from formulavision.cli.commands import App, Group

if TYPE_CHECKING:
    from pydantic import BaseModel

    from formulavision.generators.contract import Generator

plugins = App(cls=Group, help="List generators; [bold]show NAME[/bold] explains one.", invoke_without_command=True)


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
        table.add_row(name, str(generator.version), gpu, escape(entry.origin), escape(summary(generator)))
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
    STDOUT.print(escape(summary(generator)))
    STDOUT.print(f"draws on the CPU{', and on a GPU (--device cuda)' if entry.draws_on_devices else ' only'}")
    for title, model in (("generator", generator.Params), ("canvas", Canvas)):
        STDOUT.print(f"\n--set {title}.PARAMETER=VALUE", style="dim")
        for parameter, facts, description in describe(model, channels=generator.default_channels):
            STDOUT.print(f"[bold]{parameter}[/bold]  [cyan]{escape(facts)}[/cyan]", soft_wrap=True)
            STDOUT.print(Padding(escape(description), (0, 0, 0, 4)))


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
        facts = [kind, range_text(schema), str(extra.get("unit", "")), f"default {defaults.get(name, info.default)}"]
        yield name, ", ".join(fact for fact in facts if fact), info.description or ""


def summary(generator: type[Generator]) -> str:
    """First line of the docstring of the generator's class, or else of its module."""
    import sys

    text = generator.__dict__.get("__doc__") or sys.modules[generator.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]


def range_text(schema: dict[str, object]) -> str:
    """The limits of a number in words."""
    limits = (schema.get(name, schema.get(f"exclusive{name.title()}")) for name in ("minimum", "maximum"))
    # pydantic before 2.11 gives the limits of float fields as floats.
    low, high = (int(n) if isinstance(n, float) and n.is_integer() else n for n in limits)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"from {low}" if low is not None else f"to {high}" if high is not None else ""
