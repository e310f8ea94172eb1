"""A comparison runs every arm, once."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from formulavision import compare
from formulavision.comparison import Comparison, ComparisonSettings, Findings
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, FormulaVisionError, StoreError


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open() as content:
        return list(csv.DictReader(content))


def times_of(runs: Path) -> dict[Path, int]:
    """When each file of the runs was last written, but for their logs, which go on."""
    files = [file for file in runs.rglob("*") if file.is_file() and file.parent.name != "logs"]
    return {file: file.stat().st_mtime_ns for file in files}


def test_every_arm_has_its_row(first: Comparison) -> None:
    scratch, stripes, _ = read_csv(first.folder / "results.csv")
    for row in (scratch, stripes):
        assert 0 <= float(row["score"]) == float(row["top1"]) <= float(row["top5"]) <= 1
        assert row["metric"] == "top-1 accuracy"
        assert float(row["loss"]) > 0
        assert float(row["finetune_seconds"]) > 0
        assert row["error"] == ""
    assert scratch["pretrain_accuracy"] == scratch["pretrain_seconds"] == ""
    assert 0 <= float(stripes["pretrain_accuracy"]) <= 1
    assert float(stripes["pretrain_images_per_second"]) > 0


def test_an_arm_that_fails_says_why_and_stops_no_other(first: Comparison) -> None:
    broken = read_csv(first.folder / "results.csv")[2]
    assert broken["arm"] == "broken"
    assert broken["score"] == ""
    assert broken["error"].startswith("'comparison-test-stripes' (this process) failed")
    assert "ValueError: out of ink" in broken["error"]
    assert first.failures == {"broken": broken["error"]}
    named = re.search(r"\(traceback: (logs/.*)\)$", broken["error"])
    assert named is not None
    traceback = (first.folder / named[1]).read_text()
    assert traceback.startswith("Traceback (most recent call last)") and "ValueError: out of ink" in traceback
    assert "failed: " in (first.folder / "logs" / "log.txt").read_text()


def test_the_table_is_written_for_people_and_for_git(first: Comparison) -> None:
    text = (first.folder / "results.md").read_text()
    assert "| arm | digits | to scratch |" in text
    assert "| broken | failed |" in text
    assert text.count("**") in (2, 4)  # the best in bold; two where they are equal
    assert parse(ComparisonSettings, yaml.safe_load((first.folder / "comparison.yaml").read_text())) == first.settings


def test_the_note_is_in_every_output(first: Comparison) -> None:
    assert Findings.load(first.folder).caveats == {"stripes & <digits>": "a demonstration"}
    for name in ("results.md", "report.html", "results.json", "comparison.yaml"):
        assert "a demonstration" in (first.folder / name).read_text(), name


def test_nothing_is_left_lying_about(first: Comparison) -> None:
    assert {file.name for file in first.folder.iterdir()} - {"plots", "pictures"} == {
        ".formulavision",
        "comparison.yaml",
        "logs",
        "report.html",
        "results.csv",
        "results.json",
        "results.md",
        "runs",
        "table.csv",
    }
    assert not list(first.folder.rglob("*.lock"))


def test_the_findings_hold_curves_and_where_the_files_are(first: Comparison) -> None:
    findings = Findings.load(first.folder)
    assert findings == first.findings
    scratch, stripes, broken = findings.results
    assert [len(entry.history) for entry in findings.results] == [2, 2, 0]
    assert [len(history) for history in findings.pretrainings.values()] == [2]
    for entry in (scratch, stripes):
        assert entry.folder is not None
        assert not Path(entry.folder).is_absolute()
        assert (first.folder / entry.folder / "model.safetensors").is_file()
        assert entry.computed is not None
        assert re.search(r"\d+ cores?, \d+ threads?, .*32-true on cpu$", entry.computed.machine)
        assert {"Python", "torch", "formulavision"} <= entry.computed.versions.keys()
    assert scratch.start is None
    assert stripes.start is not None
    assert (first.folder / stripes.start / "model.safetensors").is_file()
    assert (broken.folder, broken.computed) == (None, None)


def test_the_findings_say_what_an_arm_is(first: Comparison) -> None:
    scratch, stripes, broken = first.findings.arms.values()
    assert (scratch.scratch, scratch.baseline, scratch.origin) == (True, None, "training from scratch")
    assert (stripes.scratch, stripes.baseline) == (False, "scratch")
    assert "4 categories × 16 instances (64 images), drawn by comparison-test-stripes" in stripes.origin
    assert stripes.recipe is not None
    assert len({scratch.content, stripes.content, broken.content}) == 3


def test_an_added_arm_is_all_that_runs(first: Comparison, settings: dict[str, Any], tmp_path: Path) -> None:
    runs = first.folder / "runs"
    before = times_of(runs)
    del settings["arms"]["broken"]
    faint = {**settings["arms"]["stripes"]["recipe"], "generator": {"name": "comparison-test-stripes", "contrast": 20}}
    settings["arms"]["faint"] = {"recipe": faint}
    again = compare(settings, out=tmp_path / "out", runs=runs, show_progress=False)
    after = times_of(runs)
    assert not again.failures
    assert [row.arm for row in again.results] == ["scratch", "stripes", "faint"]
    assert again.findings.to_csv().splitlines()[:3] == first.findings.to_csv().splitlines()[:3]
    assert {file: time for file, time in after.items() if file in before} == before
    assert {file.relative_to(runs).parts[0] for file in after.keys() - before.keys()} == {"faint"}


def test_words_and_numbers_of_others_run_nothing(
    first: Comparison, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    del settings["arms"]["broken"]
    settings |= {
        "name": "renamed",
        "paper": {"digits": {"stripes": 93.4}},
        "reach": [0.5],
        "pictures": False,
        "against": "stripes",
    }
    again = compare(settings, out=tmp_path / "out", runs=first.folder / "runs", show_progress=False)
    assert not again.failures
    assert [row.score for row in again.results] == [row.score for row in first.results[:2]]
    assert "93.4" in (tmp_path / "out/results.md").read_text()


def forbid_training(monkeypatch: pytest.MonkeyPatch, *what: str) -> None:
    import formulavision.training

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    for name in what or ("pretrain", "finetune"):
        monkeypatch.setattr(formulavision.training, name, refuse)


def test_another_setting_of_fine_tuning_leaves_pre_training_alone(
    first: Comparison, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch, "pretrain")
    settings["arms"] = {"stripes": settings["arms"]["stripes"]}
    settings["finetune"]["epochs"] = 3
    runs = first.folder / "runs"
    assert not compare(settings, out=tmp_path / "out", runs=runs, show_progress=False).failures


def test_another_seed_runs_alone(first: Comparison, settings: dict[str, Any], tmp_path: Path) -> None:
    settings["arms"] = {"scratch": {}}
    settings["seeds"] = [0, 1]
    runs = first.folder / "runs"
    before = times_of(runs)
    result = compare(settings, out=tmp_path / "out", runs=runs, show_progress=False)
    assert [row.score is not None for row in result.results] == [True, True]
    new = {file.relative_to(runs).parts[:2] for file in times_of(runs).keys() - before.keys()}
    assert len(new) == 1
    assert not result.failures


def test_an_interrupted_comparison_goes_on(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import formulavision.evaluation

    out = tmp_path / "out"
    small["arms"] = {"scratch": {}}
    small["seeds"] = [0, 1]
    evaluate = formulavision.evaluation.evaluate
    calls: list[Any] = []

    def interrupted(*what: Any, **settings: Any) -> Any:
        calls.append(what)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*what, **settings)

    monkeypatch.setattr(formulavision.evaluation, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(small, out=out)
    told = capsys.readouterr().err
    assert "stopped with 1 of 2 results done" in told
    assert f"formulavision report {out} writes the report" in told.replace("\n", " ")
    assert [row["seed"] for row in read_csv(out / "results.csv")] == ["0"]
    assert [row.pending for row in Findings.load(out).results] == [False, True]
    assert "| scratch |" in (out / "results.md").read_text()
    assert not list(out.rglob("*.lock"))
    trained = {file: time for file, time in times_of(out).items() if file.name == "run.json"}
    assert len(trained) == 2
    monkeypatch.setattr(formulavision.evaluation, "evaluate", evaluate)
    result = compare(small, out=out, show_progress=False)
    assert [row.pending for row in result.results] == [False, False]
    assert trained.items() <= times_of(out).items()


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        FormulaVisionError("last.ckpt: No space left on device; --resume"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_ends_the_comparison_in_one_line(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    import formulavision.training

    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        try:
            raise error
        except OSError as cause:
            raise FormulaVisionError("cannot be written") from cause

    small["arms"] = {"stripes": small["arms"]["stripes"]} if stage == "pretrain" else {"scratch": {}}
    small |= {"seeds": [0, 1], "pictures": False}
    monkeypatch.setattr(formulavision.training, stage, fail)
    with pytest.raises(StoreError) as caught:
        compare(small, out=tmp_path / "out", show_progress=False)
    assert "No space left on device: make room, and the same comparison goes on" in str(caught.value)
    assert "--resume" not in str(caught.value) and "\n" not in str(caught.value)
    assert calls == [1]
    assert [row.pending for row in Findings.load(tmp_path / "out").results] == [True, True]


def test_a_stage_that_never_got_its_first_file_starts_over(
    first: Comparison, small: dict[str, Any], tmp_path: Path
) -> None:
    small["arms"] = {"scratch": {}}
    folder = Path(first.findings.results[0].folder or "").relative_to("runs")
    remains = tmp_path / "pool" / folder
    remains.mkdir(parents=True)
    (remains / ".formulavision.0123456789abcdef.partial").write_text("[")
    assert not compare(small, out=tmp_path / "out", runs=tmp_path / "pool", show_progress=False).failures


def test_stored_images_frozen_layers_and_a_checkpoint(first: Comparison, small: dict[str, Any], tmp_path: Path) -> None:
    before = next((first.folder / "runs" / "stripes").glob("pretrain-*"))
    small["arms"] = {"stripes": small["arms"]["stripes"], "mine": {"checkpoint": str(before)}}
    small["pretrain"] = {**small["pretrain"], "epochs": 1, "milestones": []}
    small["finetune"] = small["pretrain"]
    small |= {"freeze": ["none", "conv1-2"], "data": "stored"}
    result = compare(small, out=tmp_path / "out", show_progress=False)
    assert not result.failures
    assert len(result.results) == 2 * 2
    assert len(list((tmp_path / "out/runs/_stores").glob("*/"))) == 1
    assert all((row.generate_seconds is not None) == (row.arm == "stripes") for row in result.results)
    text = (tmp_path / "out/results.md").read_text()
    assert "| arm | frozen | digits |" in text


def test_a_store_that_was_removed_is_drawn_again_where_it_is_needed(small: dict[str, Any], tmp_path: Path) -> None:
    stored = {**small, "data": "stored", "arms": {"stripes": small["arms"]["stripes"]}}
    compare(stored, out=tmp_path / "out", show_progress=False)
    for store in (tmp_path / "out/runs/_stores").glob("*/"):
        shutil.rmtree(store)
    assert not compare(stored, out=tmp_path / "out", show_progress=False).failures
    assert not list((tmp_path / "out/runs/_stores").glob("*/")), "no training needs it"
    assert not compare({**stored, "seeds": [0, 1]}, out=tmp_path / "out", show_progress=False).failures
    assert len(list((tmp_path / "out/runs/_stores").glob("*/manifest.json"))) == 1


def test_started_again_it_does_nothing_twice_and_shows_the_table(
    first: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    before = times_of(first.folder / "runs")
    assert first.settings is not None
    compare(first.settings, out=first.folder, show_progress=True)
    screen = capsys.readouterr()
    assert "broken failed (everywhere): " in screen.out
    assert f"report: {first.report}" in screen.out
    assert "2 of 3 results are done already" in screen.err
    assert before.items() <= times_of(first.folder / "runs").items()


def test_a_folder_of_something_else_is_left_alone(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"is not empty, and has no file \.formulavision .* give another --out"):
            compare(small, out=tmp_path, overwrite=overwrite, show_progress=False)
    (tmp_path / "comparison.yaml").write_text("prices: [1, 2]")
    with pytest.raises(StoreError, match="is not empty, and has no file"):
        compare(small, out=tmp_path, overwrite=True, show_progress=False)
    assert (tmp_path / "runs" / "thesis.tex").read_text() == "years of work"


def test_overwriting_takes_away_what_a_comparison_left_and_nothing_else(
    first: Comparison, settings: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings["arms"] = {"scratch": {}}
    compare(settings, out=out, runs=first.folder / "runs", show_progress=False)
    (out / "notes.txt").write_text("mine")
    (out / "runs").mkdir()
    (out / "runs/thesis.tex").write_text("years of work")
    before = times_of(first.folder / "runs")
    compare(settings, out=out, runs=first.folder / "runs", overwrite=True, show_progress=False)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "runs/thesis.tex").read_text() == "years of work"
    assert times_of(first.folder / "runs") == before


def test_a_comparison_that_was_read_has_its_size(first: Comparison, tmp_path: Path) -> None:
    assert first.settings is not None
    with pytest.raises(ConfigError, match="size: is 'smoke', and the comparison was read at 'full'"):
        compare(first.settings, out=tmp_path / "out", size="smoke")


def test_a_row_that_failed_is_tried_again(
    first: Comparison, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripes = settings["arms"]["stripes"]
    settings["arms"] = {"broken": settings["arms"]["broken"]}
    out = tmp_path / "out"
    assert compare(settings, out=out, runs=first.folder / "runs", show_progress=False).failures
    settings["arms"] = {"broken": stripes}
    assert not compare(settings, out=out, runs=first.folder / "runs", show_progress=False).failures
    assert json.loads((out / "results.json").read_text())["entries"][0]["row"]["error"] is None
