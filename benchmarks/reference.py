"""The reference pages of the documentation site: made from the program when mkdocs builds it, so they state what is.

A hook of mkdocs (``mkdocs.yml``). It adds ``reference/commands.md`` from the Typer app, ``reference/python.md`` from
the public names in ``formulavision/__init__.pyi``, and ``reference/parameters.md`` from the ``Params`` of every
generator that ships, with the pictures that ``benchmarks/parameters.py`` drew. Notebooks become pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from formulavision import plugins
from formulavision.cli import app
from formulavision.cli.plugins import describe, summary

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FIRST = {
    "Draw and store": ("Recipe", "FormulaDataset", "generate", "StoredDataset", "preview"),
    "Train and evaluate": ("pretrain", "finetune", "Run", "evaluate", "probe", "export_model"),
    "Compare": ("compare", "sweep", "report", "Comparison"),
}
"""The names that a reader needs first, in the README's order, with their headings."""
ROOMS = {
    "recipes": "More of recipes and drawing",
    "storage": "More of stores",
    "data": "More of datasets and downstreams",
    "training": "More of training",
    "evaluation": "More of evaluation",
    "comparison": "More of comparisons",
    "generators": "For authors of generators",
    "explorer": "Explorer",
    "util": "Errors",
}
"""Rooms, with the headings of their other names, which follow."""


PARAMETERS = """# Parameters of the generators

Made from the generators' `Params`. `--set generator.NAME=VALUE` sets one; in a recipe it stands under `generator`.
The pictures show one image of one category with each parameter at the ends of its range, all others at their defaults.
Parameters that change nothing in such an image are not shown. A dash stands where the generator refuses that end alone,
or needs more than half a minute to find a category.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    for name, lines in (("commands", commands()), ("python", public_names()), ("parameters", parameters())):
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines) + "\n"))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix("ipynb") + "md"
        files.append(File.generated(config, page, content=notebook_as_markdown(notebook.content_string)))
    return files


def notebook_as_markdown(notebook: str) -> str:
    cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"])
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files outside of ``docs/`` lose their target: the site does not have these files."""
    folder = Path(config.docs_dir, page.file.src_uri).parent
    markdown = re.sub(r"\]\((notebooks/[\w-]+)\.ipynb\)", r"](\1.md)", markdown)
    if page.file.src_uri == "index.md":  # which names no page that only the site has
        generated = "[Commands](reference/commands.md), [Python](reference/python.md), [generators](generators.md)"
        markdown = markdown.replace("[Generators](generators.md)", generated)

    def link(found: re.Match[str]) -> str:
        target = (folder / found["path"]).resolve()
        outside = target.exists() and not target.is_relative_to(config.docs_dir)
        return found["text"] if outside or target.is_dir() else found[0]

    return re.sub(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>(?!https?:|#)[^)#]+)(?P<anchor>#[^)]*)?\)", link, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names in docstrings, ``:func:`score```, become code, linked to where the page explains them."""
    anchors = {name.rpartition(".")[2]: name for name in re.findall(r'id="(formulavision\.[\w.]+)"', html)}

    def linked(found: re.Match[str]) -> str:
        name = found["path"].rpartition(".")[2]
        code = f"<code>{name}</code>"
        return f'<a href="#{anchors[name]}">{code}</a>' if name in anchors else code

    return re.sub(r":(?:class|func|meth|attr|data|mod):<code>~?(?P<path>[\w.]+)</code>", linked, html)


def commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "Made from the program: `formulavision COMMAND --help` shows the same.\n"
    for names, command in walk(get_command(app), ["formulavision"]):
        yield f"## {' '.join(names[1:])}\n"
        context = command.context_class(command, info_name=" ".join(names))
        yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
        yield f"{prose(command.help)}\n"
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [f"| {option(name)} | {cell(meaning)} |" for name, meaning in filter(None, records)]
        if rows:
            yield "\n".join(["| argument, option | meaning |", "| --- | --- |", *rows, ""])


def option(record: str) -> str:
    """Names of an option, and what it takes, which may be on a line of its own."""
    names, value = re.fullmatch(r"([\w|-]+(?:, ?--[\w-]+)*) ?(.*)", record).groups()  # type: ignore[union-attr]
    return f"`{names}` `{value}`" if value else f"`{names}`"


def walk(command: Any, names: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Every command behind its names; a group that does something by itself comes before its commands."""
    inner = getattr(command, "commands", {})
    if len(names) > 1:
        yield names, command
    for name, one in inner.items():
        yield from walk(one, [*names, name])


def prose(text: str | None) -> str:
    """Help text without Rich's markup; a command at the end of a paragraph becomes code."""
    plain = re.sub(r"\[/?(?:bold|dim|cyan|italic|red|green|yellow)\]", "", text or "").strip()
    plain = cell(plain.replace("\f", "").replace("\\[", "["))

    def code(found: re.Match[str]) -> str:
        return f"{found[1]}`{' '.join(found[2].split())}`"

    paragraphs = (re.sub(r"(?s)(^|[:?] )(formulavision .+)$", code, one) for one in plain.split("\n\n"))
    return "\n\n".join(paragraphs)


def public_names() -> Iterator[str]:
    yield "# Python\n"
    yield "The public names, as `import formulavision as fv` has them. Made from signatures and docstrings.\n"
    stub = (ROOT / "formulavision" / "__init__.pyi").read_text(encoding="utf-8")
    found = re.findall(r"^from \.([\w.]+) import (\w+) as \w+$", stub, re.MULTILINE)
    modules = {name: module for module, name in found if not name.startswith("_")}
    first = [name for names in FIRST.values() for name in names]
    others = [name for name in modules if name not in first]
    groups = FIRST | {title: [n for n in others if modules[n].split(".")[0] == room] for room, title in ROOMS.items()}
    for title, names in groups.items():
        yield f"## {title}\n"
        yield from (f"::: formulavision.{defined_in(modules[name], name)}.{name}\n" for name in names)


def defined_in(module: str, name: str) -> str:
    """The module that defines a name which a package passes on lazily, by a stub of its own."""
    stub = ROOT / "formulavision" / Path(*module.split(".")) / "__init__.pyi"
    found = re.search(rf"^from \.([\w.]+) import {name} as", stub.read_text(), re.MULTILINE) if stub.exists() else None
    return f"{module}.{found[1]}" if found else module


def parameters() -> Iterator[str]:
    yield PARAMETERS
    for name, entry in sorted(plugins().generators.items()):
        if not entry.origin.startswith("formulavision "):
            continue
        generator = entry.generator
        yield f"## {name}\n"
        devices = "CPU and GPU" if entry.draws_on_devices else "the CPU"
        yield f"{summary(generator)} Pixel version {generator.version}; draws on {devices}.\n"
        rows = list(describe(generator.Params))
        if not rows:
            yield "No parameters.\n"
            continue
        yield "| parameter | type, range, unit, default | meaning |\n| --- | --- | --- |"
        yield "\n".join(f"| `{n}` | {cell(facts)} | {cell(meaning)} |" for n, facts, meaning in rows) + "\n"
        picture = f"images/parameters/{name}.png"
        if (ROOT / "docs" / picture).exists():
            yield f"![Images of {name} with each parameter at the ends of its range](../{picture})\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
