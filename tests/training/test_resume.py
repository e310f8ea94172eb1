"""A run that was stopped anywhere ends in the same weights as one that was not, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing_runs import comparable, die_after, same, stopped_and_resumed, weights
from forked import FORKED, in_a_session
from striped_images import pretrain_slowly

from formulavision import Recipe
from formulavision.data.loading import EpochBatches
from formulavision.training import Run, pretrain
from formulavision.util.errors import ConfigError

EVERY_STEP = {"checkpoint_minutes": 0}


STOPS = [[1], [2], [3], [4], [5], [1, 1, 1], [2, 2]]
"""Steps after which a run of two epochs of three steps is killed, again and again."""
QUICK = {0: [[1], [3], [1, 1, 1]], 2: [[2], [1, 1, 1]]}
"""By number of loader processes: in mid-epoch, at an epoch's end and after every step. The others repeat these."""


@pytest.mark.parametrize(
    ("steps", "workers"),
    [
        pytest.param(steps, workers, marks=[] if steps in QUICK[workers] else pytest.mark.slow)
        for workers in QUICK
        for steps in STOPS
    ],
    ids=str,
)
def test_a_run_killed_after_any_step_resumes_exactly(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path, steps: list[int], workers: int
) -> None:
    settings = {**small, **EVERY_STEP, "workers": workers}
    run = stopped_and_resumed(stripes(), tmp_path / "run", settings, steps)
    assert same(run.folder, pretrained.folder)
    assert comparable(run) == comparable(pretrained)


ALL_THAT_IS_RANDOM = {
    "model": "test_vit",
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "drop_path": 0.3,
    "ema": 0.9,
    "clip_grad": 1.0,
    **EVERY_STEP,
}


def test_mixing_averages_and_schedules_resume_exactly(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, **ALL_THAT_IS_RANDOM}
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=settings, show_progress=False)
    run = stopped_and_resumed(stripes(), tmp_path / "run", settings, [2, 2])
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


@pytest.mark.slow
def test_a_run_on_images_drawn_on_demand_resumes_exactly_with_workers(small: Any, tmp_path: Path) -> None:
    recipe = Recipe.from_dict(
        {
            "generator": {"name": "perlin", "grid": 2},
            "categories": 4,
            "instances": 12,
            "canvas": {"size": 36, "padding": 0},
        }
    )
    settings = {**small, **EVERY_STEP, "held_out": 2}
    whole = pretrain(recipe, out=tmp_path / "whole", settings=settings, show_progress=False)
    run = stopped_and_resumed(recipe, tmp_path / "run", {**settings, "workers": 2}, [4])
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_a_run_whose_process_is_killed_resumes_exactly(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, **EVERY_STEP, "epochs": 4}
    out = tmp_path / "run"
    # An image of the third step waits, so that the process is killed in one of the steps from then on.
    slow = list(EpochBatches(48, 16, seed=1, shuffle=True))[2][0][1]
    arguments = (tmp_path / "log", pretrain_slowly, str(out), str(slow), "0", json.dumps(settings))
    process = FORKED.Process(target=in_a_session, args=arguments)
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 120
    while not (tmp_path / "reached").exists():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.02)
    (tmp_path / "sent").touch()
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    # Killed between two renames, it has no last.ckpt, but previous.ckpt.
    assert list((out / "checkpoints").glob("*.ckpt")) and not (out / "run.json").exists()
    run = pretrain(stripes(), out=out, settings=settings, resume=True, show_progress=False)
    whole = pretrain(stripes(), out=tmp_path / "whole", settings={**small, "epochs": 4}, show_progress=False)
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_a_run_may_be_resumed_in_another_memory_format_and_validated_on_other_images(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.from_dict({"generator": {"name": "perlin", "grid": 2}, "instances": 6, "canvas": {"size": 32}})
    settings = {**small, **EVERY_STEP}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        pretrain(recipe, out=tmp_path / "run", settings=settings, show_progress=False)
    other = {**settings, "channels_last": True, "held_out": 2}
    run = pretrain(recipe, out=tmp_path / "run", settings=other, resume=True, show_progress=False)
    assert run.final["validation_accuracy"] is not None
    with pytest.raises(ConfigError, match=r"resume: settings\.crop is 24"):
        pretrain(recipe, out=tmp_path / "run", settings={**settings, "crop": 24}, resume=True, show_progress=False)


def test_a_second_ctrl_c_stops_at_once(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = type(stripes()).__getitem__

    def impatient(self: Any, index: int) -> Any:
        signal.raise_signal(signal.SIGINT)
        return whole(self, index)

    monkeypatch.setattr(type(stripes()), "__getitem__", impatient)
    monkeypatch.setattr(type(stripes()), "target", "class", raising=False)  # no item is read to find it
    monkeypatch.setattr("formulavision.data.downstream.datasets.refuse_random", lambda source: None)
    monkeypatch.setattr("formulavision.data.items.has_tensors", lambda dataset: True)
    monkeypatch.setattr("formulavision.util.interrupts._SAME_S", 0.0)
    monkeypatch.setattr("formulavision.training.data_module.image_cache", lambda *a, **k: None)
    with pytest.raises(KeyboardInterrupt):
        pretrain(stripes(), out=tmp_path / "run", settings=small)
    assert "stopped after 0 of 2 epochs; resuming" in capsys.readouterr().out
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_on_clusters_of_its_own_features_resumes_exactly(
    stripes: Any, small: Any, tmp_path: Path, workers: int
) -> None:
    settings = {**small, **EVERY_STEP, "workers": workers}
    arguments: dict[str, Any] = {"labels": {"clusters": 5}, "settings": settings, "show_progress": False}
    whole = pretrain(stripes(), out=tmp_path / "whole", **arguments)
    assert whole.classes == [f"cluster {i}" for i in range(5)]
    for i, step in enumerate([1, 2, 1]):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(step, patch)
            pretrain(stripes(), out=tmp_path / "run", resume=i > 0, **arguments)
    run = pretrain(stripes(), out=tmp_path / "run", resume=True, **arguments)
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_a_run_stopped_before_its_end_was_written_keeps_its_last_head(stripes: Any, small: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"labels": {"clusters": 5}, "settings": small, "show_progress": False}
    run = pretrain(stripes(), out=tmp_path / "run", **arguments)
    before = weights(run.folder)
    for name in ("run.json", "model.safetensors"):
        (run.folder / name).unlink()
    again = pretrain(stripes(), out=tmp_path / "run", resume=True, **arguments)
    assert all(torch.equal(before[name], value) for name, value in weights(again.folder).items())
    assert comparable(again) == comparable(run)
