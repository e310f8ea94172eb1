"""``doctor``: what a bug report needs, and what is wrong with an installation."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from formulavision.cli import app
from formulavision.generators import registry
from formulavision.util.console import STDOUT


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no row is folded."""
    monkeypatch.setattr(STDOUT, "width", 300)


def test_it_shows_versions_devices_threads_folders_and_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path))
    (tmp_path / "categories.npz").write_bytes(bytes(1_234))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0 and done.stdout.endswith("no problem found\n")
    rows = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    rows = {name: fact.strip() for name, fact in rows.items()}
    for package in ("formulavision", "torch", "numba", "scipy"):
        assert rows[package] == importlib.metadata.version(package)
    assert rows["threads of torch"] == str(torch.get_num_threads())
    assert rows["plugin perlin"].startswith("version 1, from formulavision ")
    assert rows["temporary files"].endswith(" free")
    assert re.search(r", [\d.]+ k?B used, [\d.]+ \wB free$", rows["cache"])
    assert ("GPUs" in rows) == (torch.cuda.device_count() == 0)


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "file" / "cache"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    problem = f"cache: nothing can be written to {tmp_path / 'file' / 'cache'}: Not a directory"
    assert re.search(rf"^ *problem  +{re.escape(problem)} *$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("1 problem\n")


def test_a_plugin_that_was_not_loaded_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.plugins().problems, "torn (formulavision-torn 1.0)", "ImportError: no module")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert (
        "problem" in done.stdout
        and "plugin torn (formulavision-torn 1.0) is not loaded: ImportError: no module" in done.stdout
    )
