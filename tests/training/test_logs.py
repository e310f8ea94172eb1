"""A run's folder says what was done in it, on what, and why it failed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from striped_images import TornStripes

from formulavision.data.loading import EpochBatches
from formulavision.training import Run, pretrain
from formulavision.util.errors import FormulaVisionError

LATE = list(EpochBatches(48, 16, seed=1, shuffle=True))[1][5][1]


def log(run: Path) -> str:
    return (run / "logs" / "log.txt").read_text()


def test_the_log_says_what_was_done_with_what(pretrained: Run) -> None:
    text = log(pretrained.folder)
    parts = [f"'torch': '{torch.__version__.partition('+')[0]}'", f"'timm': '{timm.__version__}'"]
    for part in [*parts, "1 thread,", "32-true", "'learning_rate': 0.05", "epoch 2  loss"]:
        assert part in text


def test_a_result_says_what_it_depends_on(pretrained: Run) -> None:
    result = json.loads((pretrained.folder / "run.json").read_text())
    assert (result["threads"], result["precision"], result["device"]) == (1, "32-true", "cpu")
    assert result["cores"] >= 1
    assert result["versions"].keys() >= {"Python", "torch", "timm", "formulavision"}


# Of several processes, test_distributed.py tests it where one of them fails.
def test_the_traceback_of_what_failed_is_kept_and_a_resumed_run_goes_on_with_its_log(
    small: Any, tmp_path: Path
) -> None:
    for resume in (False, True):
        with pytest.raises(FormulaVisionError, match="is torn"):
            pretrain(TornStripes(LATE), out=tmp_path / "run", settings=small, resume=resume, show_progress=False)
    text = log(tmp_path / "run")
    assert text.count("versions:") == 2
    assert "Traceback (most recent call last)" in text and "striped_images.py" in text
    assert f"FormulaVisionError: image {LATE}: is torn" in text


def test_warnings_are_in_the_log_and_seen_as_well(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = type(stripes()).__getitem__

    def warning(self: Any, index: int) -> Any:
        if index == LATE:
            warnings.warn("this image is odd", stacklevel=1)
        return whole(self, index)

    monkeypatch.setattr(type(stripes()), "__getitem__", warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        pretrain(stripes(), out=tmp_path / "run", settings={**small, "epochs": 1}, show_progress=False)
    assert "UserWarning: this image is odd" in log(tmp_path / "run")
