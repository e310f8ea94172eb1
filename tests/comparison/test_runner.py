"""Stages are executed in the order of the plan, and who waits is told where it is."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import formulavision.storage.generation
import formulavision.training
from formulavision import compare
from formulavision.comparison.runner import position, read_record
from formulavision.util.errors import ConfigError
from formulavision.util.files import json_digest
from formulavision.util.interrupts import catch_signals


def test_the_time_left_is_told_from_the_stages_that_are_finished() -> None:
    assert position(1, 3, 0) == "[1/3]"
    assert position(2, 3, 600) == "[2/3, 10 min so far, about 20 min left]"
    assert position(3, 3, 600) == "[3/3, 10 min so far, about 5 min left]"
    assert position(2, 2, 0) == "[2/2, 0.0 s so far, about 0.0 s left]"


def test_a_stage_that_fails_fails_those_that_need_it_and_no_others(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_ink(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of ink")

    def refuse(*_: Any, **__: Any) -> None:
        raise ConfigError("finetune: not here")

    monkeypatch.setattr(formulavision.storage.generation, "generate", out_of_ink)
    monkeypatch.setattr(formulavision.training, "finetune", refuse)
    monkeypatch.setattr(formulavision.training, "pretrain", pytest.fail)
    small |= {"data": "stored", "seeds": [0, 1]}
    small["arms"] = {"stripes": small["arms"]["stripes"], "again": small["arms"]["stripes"], "scratch": {}}
    result = compare(small, out=tmp_path / "out")
    reasons = {(row.arm, row.seed): str(row.error).partition(" (traceback: ")[0] for row in result.results}
    generated = {(arm, seed): "RuntimeError: out of ink" for arm in ("stripes", "again") for seed in (0, 1)}
    assert reasons == {**generated, ("scratch", 0): "finetune: not here", ("scratch", 1): "finetune: not here"}
    told = capsys.readouterr().err
    assert "[1/7] store of stripes" in told
    assert "store of stripes failed: RuntimeError: out of ink (traceback: logs/_stores-" in told
    assert "pre-training of stripes, seed 1 failed: RuntimeError: out of ink" in told
    assert "[7/7" in told
    assert len(list((tmp_path / "out/logs").glob("*-*.txt"))) == 3


def test_a_signal_whose_exception_a_library_replaces_fails_no_stage(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaces(*_: Any, **__: Any) -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("while serializing")

    monkeypatch.setattr(formulavision.training, "pretrain", replaces)
    monkeypatch.setattr(formulavision.training, "finetune", pytest.fail)
    with pytest.raises(KeyboardInterrupt), catch_signals():
        compare(small, out=tmp_path / "out")


# Records of what is done ---------------------------------------------------------------------------------------------

RECORD = {"key": "0123", "row": {"score": 0.83, "metric": "top-1"}, "computed": {"device": "cpu"}}


def test_every_changed_bit_of_a_result_is_found_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    whole = json.dumps({**RECORD, "sha256": json_digest(RECORD)}, indent=1).encode()
    file.write_bytes(whole)
    assert read_record(file, "0123") == RECORD
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            assert read_record(file, "0123") == RECORD
        except ConfigError as error:
            assert str(error) == f"{file}: is damaged: remove its folder, which is then computed again"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "[" * 9999, '{"a": 1}', '{"row": {}}', '{"row": {}, "computed": {}, "more": 1}', "\0" * 50],
)
def test_a_file_that_is_no_result_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"result\.json: is damaged: remove its folder"):
        read_record(file, "0123")


def test_a_result_of_another_stage_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**RECORD, "sha256": json_digest(RECORD)}))
    with pytest.raises(ConfigError, match="is damaged"):
        read_record(file, "4567")


def test_a_result_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    earlier = {name: RECORD[name] for name in ("row", "computed")}
    file.write_text(json.dumps(earlier))
    assert read_record(file, "0123") == earlier
