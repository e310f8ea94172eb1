"""Findings on disk and in memory: histories once, older files read, damaged ones refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from formulavision.comparison.results import FINDINGS, ArmFacts, Findings, Result
from formulavision.util.errors import ConfigError

HISTORY: list[dict[str, float | None]] = [{"epoch": 1, "train_loss": 0.5, "validation_loss": None}]


def findings() -> Findings:
    """Two arms, the first of which has one pre-training a seed that four results start from."""
    results = [
        Result("ours", "digits", freeze, seed, score=0.5, start=f"runs/pretrain-{seed}")
        for seed in (0, 1)
        for freeze in ("conv1-3", "none", "conv1", "knn-probe")
    ]
    results.append(Result("scratch", "digits", "none", 0, score=0.4))
    return Findings(
        name="results",
        size="full",
        model="resnet18",
        data="on-demand",
        arms={arm: ArmFacts(content=arm, origin="", scratch=False, base=arm) for arm in ("ours", "scratch")},
        downstreams={"digits": "0"},
        freezes=["knn-probe", "conv1-3", "none", "conv1"],
        results=results,
        pretrainings={f"runs/pretrain-{seed}": HISTORY for seed in (0, 1)},
    )


def write(folder: Path, content: object) -> None:
    (folder / FINDINGS).write_text(json.dumps(content), encoding="utf-8")


def test_the_history_of_a_pretraining_is_written_once() -> None:
    content = json.loads(findings().to_json())
    assert content["pretrainings"] == {"runs/pretrain-0": HISTORY, "runs/pretrain-1": HISTORY}
    assert not any("pretraining" in entry for entry in content["entries"])


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    text = findings().to_json()
    (tmp_path / FINDINGS).write_text(text, encoding="utf-8")
    found = Findings.load(tmp_path)
    assert found == findings()
    assert found.to_json() == text


def test_files_with_a_history_in_every_entry_are_read_and_written_anew(tmp_path: Path) -> None:
    content = json.loads(findings().to_json())
    pretrainings = content.pop("pretrainings")
    content["format"] = 1
    for entry in content["entries"]:
        entry["pretraining"] = pretrainings.get(entry["start"], [])
    write(tmp_path, content)
    assert Findings.load(tmp_path).to_json() == findings().to_json()


def test_files_of_a_later_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {**json.loads(findings().to_json()), "format": 3})
    with pytest.raises(ConfigError, match="was written by another version"):
        Findings.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 2, "entries": [{}]}', '{"format": 2, "entries": 3}'])
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / FINDINGS).write_text(text)
    with pytest.raises(ConfigError, match="is damaged: run the comparison again"):
        Findings.load(tmp_path)


def test_a_result_in_the_file_has_its_numbers_under_row() -> None:
    first = json.loads(findings().to_json())["entries"][0]
    assert (first["row"]["arm"], first["row"]["score"], first["start"]) == ("ours", 0.5, "runs/pretrain-0")
    assert first.keys() == {"row", "history", "folder", "start", "computed"}


def test_the_csv_has_a_line_a_result_that_is_done() -> None:
    found = findings()
    found.results[0].score = None
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [line["seed"] for line in lines] == [*"0001111", "0"]
    assert (lines[0]["arm"], lines[0]["score"], lines[0]["loss"]) == ("ours", "0.5", "")


def test_the_fewest_frozen_layers_stand_for_all() -> None:
    assert findings().by_frozen == ["none", "conv1", "conv1-3", "knn-probe"]
