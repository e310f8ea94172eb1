"""A generator and a comparison that are as small as they can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import Field

import formulavision
from formulavision import Category, Generator, Params, compare
from formulavision.comparison import Comparison


class StripesParams(Params):
    contrast: int = Field(100, ge=1, le=127, description="amplitude", json_schema_extra={"unit": "gray levels"})
    broken: bool = Field(False, description="raise while drawing")


@formulavision.register
class Stripes(Generator):
    """Stripes whose direction and width are the category."""

    name = "comparison-test-stripes"
    Params = StripesParams
    columns = ("x", "y")

    def category(self, index: int) -> tuple[float, float]:
        return 1.0 + index % 4, 1.0 + index // 4

    def render(self, category: Category, instance: int) -> np.ndarray:
        if self.params.broken:
            raise ValueError("out of\nink")
        y, x = np.mgrid[: self.canvas.size, : self.canvas.size] / self.canvas.size
        fx, fy = category.parameters[0]
        phase = self.random(category, instance).random()
        return (127 + self.params.contrast * np.sin(2 * np.pi * (fx * x + fy * y + phase))).astype(np.uint8)


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
