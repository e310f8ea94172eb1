"""A generator that draws on a device too, in a module that processes of their own can import."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from formulavision import Category, Generator, Params, Recipe, register


class WeaveParams(Params):
    broken: Literal["", "preparing", "drawing"] = Field("", description="when to raise on a device")
    native: bool = Field(True, description="draw on devices")


@register
class Weave(Generator):
    """Slopes of gray that are wound up: whole numbers, the same on every device."""

    name = "training-test-weave"
    Params = WeaveParams
    columns = ("x", "y")

    def category(self, index: int) -> tuple[float, float]:
        return 1.0 + 2 * index, 3.0 + 5 * index

    def render(self, category: Category, instance: int) -> np.ndarray:
        height, width, channels = self.canvas.shape
        y, x, channel = np.ogrid[:height, :width, :channels]
        a, b = category.parameters[0].astype(np.int64)
        return ((a * x + b * y + 59 * channel + 37 * instance) % 256).astype(np.uint8)

    def device_renderer(self, categories: Any, device: torch.device) -> Any:
        if self.params.broken == "preparing":
            raise ValueError("out of yarn")
        return Weaver(self, categories, device) if self.params.native else None


class Weaver:
    """What :class:`Weave` draws, in torch."""

    def __init__(self, generator: Weave, categories: Any, device: torch.device) -> None:
        self.broken = generator.params.broken == "drawing"
        slopes = np.stack([category.parameters[0].astype(np.int64) for category in categories])
        self.slopes = torch.from_numpy(slopes).to(device)

    def __call__(self, labels: np.ndarray, instances: np.ndarray, out: torch.Tensor) -> None:
        if self.broken:
            raise ValueError("out of yarn")
        y, x, channel = (torch.arange(length, device=out.device) for length in out.shape[1:])
        where = torch.from_numpy(np.stack([labels, instances])).to(out.device)
        slopes, instance = self.slopes[where[0], :, None, None, None], where[1, :, None, None, None]
        out.copy_((slopes[:, 0] * x[:, None] + slopes[:, 1] * y[:, None, None] + 59 * channel + 37 * instance) % 256)


def woven(size: int = 36, channels: int = 1, instances: int = 12, categories: int = 4, **params: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": Weave.name, **params},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": size, "padding": 0, "channels": channels},
        }
    )
