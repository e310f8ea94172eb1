"""Runs and comparisons that are killed anywhere: what they write is stood for by a few bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_points import contents, kill_everywhere

from formulavision.comparison.run import _OURS
from formulavision.training.runs import LAST_CHECKPOINT, claim
from formulavision.training.settings import TrainSettings
from formulavision.util.files import commit, partial_path, write_json, write_text
from formulavision.util.folders import OwnedFolder, adding, locked

CLASSES = ["a", "b"]
FOREIGN = ("thesis.tex", "checkpoints/thesis.tex", "checkpoints/last.txt", "plots/thesis.tex", "runs/thesis.tex")


def train(out: Path, seed: int = 0, *, resume: bool = False, overwrite: bool = False) -> None:
    """A run as training writes it."""
    settings = TrainSettings(seed=seed).model_dump(mode="json")
    with claim(out, {"settings": settings}, CLASSES, resume=resume, overwrite=overwrite):
        (out / "logs").mkdir(exist_ok=True)
        (out / "logs/events").write_bytes(b"1")
        checkpoint = partial_path(out / LAST_CHECKPOINT)
        checkpoint.write_bytes(bytes([seed]))
        commit(checkpoint, out / LAST_CHECKPOINT)
        write_text(out / "metrics.csv", f"{seed}")
        write_json({"seed": seed}, out / "run.json")


def compare(out: Path, seed: int = 0, *, overwrite: bool = False) -> None:
    """A comparison as it writes its folder, with one stage."""
    owned = OwnedFolder(out, "comparison", last="report.html")
    with owned.writing({}, _OURS, overwrite=overwrite):
        write_text(out / "comparison.yaml", f"{seed}")
        owned.add(["runs/arm/.formulavision"])
        with locked(out / "runs/0.lock", pytest.fail):
            stage = out / "runs/arm"
            if not (stage / "run.json").exists():
                train(stage, seed, resume=True)
            with adding(stage, ["result.json"]):
                write_text(stage / "result.json", f"{seed}")
        for name in ("results.json", "plots/one.svg", "report.html"):
            write_text(out / name, f"{seed}")


def add_foreign(root: Path) -> dict[str, bytes]:
    for name in FOREIGN:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(name)
    return {name: name.encode() for name in FOREIGN}


@pytest.mark.parametrize("state", ["new", "overwritten"])
def test_a_run_that_is_killed_anywhere(tmp_path: Path, state: str) -> None:
    train(tmp_path / "whole")
    root, whole = tmp_path / "run", contents(tmp_path / "whole")

    def fresh() -> None:
        if state == "overwritten":
            train(root, 1)
            whole.update(add_foreign(root))

    def resume() -> None:
        old = (root / "settings.yaml").is_file() and b"seed: 1" in (root / "settings.yaml").read_bytes()
        train(root, resume=not old, overwrite=old)

    total = kill_everywhere(
        lambda: train(root, overwrite=state == "overwritten"),
        root,
        fresh=fresh,
        ways_on={"--resume": resume, "--overwrite": lambda: train(root, overwrite=True)},
        whole=whole,
    )
    assert total > 20


@pytest.mark.parametrize("state", ["new", "overwritten"])
def test_a_comparison_that_is_killed_anywhere(tmp_path: Path, state: str) -> None:
    compare(tmp_path / "whole")
    root, whole = tmp_path / "comparison", contents(tmp_path / "whole")

    def fresh() -> None:
        if state == "overwritten":
            compare(root, 1)
            whole.update(add_foreign(root))

    def start() -> None:
        old = (root / "comparison.yaml").is_file() and (root / "comparison.yaml").read_bytes() == b"1"
        compare(root, overwrite=old)

    total = kill_everywhere(
        lambda: compare(root, overwrite=state == "overwritten"),
        root,
        fresh=fresh,
        ways_on={"a plain start": start, "--overwrite": lambda: compare(root, overwrite=True)},
        whole=whole,
    )
    assert total > 40
