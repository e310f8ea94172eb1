from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from striped_images import Stripes

from formulavision.training import Run, pretrain

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
