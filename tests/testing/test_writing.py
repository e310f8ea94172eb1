"""``plugins new`` writes a package that works; ``plugins check`` prints a line for each check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import faulty
import pytest
from typer.testing import CliRunner

from formulavision import plugins, register
from formulavision.cli import app
from formulavision.testing import new_plugin
from formulavision.util.errors import ConfigError


@pytest.mark.slow
def test_a_new_package_is_installed_by_pip_and_its_test_passes(tmp_path: Path) -> None:
    package, target = new_plugin("generator-2d", tmp_path), tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(target), str(package)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target), "PYTEST_ADDOPTS": "", "COLUMNS": "200"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=package, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "1 passed" in run("pytest", "-p", "no:cacheprovider")
    assert "formulavision-generator-2d 0.1.0" in run("formulavision", "plugins")


def test_a_new_package_has_what_its_readers_look_for(tmp_path: Path) -> None:
    package = new_plugin("ripples", tmp_path)
    files = sorted(path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file())
    assert files == [
        ".github/workflows/tests.yml",
        ".gitignore",
        "README.md",
        "formulavision_ripples.py",
        "pyproject.toml",
        "tests/digests.json",
        "tests/test_formulavision_ripples.py",
    ]
    texts = [(package / file).read_text() for file in files]
    assert not [text for text in texts if re.search("@(name|module|class)@", text)]
    assert '"formulavision-plugin"' in (package / "pyproject.toml").read_text()
    assert "ripples" not in plugins().generators
    assert [path.name for path in tmp_path.iterdir()] == ["formulavision-ripples"]


@pytest.mark.parametrize(
    "name", ["", "Ripples", "3d", "a b", "a.b", "a/b", "..", "é", "a-", "a_", "-a", "a" * 41, "a\n"]
)
def test_names_that_no_package_can_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^name: .* is not allowed: must be lower-case letters"):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("ifs", "formulavision "),
        ("quickstart", "a recipe or comparison that ships"),
        ("plugins", "the module formulavision_plugins"),
        ("configs", "the module formulavision_configs"),
    ],
)
def test_names_that_are_taken_are_refused(name: str, owner: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"name: '{name}' is taken by {owner}"):
        new_plugin(name, tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_exists_is_left_alone(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "formulavision-ripples"
    if kind == "broken link":
        path.symlink_to("nowhere")
    else:
        path.mkdir() if kind == "folder" else path.touch()
    result = CliRunner().invoke(app, ["plugins", "new", "ripples"])
    assert result.exit_code == 2 and "formulavision-ripples: exists: " in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# plugins check


def test_the_command_prints_a_line_for_each_check_and_ends_with_1_if_one_fails() -> None:
    register(faulty.SeedsTheGlobalNumbers)
    try:
        result = CliRunner().invoke(app, ["plugins", "check", "seedstheglobalnumbers"])
    finally:
        plugins().generators.pop("seedstheglobalnumbers")
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert "ok       instances differ, and categories differ" in lines
    place = lines.index("failed   no clock and no global random numbers are used")
    assert lines[place + 1].startswith("           global random numbers are drawn: ")
    assert "skipped  scenes of its own have objects: the generator has no scenes of its own" in lines
    assert lines[-1] == "seedstheglobalnumbers: 1 check failed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none"], "there is no generator 'none'"),
        (["ifs", "--write"], "--write: needs --digests"),
        (["ifs", "--set", "seed=1"], "--set: takes parameters of the generator here"),
        (["ifs", "--set", "generator.dots=0"], "generator.dots: 0 is not allowed"),
    ],
)
def test_what_cannot_be_checked_ends_with_2(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["plugins", "check", *arguments])
    assert result.exit_code == 2 and told in result.stderr
