"""A comparison runs every arm, once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from formulavision import compare
from formulavision.comparison import Comparison, ComparisonSettings
from formulavision.config import parse


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def times_of(folder: Path) -> dict[Path, int]:
    """When each file of the runs was last written."""
    return {file: file.stat().st_mtime_ns for file in (folder / "runs").rglob("*") if file.is_file()}


def test_every_arm_has_its_row(first: Comparison) -> None:
    scratch, stripes, _ = read_csv(first.folder)
    for row in (scratch, stripes):
        assert 0 <= float(row["top1"]) <= float(row["top5"]) <= 1
        assert float(row["loss"]) > 0
        assert float(row["finetune_seconds"]) > 0
        assert row["error"] == ""
    assert scratch["pretrain_accuracy"] == scratch["pretrain_seconds"] == ""
    assert 0 <= float(stripes["pretrain_accuracy"]) <= 1
    assert float(stripes["pretrain_images_per_second"]) > 0


def test_an_arm_that_fails_says_why_and_stops_no_other(first: Comparison) -> None:
    broken = read_csv(first.folder)[2]
    assert broken["arm"] == "broken"
    assert broken["top1"] == ""
    assert "comparison-test-stripes" in broken["error"]
    assert "ValueError: out of ink" in broken["error"]
    assert first.failures == {"broken": broken["error"]}


def test_the_table_is_written_for_people_and_for_git(first: Comparison) -> None:
    text = (first.folder / "results.md").read_text()
    assert "| arm | digits |" in text
    assert "| broken | failed |" in text
    assert text.count("**") == 2 or text.count("**") == 4  # the best in bold; two where they are equal
    assert parse(ComparisonSettings, yaml.safe_load((first.folder / "comparison.yaml").read_text())) == first.settings
    assert not [file for file in first.folder.iterdir() if file.name.startswith(".")]


def test_started_again_it_does_nothing_twice_and_an_added_arm_is_all_that_runs(first: Comparison) -> None:
    before = times_of(first.folder)
    settings = first.settings.to_dict()
    del settings["arms"]["broken"]
    faint = {**settings["arms"]["stripes"]["recipe"], "generator": {"name": "comparison-test-stripes", "contrast": 20}}
    settings["arms"]["faint"] = {"recipe": faint}
    again = compare(settings, out=first.folder, show_progress=False)
    after = times_of(first.folder)
    assert not again.failures
    assert [row.arm for row in again.rows] == ["scratch", "stripes", "faint"]
    assert again.rows[:2] == first.rows[:2]
    assert {file: time for file, time in after.items() if file in before} == before
    assert {file.relative_to(first.folder).parts[1] for file in after.keys() - before.keys()} == {"faint"}


def test_another_setting_of_fine_tuning_leaves_pre_training_alone(
    first: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    import formulavision.training

    def no_pretraining(*_: Any, **__: Any) -> None:
        raise AssertionError("pre-trained again")

    monkeypatch.setattr(formulavision.training, "pretrain", no_pretraining)
    settings = first.settings.to_dict()
    settings["arms"] = {"stripes": settings["arms"]["stripes"]}
    settings["finetune"]["epochs"] = 3
    assert not compare(settings, out=first.folder, show_progress=False).failures


def test_an_interrupted_comparison_goes_on(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import formulavision.evaluation

    small["arms"] = {"scratch": {}}
    evaluate = formulavision.evaluation.evaluate

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(formulavision.evaluation, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(small, out=tmp_path / "out", show_progress=False)
    runs = {file: time for file, time in times_of(tmp_path / "out").items() if file.name == "run.json"}
    assert len(runs) == 1
    monkeypatch.setattr(formulavision.evaluation, "evaluate", evaluate)
    result = compare(small, out=tmp_path / "out", show_progress=False)
    assert result.rows[0].top1 is not None
    assert runs.items() <= times_of(tmp_path / "out").items()


def test_stored_images_frozen_layers_seeds_and_a_checkpoint(
    first: Comparison, small: dict[str, Any], tmp_path: Path
) -> None:
    before = next((first.folder / "runs" / "stripes").glob("pretrain-*"))
    small["arms"] = {"stripes": small["arms"]["stripes"], "mine": {"checkpoint": str(before)}}
    small["pretrain"] = {**small["pretrain"], "epochs": 1, "milestones": []}
    small["finetune"] = small["pretrain"]
    small |= {"freeze": ["none", "conv1-2"], "seeds": [0, 1], "data": "stored"}
    result = compare(small, out=tmp_path / "out", show_progress=False)
    assert not result.failures
    assert len(result.rows) == 2 * 2 * 2
    assert len(list((tmp_path / "out/stores").glob("*/"))) == 1
    assert all((row.generate_seconds is not None) == (row.arm == "stripes") for row in result.rows)
    text = (tmp_path / "out/results.md").read_text()
    assert "| arm | frozen | digits |" in text
    assert "±" in text
    assert len(list((tmp_path / "out/plots").glob("accuracy-digits-*.svg"))) == 2


def test_the_table_goes_to_the_screen(first: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    settings = first.settings.to_dict()
    compare(settings, out=first.folder, show_progress=True)
    screen = capsys.readouterr()
    assert "broken failed: " in screen.out
    assert f"report: {first.report}" in screen.out
    assert "done already" in screen.err
