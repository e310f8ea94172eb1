"""The sentences and the table of a comparison on the terminal and in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from formulavision.comparison.summary import summary
from formulavision.comparison.tables import Table
from formulavision.comparison.wording import STAR, caveats, explanations, grid, missing
from formulavision.util.console import say
from formulavision.util.text import markdown_text

__all__ = ["print_table", "to_markdown"]

_WIDE = 10_000
"""Width in characters of a table that is not printed on a terminal."""


def to_markdown(table: Table) -> str:
    """The table and its sentences in Markdown, in per cent: mean ± standard deviation over seeds, best in bold."""
    headings, rows = grid(table)
    lines = [[f"**{_escaped(t.text)}**" if t.mark == "best" else _escaped(t.text) for t in row] for row in rows]
    ruler = "|".join(" --- " if heading.kind == "words" else " ---: " for heading in headings)
    parts = [
        [f"# {markdown_text(table.findings.name)}"],
        *([f"> {_escaped(caveat)}"] for caveat in caveats(table.findings)),
        [f"- {_escaped(line)}" for line in _summary(table)],
        [markdown_text(explanations(table)[0])],
        [_markdown_row(_escaped(t.text) for t in headings), f"|{ruler}|", *map(_markdown_row, lines)],
        [f"- {_escaped(note)}" for note in _notes(table)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _summary(table: Table) -> list[str]:
    """Lines of the summary, the title of each part before its first."""
    parts = summary(table).items()
    return [text if i else f"{title}: {text}" for title, texts in parts for i, text in enumerate(texts)]


def _notes(table: Table) -> list[str]:
    """Sentences below the table."""
    findings = table.findings
    machines = Counter(result.computed.machine for result in findings.results if result.computed is not None)
    return [
        *explanations(table)[1:],
        *(f"{count} of {len(findings.results)} results computed on {name}." for name, count in machines.items()),
        *findings.notes,
        *missing(findings),
    ]


def _markdown_row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    # A lone star would be the start of italics.
    return markdown_text(text).replace(STAR, f"\\{STAR}")


def print_table(table: Table, folder: Path) -> None:
    """Print the table on the terminal with its sentences and the paths of its files, and last the summary."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    headings, rows = grid(table)
    printed = RichTable(title=escape(table.findings.name))
    for heading in headings:
        # In a narrow window, names are folded, and numbers stay whole.
        words = heading.kind == "words"
        printed.add_column(heading.text, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in rows:
        printed.add_row(*(f"[bold]{escape(t.text)}[/bold]" if t.mark == "best" else escape(t.text) for t in row))
    screen = Console(emoji=False)
    if not screen.is_terminal:
        # A file or a pipe is as wide as the table.
        screen.width = _WIDE
    screen.print(printed)
    files = (f"table: {folder / 'results.md'}", f"report: {folder / 'report.html'}")
    for sentence in (*caveats(table.findings), explanations(table)[0], *_notes(table), *files, *_summary(table)):
        say(sentence, screen)
