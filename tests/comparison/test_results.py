"""Findings on disk and in memory: histories once, cells looked up, older files read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from formulavision.comparison.results import FINDINGS, ArmFacts, Entry, Findings, Row
from formulavision.util.errors import ConfigError

HISTORY: list[dict[str, float | None]] = [{"epoch": 1, "train_loss": 0.5, "validation_loss": None}]


def findings() -> Findings:
    """Two arms, the first of which has one pre-training a seed that two rows start from."""
    entries = [
        Entry(row=Row("ours", "digits", freeze, seed, score=0.5), pretraining=HISTORY, start=f"runs/pretrain-{seed}")
        for seed in (0, 1)
        for freeze in ("conv1-3", "none", "conv1", "knn-probe")
    ]
    entries.append(Entry(row=Row("scratch", "digits", "none", 0, score=0.4)))
    return Findings(
        name="results",
        size="full",
        model="resnet18",
        data="on-demand",
        arms={arm: ArmFacts(content=arm, origin="", scratch=False, base=arm) for arm in ("ours", "scratch")},
        downstreams={"digits": "0"},
        freezes=["knn-probe", "conv1-3", "none", "conv1"],
        entries=entries,
    )


def write(folder: Path, content: object) -> None:
    (folder / FINDINGS).write_text(json.dumps(content), encoding="utf-8")


def test_the_history_of_a_pretraining_is_written_once() -> None:
    content = json.loads(findings().model_dump_json())
    assert content["pretrainings"] == {"runs/pretrain-0": HISTORY, "runs/pretrain-1": HISTORY}
    assert not any("pretraining" in entry for entry in content["entries"])


def test_findings_are_read_as_they_were_written(tmp_path: Path) -> None:
    text = findings().model_dump_json()
    (tmp_path / FINDINGS).write_text(text, encoding="utf-8")
    found = Findings.load(tmp_path)
    assert [entry.pretraining for entry in found.entries] == [*[HISTORY] * 8, []]
    assert found.model_dump_json() == text


def test_files_with_a_history_in_every_entry_are_read_and_written_anew(tmp_path: Path) -> None:
    content = json.loads(findings().model_dump_json())
    pretrainings = content.pop("pretrainings")
    content["format"] = 1
    for entry in content["entries"]:
        entry["pretraining"] = pretrainings.get(entry["start"], [])
    write(tmp_path, content)
    assert Findings.load(tmp_path).model_dump_json() == findings().model_dump_json()


def test_files_of_a_later_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {**json.loads(findings().model_dump_json()), "format": 3})
    with pytest.raises(ConfigError, match="was written by another version"):
        Findings.load(tmp_path)


def test_a_cell_has_the_rows_that_were_added_since_it_was_looked_up() -> None:
    found = findings()
    assert found.scores("scratch", "none", "digits") == {0: 0.4}
    found.entries.append(Entry(row=Row("scratch", "digits", "none", 1, score=0.6)))
    assert found.scores("scratch", "none", "digits") == {0: 0.4, 1: 0.6}
    found.entries = found.entries[:-2]
    assert found.scores("scratch", "none", "digits") == {}


def test_the_fewest_frozen_layers_stand_for_all() -> None:
    assert findings().by_frozen == ["none", "conv1", "conv1-3", "knn-probe"]
