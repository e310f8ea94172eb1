"""A generator with scenes of its own, for tests of what a generator's own scenes go through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from formulavision import Category, Generator, Params, Scene


class PebblesParams(Params):
    objects: int = Field(6, ge=1, le=65535, description="objects in a scene")


class Pebbles(Generator):
    """Squares on a gray background, in the gray level of their category."""

    name = "pebbles"
    Params = PebblesParams

    def category(self, index: int) -> float:
        return 60.0 + 10 * index

    def scene(self, categories: Sequence[Category], index: int) -> Scene:
        random = self.stream(index, 0, 7)
        objects, size = self.params.objects, self.canvas.size
        labels = random.integers(0, len(categories), objects)
        image = np.full(self.canvas.shape, 30, np.uint8)
        object_map = np.zeros((size, size), np.uint16)
        for k, (label, row, column) in enumerate(zip(labels, *random.integers(0, size, (2, objects)), strict=True), 1):
            side = 1 if objects > 100 else size // 5
            image[row : row + side, column : column + side] = categories[label].parameters[0, 0]
            object_map[row : row + side, column : column + side] = k
        return Scene(image, object_map, labels)

    def device_scenes(self, categories: Sequence[Category], device: Any) -> Any:
        import torch

        def draw(indices: Any, out: Any, object_maps: Any) -> list[Any]:
            scenes = [self.scene(categories, int(index)) for index in indices]
            out[:] = torch.from_numpy(np.stack([scene.image for scene in scenes])).to(device)
            maps = np.stack([scene.object_map for scene in scenes]).astype(np.int32)
            object_maps[:] = torch.from_numpy(maps).to(device)
            return [scene.categories for scene in scenes]

        return draw
