from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import Pair
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
    # The same on all processors.
    "precision": "32-true",
}


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Training settings that take a second."""
    return SMALL


@pytest.fixture(scope="session")
def stripes() -> Callable[..., Stripes]:
    return Stripes


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A complete pre-training run."""
    out: Path = tmp_path_factory.mktemp("runs") / "pre"
    return pretrain(Stripes(), out=out, settings=SMALL, show_progress=False)


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two processes that any test may train in."""
    pair = Pair()
    yield pair
    pair.close()
