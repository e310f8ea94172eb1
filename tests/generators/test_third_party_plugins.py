"""Real distributions of somebody else's, installed by pip and used through the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

THIRD_PARTY = Path(__file__).parents[1] / "third_party"

Cli = Callable[..., subprocess.CompletedProcess[str]]


def install(name: str, target: Path, work: Path) -> None:
    source = shutil.copytree(THIRD_PARTY / name, work / name)  # a build leaves files in its source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command line in an environment with both distributions."""
    target, work = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    for name in ("rings", "broken"):
        install(name, target, work)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "formulavision", *arguments],
            capture_output=True,
            text=True,
            cwd=work,
            env=environment,
        )

    return run


@pytest.fixture(scope="module")
def listed(cli: Cli) -> str:
    """All plugins, as the command line shows them."""
    return cli("plugins").stdout


def test_the_rings_generator_is_under_30_lines() -> None:
    assert len((THIRD_PARTY / "rings" / "formulavision_rings.py").read_text().splitlines()) < 30


def test_it_is_listed_with_package_and_version(listed: str) -> None:
    assert "formulavision-rings 0.3.0" in listed
    assert "Concentric rings" in listed


def test_its_parameters_are_shown(cli: Cli) -> None:
    shown = cli("plugins", "show", "rings").stdout
    assert "largest  number, 2 to 100, rings, default 12.0" in shown
    assert "most rings" in shown


@pytest.mark.slow
def test_it_is_generated_verified_previewed_and_trained_on(cli: Cli, tmp_path: Path) -> None:
    store, sheet, run = (str(tmp_path / name) for name in ("store", "sheet.png", "run"))
    steps = [
        ["generate", "--plugin", "rings", "--categories", "3", "--instances", "8", "--size", "32", "--workers", "1",
         "--out", store],
        ["verify", store, "--all"],
        ["preview", "--plugin", "rings", "--out", sheet, "--size", "32"],
        ["pretrain", "--data", store, "--model", "test_resnet", "--epochs", "1", "--batch-size", "8", "--crop", "32",
         "--out", run],
    ]  # fmt: skip
    for step in steps:
        done = cli(*step)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("absent", "No module named 'formulavision_broken_absent'"),
        ("newer", "FromTheFuture: asks for contract 99"),
        ("taken", "Impostor: the name 'ifs' is taken by formulavision"),
        ("leaver", "SystemExit: leaves while it is imported"),
    ],
)
def test_a_plugin_that_cannot_be_taken_is_named_in_one_line(listed: str, plugin: str, reason: str) -> None:
    lines = [line for line in listed.splitlines() if line.startswith(f"not loaded {plugin} ")]
    assert len(lines) == 1
    assert "formulavision-broken 9.9" in lines[0]
    assert reason in lines[0]


def test_the_others_work_beside_it(cli: Cli, tmp_path: Path) -> None:
    settings = ["--categories", "1", "--instances", "1", "--size", "32", "--workers", "1"]
    done = cli("generate", "--plugin", "perlin", *settings, "--out", str(tmp_path / "s"))
    assert done.returncode == 0, done.stderr


def test_a_plugin_that_raises_while_drawing_is_named_in_one_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("generate", "--plugin", "raising", "--categories", "1", "--instances", "1", "--out", str(tmp_path / "s"))
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(
        "error: 'raising' (formulavision-broken 9.9) failed while drawing category 00000, instance 0: "
        "ZeroDivisionError: no such picture ("
    )
    assert line.endswith("formulavision_broken.py, line 22)")
