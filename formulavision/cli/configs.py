"""``configs``: the recipes and comparisons that ship with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from formulavision.cli import options as o
from formulavision.cli.commands import App, Group

configs = App(cls=Group, help="List recipes and comparisons that ship; copy them.", invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(configs, name="configs", rich_help_panel="Look")


@configs.callback()
def list_configs(context: typer.Context) -> None:
    """List the recipes and comparisons that ship; [bold]configs copy NAME[/bold] writes one to change it.

    generate, preview and bench take a recipe's name, compare a comparison's: formulavision compare quickstart
    """
    if context.invoked_subcommand is not None:
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from formulavision.util.console import STDOUT
    from formulavision.util.shipped import shipped_configs

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("name", "kind", "about"):
        table.add_column(heading, overflow="fold")
    for name, path in shipped_configs().items():
        text = path.read_text(encoding="utf-8")
        kind = "comparison" if "\narms:" in text else "recipe"
        table.add_row(name, kind, escape(first_sentence(text)))
    STDOUT.print(table)
    STDOUT.print("A copy to change: [bold]formulavision configs copy NAME[/bold]")


@configs.command("copy")
def copy(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of configs; see 'formulavision configs'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")] = Path(),
    overwrite: o.Overwrite = False,
) -> None:
    """Copy recipes and comparisons that ship into a folder.

    formulavision configs copy quickstart
    """
    from formulavision.util.config import did_you_mean
    from formulavision.util.console import say
    from formulavision.util.errors import ConfigError
    from formulavision.util.files import check_new_file, write_text
    from formulavision.util.shipped import shipped_configs

    if out.suffix in (".yaml", ".yml") and not out.is_dir():
        raise ConfigError(f"--out {out}: names a folder, not a file; in it, the configs keep their names")
    shipped, texts = shipped_configs(), dict[Path, str]()
    for name in names:
        if name not in shipped:
            raise ConfigError(f"{name}: there is no config of this name{did_you_mean(name, shipped)}")
        text = shipped[name].read_text(encoding="utf-8")
        if texts.setdefault(out / shipped[name].name, text) != text:
            raise ConfigError(f"{name}: another one of these configs is named {shipped[name].name}: copy it elsewhere")
        for classes in shipped[name].parent.glob("*.txt"):
            if classes.name in text:
                texts[out / classes.name] = classes.read_text(encoding="utf-8")
    for file in texts:
        check_new_file(file, overwrite=overwrite, picture=False)
    out.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_text(file, text)
        say(f"written to {file}")


def first_sentence(text: str) -> str:
    """The first sentence, or question, of the comment at the start of a file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# "))
    return re.split(r"\. |(?<=\?) ", " ".join(lines), maxsplit=1)[0]
