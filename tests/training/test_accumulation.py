"""Gradient accumulation: k batches of b images make the step of one batch of k * b images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import slow
from comparing_runs import comparable, die_after, same, weights
from pair import Pair
from torch import nn

from formulavision.training import Run, TrainSettings, pretrain
from formulavision.util.config import identity

EVERY_STEP = {"checkpoint_minutes": 0}


class Dull(nn.Module):
    """Neither random numbers nor batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 49, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def settings_of(small: Any, **more: Any) -> dict[str, Any]:
    own = {name: value for name, value in small.items() if name != "model"}
    return {**own, "milestones": [], "clip_grad": 1.0, "schedule": "cosine", "warmup_epochs": 0.5, **more}


def trained(stripes: Any, out: Path, settings: dict[str, Any], images: int = 46, **arguments: Any) -> Run:
    return pretrain(stripes(images), out=out, model=Dull(), settings=settings, show_progress=False, **arguments)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "ema": 0.5},
}


@pytest.mark.parametrize(
    ("optimizer", "images"),
    [
        ("sgd", 39),
        ("adamw", 46),
        *slow(("sgd", 46), ("adamw", 39), *((name, images) for name in OPTIMIZERS for images in (48, 50))),
    ],
)
def test_small_batches_make_the_steps_of_a_large_one(
    stripes: Any, small: Any, tmp_path: Path, optimizer: str, images: int
) -> None:
    more = OPTIMIZERS[optimizer]
    large = trained(stripes, tmp_path / "large", settings_of(small, batch_size=12, **more), images)
    settings = settings_of(small, batch_size=4, grad_accum_steps=3, **more)
    parts = trained(stripes, tmp_path / "parts", settings, images)
    one, two = weights(large.folder), weights(parts.folder)
    assert all(torch.allclose(one[name], two[name], rtol=1e-3, atol=2e-5) for name in one)
    assert [row["train_loss"] for row in parts.history] == pytest.approx([row["train_loss"] for row in large.history])
    assert [row["learning_rate"] for row in parts.history] == [row["learning_rate"] for row in large.history]
    without = trained(stripes, tmp_path / "without", settings_of(small, batch_size=4, **more), images)
    assert not all(torch.allclose(one[name], weights(without.folder)[name], rtol=1e-3, atol=2e-5) for name in one)


@pytest.mark.parametrize("stops", [[14], [5, 5, 2], *slow([3], [4], [7], [12])], ids=str)
def test_a_run_resumes_exactly_at_its_last_step(stripes: Any, small: Any, tmp_path: Path, stops: list[int]) -> None:
    settings = settings_of(small, batch_size=4, grad_accum_steps=3, **EVERY_STEP)
    whole = trained(stripes, tmp_path / "whole", settings)
    for i, batch in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(batch, patch)
            trained(stripes, tmp_path / "run", settings, resume=i > 0)
    run = trained(stripes, tmp_path / "run", settings, resume=True)
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_clusters_are_found_anew_at_the_same_epochs_after_resuming(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = {**small, "batch_size": 8, "grad_accum_steps": 2, **EVERY_STEP}
    arguments: dict[str, Any] = {"labels": {"clusters": 3}, "settings": settings, "show_progress": False}
    whole = pretrain(stripes(), out=tmp_path / "whole", **arguments)
    for i, batch in enumerate((4, 3)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(batch, patch)
            pretrain(stripes(), out=tmp_path / "run", resume=i > 0, **arguments)
    assert same(pretrain(stripes(), out=tmp_path / "run", resume=True, **arguments).folder, whole.folder)


@pytest.mark.slow  # each part of it is tested: two processes, and accumulation
def test_two_processes_accumulate_as_one_does(pair: Pair, stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = settings_of(small, batch_size=4, grad_accum_steps=3)
    one = trained(stripes, tmp_path / "one", settings, 47)
    two = pair(trained, stripes, tmp_path / "two", settings, 47)
    a, b = weights(one.folder), weights(two.folder)
    assert all(torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-4) for name in a)


def test_without_accumulation_the_setting_is_in_no_identity() -> None:
    assert "grad_accum_steps" not in identity(TrainSettings())
    assert identity(TrainSettings(grad_accum_steps=2))["grad_accum_steps"] == 2
