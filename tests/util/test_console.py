"""Lines on the terminal are printed as they are."""

from __future__ import annotations

import pytest
from rich.console import Console

from formulavision.util.console import STDERR, say


def test_text_that_looks_like_markup_is_printed_as_it_is_and_uncut(capsys: pytest.CaptureFixture[str]) -> None:
    line = "runs/[bold]x[/bold]/[0] on folder:cat: 1,000 images " + "x" * 300
    say(line)
    say(line, STDERR)
    say(line, Console(quiet=True))
    assert capsys.readouterr() == (f"{line}\n", f"{line}\n")
