"""Drawing views of clouds on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8

from formulavision import Category
from formulavision.rendering.points_3d_triton import draw_points
from formulavision.rendering.triton_support import in_parts, upload

from . import clouds
from .clouds_triton import draw_clouds

__all__ = ["Ifs3dRenderer"]

_SCRATCH_BYTES = 256 << 20


class Ifs3dRenderer:
    """Draws views of clouds on a device: the host draws random numbers and turns cameras, the device does the rest.

    Beside the images it takes 256 MiB of scratch memory, of which a cloud needs 0.4 MB, and 32 MiB for views.
    """

    def __init__(
        self,
        views: int,
        value: int,
        table: Float64[np.ndarray, "rows 12"],
        draws: Callable[..., Float64[np.ndarray, " numbers"]],
        matrices: Callable[
            [Sequence[Category], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]], Float32[np.ndarray, "n 4 4"]
        ],
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.views, self.value, self.table, self.draws, self.matrices = views, value, table, draws, matrices
        self.categories = categories
        self.device = device
        rows = max((len(category.parameters) for category in categories), default=1)
        self.systems = np.zeros((len(categories), rows + 1, 12))
        # Behind a system's last row, whose cumulative probability may be below 1, is the identity.
        self.systems[:, :, [0, 4, 8]] = 1.0
        self.cumulatives = np.full((len(categories), rows), np.inf)
        for i, category in enumerate(categories):
            count = len(category.parameters)
            self.systems[i, :count] = category.parameters[:, :12]
            self.cumulatives[i, :count] = np.cumsum(category.parameters[:, 12])
        self.sizes = np.array([len(category.parameters) for category in categories], np.int64)

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        numbers, views = np.divmod(instances, self.views)
        found, cloud = np.unique(np.stack([labels, numbers]), axis=1, return_inverse=True)
        order = np.argsort(cloud, kind="stable")
        # A lane follows a cloud's orbit: many clouds take as long as one.
        for part in in_parts(found.shape[1], 11 * (clouds.POINTS + 1), _SCRATCH_BYTES):
            points = self._clouds(*found[:, part])
            own = order[(cloud[order] >= part.start) & (cloud[order] < part.stop)]
            matrices = self.matrices([self.categories[label] for label in labels[own]], numbers[own], views[own])
            for some in in_parts(len(own), out.shape[1] ** 2):
                images = torch.empty((len(own[some]), *out.shape[1:]), dtype=torch.uint8, device=self.device)
                which = upload(cloud[own[some]] - part.start, self.device)
                draw_points(points, which, upload(matrices[some], self.device), self.value, images)
                out[upload(own[some], self.device)] = images

    def _clouds(
        self, labels: Int64[np.ndarray, " clouds"], numbers: Int64[np.ndarray, " clouds"]
    ) -> Float32[torch.Tensor, "clouds 3 points"]:
        systems = self.systems[labels]
        rows = np.arange(systems.shape[1])
        factors = self.table[numbers % len(self.table)]
        systems = np.where((rows < self.sizes[labels][:, None])[:, :, None], systems * factors[:, None], systems)
        indices = np.array([self.categories[label].index for label in labels], np.int64)
        draws = self.draws(indices, numbers, clouds.POINTS).reshape(len(labels), clouds.POINTS)
        return draw_clouds(
            upload(systems, self.device),
            upload(self.cumulatives[labels].T, self.device),
            upload(draws.T, self.device),
        )
