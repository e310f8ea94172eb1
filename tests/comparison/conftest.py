"""A comparison that is as small as it can be."""

from __future__ import annotations

from typing import Any

import pytest
from striped_categories import Stripes

from formulavision import compare
from formulavision.comparison import Comparison


def recipe(**params: Any) -> dict[str, Any]:
    return {
        "generator": {"name": Stripes.name, **params},
        "categories": 4,
        "instances": 16,
        "canvas": {"size": 32, "padding": 0},
    }


def comparison() -> dict[str, Any]:
    """Three arms, one of which cannot draw, at the size of a stamp."""
    training = {"epochs": 2, "batch_size": 32, "resize": 32, "crop": 32, "milestones": [1], "device": "cpu"}
    return {
        "name": "stripes & <digits>",
        "note": "a demonstration",
        "arms": {
            "scratch": {},
            "stripes": {"recipe": recipe()},
            "broken": {"recipe": recipe(broken=True)},
        },
        "downstreams": {"digits": {"kind": "digits", "train_per_class": 6, "test_per_class": 4}},
        "model": "test_resnet",
        "pretrain": training,
        "finetune": training,
        "pictures": False,
    }


@pytest.fixture
def small() -> dict[str, Any]:
    return comparison()


@pytest.fixture
def settings(first: Comparison) -> dict[str, Any]:
    """Settings of the comparison that was run, less its pictures, which take time."""
    assert first.settings is not None
    return {**first.settings.to_dict(), "pictures": False}


@pytest.fixture(scope="package")
def first(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """That comparison, run once for all tests that look at what it leaves."""
    settings = {**comparison(), "pictures": True}
    return compare(settings, out=tmp_path_factory.mktemp("comparison") / "out", show_progress=False)
