"""Fractals drawn on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision import Category
from formulavision.rendering.points_triton import shade
from formulavision.rendering.triton_support import in_parts, keep, upload

from .orbits_triton import LEAST_ROWS, mark_orbits, mark_published_orbits
from .search import borders, cumulated

if TYPE_CHECKING:
    from . import Ifs

__all__ = ["IfsRenderer"]


class IfsRenderer:
    """Draws an ``Ifs`` generator's instances on a device: orbits, marks and patches; the host only varies the systems.

    Beside the images it takes 32 MiB of scratch memory, or 4 bytes a pixel of one image where that is more.
    """

    def __init__(self, generator: Ifs, categories: Sequence[Category], device: torch.device) -> None:
        self.generator = generator
        self.device = device
        self.indices = np.array([category.index for category in categories], np.int64)
        self.rows = np.array([len(category.parameters) for category in categories], np.int64)
        rows = max(LEAST_ROWS, int(self.rows.max(initial=0)))
        self.parameters = np.zeros((len(categories), rows, 6))
        self.published = generator.params.orbit == "published"
        # What a draw is compared with to select a row; those that are added are never selected.
        self.limits = np.full((len(categories), rows), np.inf if self.published else 65536)
        for i, category in enumerate(categories):
            self.parameters[i, : self.rows[i]] = category.parameters[:, :6]
            if self.published:
                self.limits[i, : self.rows[i]] = cumulated(category.parameters[:, 6])
            else:
                self.limits[i, 1 : self.rows[i]] = borders(category.parameters)
        if self.published:
            self.draws = keep(generator.published_draws, device)
        self.palette = keep(generator.palette, device)

    def __call__(self, labels: NDArray[np.int64], instances: NDArray[np.int64], out: torch.Tensor) -> None:
        for part in in_parts(len(labels), self.generator.canvas.size**2):
            self._draw(labels[part], instances[part], out[part])

    def _draw(self, labels: NDArray[np.int64], instances: NDArray[np.int64], out: torch.Tensor) -> None:
        generator, size = self.generator, self.generator.canvas.size
        indices = self.indices[labels]
        systems = self.parameters[labels]
        if generator.table is None:
            weights, flips = generator.continuous_weights(indices, self.rows[labels], instances)
            systems[:, : weights.shape[1]] *= weights
            walks = masks = instances
        else:
            walks, patches, flips = generator.decompose(instances)
            systems *= generator.table[walks][:, None]
            masks = walks + len(generator.table) * patches
        numbers = upload(np.stack([indices, walks, masks, flips]), self.device)
        latest = torch.zeros((len(labels), size, size), dtype=torch.int32, device=self.device)
        padding = generator.canvas.padding
        if self.published:
            chosen = with_identities(systems, self.rows[labels])
            limits = upload(self.limits[labels], self.device)
            mark_published_orbits(upload(chosen, self.device), limits, self.draws, latest, padding=padding)
        else:
            mark_orbits(
                upload(systems.astype(np.float32), self.device),
                upload(self.limits[labels].astype(np.int32), self.device),
                numbers[0],
                numbers[1],
                latest,
                points=generator.params.dots,
                padding=padding,
                key=generator.key(b"walk"),
            )
        shade(
            latest,
            numbers[0],
            numbers[2],
            numbers[3],
            self.palette,
            out,
            patch=generator.params.patch,
            key=generator.key(b"mask"),
        )


def with_identities(systems: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Systems with the identity behind their last rows, float64 [n, most rows + 1, 6].

    Args:
        systems: float64 [n, most rows, 6].
        rows: int64 [n], of each system.
    """
    longer = np.concatenate([systems, np.zeros((len(systems), 1, 6))], axis=1)
    longer[np.arange(len(systems)), rows] = [1, 0, 0, 1, 0, 0]
    return longer
