"""Comparing runs bit for bit, and stopping one at a given step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from formulavision.training import Run, pretrain
from formulavision.training.recorder import Recorder

__all__ = ["comparable", "die_after", "same", "stopped_and_resumed", "weights"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def comparable(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in {"seconds", "images_per_second"}} for row in run.history]


def die_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs die when so many steps of all epochs are done, before anything more is written."""
    done = 0
    whole = Recorder.on_train_batch_end

    def dying(self: Any, *arguments: Any) -> None:
        nonlocal done
        done += 1
        if done > step:
            raise RuntimeError("killed")
        whole(self, *arguments)

    monkeypatch.setattr(Recorder, "on_train_batch_end", dying)


def stopped_and_resumed(
    data: Any,
    out: Path,
    settings: dict[str, Any],
    steps: list[int],
    train: Callable[..., Run] = pretrain,
    **more: Any,
) -> Run:
    """A run that is killed after each of so many steps, counted from where it was resumed."""
    for i, step in enumerate(steps):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(step, patch)
            train(data, out=out, settings=settings, resume=i > 0, show_progress=False, **more)
        torch.rand(5)  # what others draw from the global stream must not matter
    return train(data, out=out, settings=settings, resume=True, show_progress=False, **more)
