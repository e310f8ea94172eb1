"""Comparisons that run at once do not get into each other's way."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from formulavision import compare
from formulavision.comparison import Comparison
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.folders import LOCK, locked


def nobody() -> None:
    raise AssertionError("held by somebody")


def test_a_stage_that_another_computes_is_waited_for_and_taken(
    first: Comparison,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import formulavision.comparison.runner
    import formulavision.training

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    waits = threading.Event()
    say = formulavision.comparison.runner.say

    def listen(line: str, *console: Any) -> None:
        say(line, *console)
        if "waiting" in line:
            waits.set()

    for name in ("pretrain", "finetune"):
        monkeypatch.setattr(formulavision.training, name, refuse)
    monkeypatch.setattr(formulavision.comparison.runner, "say", listen)
    settings["arms"] = {"scratch": {}}
    entry = first.findings.results[0]
    assert entry.folder is not None
    done = first.folder / entry.folder
    pool = tmp_path / "pool"
    folder = pool / "of-another-name" / done.name
    lock = pool / f"{done.name.rpartition('-')[2]}.lock"
    held = threading.Event()

    def other() -> None:
        with locked(lock, nobody):
            held.set()
            assert waits.wait(60)
            shutil.copytree(done, folder)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(60)
    result = compare(settings, out=tmp_path / "out", runs=pool)
    thread.join(60)
    assert result.results[0].score == entry.score
    assert f"{pool / 'scratch' / done.name} is being computed by another process: waiting" in capsys.readouterr().err
    assert result.findings.results[0].folder == f"../pool/of-another-name/{done.name}"
    assert not lock.exists()


def test_two_comparisons_in_one_folder_are_refused(first: Comparison, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["arms"] = {"scratch": {}}
    out = tmp_path / "out"
    compare(settings, out=out, runs=first.folder / "runs", show_progress=False)
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    with (
        locked(out / LOCK, nobody),
        pytest.raises(StoreError, match=r"out: another process writes there .* give another --out"),
    ):
        compare(settings, out=out, overwrite=True, show_progress=False)
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before


def test_one_of_several_processes_of_torchrun_is_refused(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"start it without torchrun, and set pretrain\.devices=N"):
        compare(settings, out=tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_of_stages(first: Comparison, tmp_path: Path) -> None:
    assert first.settings is not None
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file: cannot be written"):
        compare(first.settings, out=tmp_path / "out", runs=tmp_path / "file", show_progress=False)
