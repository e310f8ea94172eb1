from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from formulavision.data.downstream import Downstream, DownstreamSettings, LabelledImages
from formulavision.training.fit import new_model
from formulavision.training.models import save_timm_model
from formulavision.training.settings import TrainSettings

SMALL: dict[str, Any] = {"model": "test_resnet", "epochs": 1, "resize": 36, "crop": 32, "device": "cpu"}


class Pictures:
    """Noise whose brightness and colour say what the label is, uint8 [h, w, 3], of two sizes."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels

    def content(self, indices: np.ndarray) -> bytes:
        return self.labels[indices].tobytes()

    def __call__(self, index: int) -> np.ndarray:
        random = np.random.default_rng(index)
        side = 40 if index % 3 else 30
        picture = random.integers(0, 60, (side, side, 3))
        label = self.labels[index]
        for c, present in enumerate(np.atleast_1d(label)):
            channel = c if label.ndim else int(label)
            if not label.ndim or present == 1:
                picture[:, :, channel % 3] += 120 + 30 * (channel // 3)
        return picture.clip(0, 255).astype(np.uint8)


class Several(LabelledImages):
    """Images with several labels each: int8 [classes]."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        picture = np.asarray(self.source(int(self.indices[index])))
        return torch.from_numpy(picture.transpose(2, 0, 1).copy()), torch.from_numpy(self.labels[index].copy())


def _dataset(train: np.ndarray, test: np.ndarray, names: Sequence[str], kind: type[LabelledImages]) -> Downstream:
    settings = DownstreamSettings(kind="digits")  # stands for any
    labels = np.concatenate([train, test])
    indices = np.arange(len(labels))
    read = Pictures(labels)
    return Downstream(
        "pictures",
        settings,
        kind(read, indices[: len(train)], train, names),
        kind(read, indices[len(train) :], test, names),
    )


@pytest.fixture(scope="session")
def colours() -> Downstream:
    """Three classes, 12 training and 5 test images each."""
    return _dataset(np.arange(36) % 3, np.arange(15) % 3, ["red", "green", "blue"], LabelledImages)


@pytest.fixture(scope="session")
def mixtures() -> Downstream:
    """Three classes of which an image may show any, or none, or which are not to be counted; 60 and 30 images."""
    random = np.random.default_rng(0)
    labels = (random.random((90, 3)) < 0.4).astype(np.int8)
    labels[random.random(labels.shape) < 0.1] = -1
    return _dataset(labels[:60], labels[60:], ["red", "green", "blue"], Several)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Writes the folder of a complete run whose model is the given one, or untrained."""

    def make(folder: Path, names: Sequence[str], trained: torch.nn.Module | None = None, **changes: Any) -> Path:
        settings = TrainSettings(**{**SMALL, **changes})
        folder.mkdir(parents=True)
        save_timm_model(trained or new_model(settings, len(names)), folder, settings=settings, class_names=names)
        (folder / "settings.yaml").write_text(yaml.safe_dump({"settings": settings.model_dump(mode="json")}))
        (folder / "classes.json").write_text(json.dumps(list(names)))
        row = {"epoch": 1.0, "validation_accuracy": 0.5}
        result = {
            "kind": "finetune", "complete": True, "history": [row], "final": row, "seconds": 1.0,
            "images_per_second": 1.0, "parameters": 1, "frozen": [],
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(result))
        return folder

    return make
