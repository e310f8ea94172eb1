"""Drawing fractals on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from formulavision import Canvas, Category
from formulavision.rendering.points_triton import shade
from formulavision.rendering.random import kernel_key
from formulavision.rendering.triton_support import in_parts, keep, upload

from .drawing import palette, published_draws
from .orbits_triton import LEAST_ROWS, mark_orbits, mark_published_orbits
from .parameters import IfsParams
from .systems import add_identities, cumulative_probabilities, thresholds
from .weights import Variation

__all__ = ["IfsRenderer"]


class IfsRenderer:
    """Draws instances of fractals on a device: the host varies the systems, the device does the rest.

    Beside the images it takes 32 MiB of scratch memory, or 4 bytes a pixel of one image where that is more.
    """

    def __init__(
        self,
        params: IfsParams,
        canvas: Canvas,
        seed: int,
        variation: Variation,
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.params = params
        self.canvas = canvas
        self.variation = variation
        self.device = device
        self.published = params.orbit == "published"
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
            self.draws = keep(published_draws(params.dots), device)
        self.palette = keep(palette(canvas.channels), device)
        self.walk_key, self.mask_key = (kernel_key(seed, use) for use in (b"walk", b"mask"))

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        for part in in_parts(len(labels), self.canvas.size**2):
            self._draw(labels[part], instances[part], out[part])

    def _draw(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        canvas, params = self.canvas, self.params
        indices, sizes = self.indices[labels], self.sizes[labels]
        transformations = self.transformations[labels]
        draws = self.variation.draws(indices, sizes, instances)
        transformations[:, : sizes.max()] *= draws.weights
        on_device = upload(np.stack([indices, draws.orbits, draws.patches, draws.flips]), self.device)
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
