"""Stages are executed in the order of the plan, and who waits is told where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import formulavision.storage.generation
import formulavision.training
from formulavision import compare
from formulavision.comparison.run import position
from formulavision.util.errors import ConfigError


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
