"""Tables and closing lines on the terminal."""

from __future__ import annotations

from rich.console import Console

console = Console(highlight=False)


def say(text: str) -> None:
    """Print text as it is: paths and other people's messages may hold what looks like markup."""
    console.print(text, markup=False, soft_wrap=True)


def size_text(size: float) -> str:
    """Bytes for people: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
