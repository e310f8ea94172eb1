"""A generator of small images, in a module that pickles can name: several files are called conftest."""

from __future__ import annotations

import numpy as np
from pydantic import Field

import formulavision
from formulavision import Category, Generator, Params


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
