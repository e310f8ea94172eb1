from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from formulavision.training import Run, pretrain


class Stripes:
    """Images of four classes that a small model tells apart: noise with a bright stripe, the class says where."""

    num_classes = 4
    class_names = ("left", "inner left", "inner right", "right")

    def __init__(self, images: int = 48, channels: int = 1, size: int = 32) -> None:
        self.images = images
        self.channels = channels
        self.size = size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = index % 4
        random = torch.Generator().manual_seed(index)
        shape = (self.channels, self.size, self.size)
        image = torch.randint(0, 100, shape, generator=random, dtype=torch.uint8)
        width = self.size // 4
        image[:, :, label * width : (label + 1) * width] += 100
        return image, label


SMALL: dict[str, Any] = {
    "model": "test_resnet",
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.05,
    "milestones": [1],
    "resize": 36,
    "crop": 32,
    "device": "cpu",
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small convolutions on many threads wait for each other on a busy machine; and the number changes rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Training settings that take a second."""
    return SMALL


@pytest.fixture(scope="session")
def stripes() -> Callable[..., Stripes]:
    return Stripes


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Run:
    """A complete pre-training run."""
    out: Path = tmp_path_factory.mktemp("runs") / "pre"
    return pretrain(Stripes(), out=out, settings=SMALL, show_progress=False)
