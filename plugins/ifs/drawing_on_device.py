"""Drawing fractals on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from formulavision import Category
from formulavision.rendering.points_triton import shade
from formulavision.rendering.triton_support import in_parts, keep, upload

from .drawing import kernel_key, palette, published_draws
from .orbits_triton import LEAST_ROWS, mark_orbits, mark_published_orbits
from .systems import add_identities, cumulative_probabilities, thresholds

if TYPE_CHECKING:
    from .generator import Ifs

__all__ = ["IfsRenderer"]


class IfsRenderer:
    """Draws instances of an ``Ifs`` generator on a device: the host varies the systems, the device does the rest.

    Beside the images it takes 32 MiB of scratch memory, or 4 bytes a pixel of one image where that is more.
    """

    def __init__(self, generator: Ifs, categories: Sequence[Category], device: torch.device) -> None:
        self.generator = generator
        self.device = device
        self.published = generator.params.orbit == "published"
        self.indices = np.array([category.index for category in categories], np.int64)
        self.sizes = np.array([len(category.parameters) for category in categories], np.int64)
        rows = max(LEAST_ROWS, int(self.sizes.max(initial=0)))
        self.transformations = np.zeros((len(categories), rows, 6))
        # The numbers that a draw is compared with to select a row; those of rows that fill up are never reached.
        self.limits = np.full((len(categories), rows), np.inf if self.published else 65536)
        for i, (category, size) in enumerate(zip(categories, self.sizes, strict=True)):
            self.transformations[i, :size] = category.parameters[:, :6]
            if self.published:
                self.limits[i, :size] = cumulative_probabilities(category.parameters)
            else:
                self.limits[i, 1:size] = thresholds(category.parameters)
        if self.published:
            self.draws = keep(published_draws(generator.params.dots), device)
        self.palette = keep(palette(generator.canvas.channels), device)
        self.walk_key, self.mask_key = (kernel_key(generator.seed, use) for use in (b"walk", b"mask"))

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        for part in in_parts(len(labels), self.generator.canvas.size**2):
            self._draw(labels[part], instances[part], out[part])

    def _draw(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        generator, canvas, params = self.generator, self.generator.canvas, self.generator.params
        indices, sizes = self.indices[labels], self.sizes[labels]
        transformations = self.transformations[labels]
        if generator.table is None:
            weights, flips = generator.continuous_weights(indices, sizes, instances)
            transformations[:, : weights.shape[1]] *= weights
            walks = masks = instances
        else:
            walks, patches, flips = generator.decompose(instances)
            transformations *= generator.table[walks][:, None]
            masks = walks + len(generator.table) * patches
        on_device = upload(np.stack([indices, walks, masks, flips]), self.device)
        latest = torch.zeros((len(labels), canvas.size, canvas.size), dtype=torch.int32, device=self.device)
        if self.published:
            mark_published_orbits(
                upload(add_identities(transformations, sizes), self.device),
                upload(self.limits[labels], self.device),
                self.draws,
                latest,
                padding=canvas.padding,
            )
        else:
            mark_orbits(
                upload(transformations.astype(np.float32), self.device),
                upload(self.limits[labels].astype(np.int32), self.device),
                on_device[0],
                on_device[1],
                latest,
                points=params.dots,
                padding=canvas.padding,
                key=self.walk_key,
            )
        shade(
            latest,
            on_device[0],
            on_device[2],
            on_device[3],
            self.palette,
            out,
            patch=params.patch,
            key=self.mask_key,
        )
