"""Every code block of the documents is run, or says why not, by a comment in the line before it:

    <!-- not run: REASON -->    for readers: hours of training, their own data
    <!-- run by: TEST -->       another test of this project runs it, or compares it with what that test runs
    <!-- file: NAME -->         written to a file, which later blocks of the page use

Blocks without a comment are run in the order of their page, in one folder: Python in one namespace, commands by this
project's program. YAML has to be readable. ``<!-- code on this page is not run: REASON -->`` speaks for a whole page.
README.md has tests of its own (test_readme.py).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click import Context
from typer.main import get_command
from typer.testing import CliRunner

from formulavision.cli import app
from formulavision.util.config import parse_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
QUICK = {"clusters.md", "stores.md"}
FATES = ("not run", "run by", "file")
NOT_CODE = {"text", "mermaid"}


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, and the comment before it (``fate`` is empty without one)."""

    language: str
    text: str
    fate: str
    detail: str


def blocks_of(page: Path) -> list[Block]:
    pattern = r"(?:^<!-- ([\w ]+): ([^\n]*) -->\n)?^( *)```(\w*)\n(.*?)^ *```$"
    found = re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    return [
        Block(language, text, fate, detail) for fate, detail, _, language, text in found if language not in NOT_CODE
    ]


def to_run(page: Path) -> list[Block]:
    if "<!-- code on this page is not run: " in page.read_text():
        return []
    return [block for block in blocks_of(page) if block.fate in ("", "file")]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=named)
def test_each_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        assert block.fate in ("", *FATES), f"not {' or '.join(FATES)}: {block.fate}"
        assert block.language, f"a block without a language:\n{block.text}"
        if block.fate == "run by":
            assert page.name in (ROOT / block.detail).read_text(), f"{block.detail} does not name {page.name}"
    for block in to_run(page):
        if block.language == "sh" and not block.fate:
            programs = {line.split()[0] for line in commands_of(block)}
            assert programs == {"formulavision"}, f"cannot be run by a test: say <!-- not run: REASON -->\n{block.text}"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # other libraries leave files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=named(page), marks=() if page.name in QUICK else pytest.mark.slow)
        for page in PAGES
        if to_run(page)
    ],
)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for block in to_run(page):
        if block.fate == "file":
            (tmp_path / block.detail).write_text(block.text)
        if block.language == "python":
            exec(compile(block.text, str(page), "exec"), names)
        elif block.language == "yaml":
            assert parse_yaml(block.text) is not None
        elif block.language == "sh":
            for line in commands_of(block):
                done = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
                assert done.exit_code == 0, f"{line}\n{done.output}"


SCRIPTS = [block.text for page in PAGES for block in blocks_of(page) if block.text.startswith("#!/bin/bash")]


@pytest.mark.parametrize("variable", ["SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX"])
def test_scripts_of_schedulers_are_bash_whose_jobs_get_their_numbers(tmp_path: Path, variable: str) -> None:
    """A scheduler runs a script once for each number of its array, with the number in a variable."""
    program = tmp_path / "formulavision"
    program.write_text(f"#!/bin/bash\nprintf '%s\\n' \"$@\" >> {tmp_path}/arguments\n")
    program.chmod(0o755)
    scripts = [script for script in SCRIPTS if variable in script]
    for script in scripts:
        found = re.search(r"^#(?:SBATCH --array=|PBS -J )1-(\d+)$", script, re.MULTILINE)
        assert found
        last = found[1]
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", variable: last, "PBS_O_WORKDIR": str(tmp_path)}
        subprocess.run(["bash", "-eu", "-c", script], env=environment, check=True)
        arguments = (tmp_path / "arguments").read_text().split()
        assert arguments[arguments.index("--job") + 1] == f"{last}/{last}"
        command = get_command(app).commands[arguments[0]]  # type: ignore[attr-defined]
        command.make_parser(Context(command)).parse_args(arguments[1:])
        (tmp_path / "arguments").unlink()
    assert scripts


def commands_of(block: Block) -> list[str]:
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
