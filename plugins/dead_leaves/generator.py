"""The class of the generator ``dead-leaves``: its categories, and how an instance follows from its number."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from formulavision import Canvas, Category, ConfigError, Generator

from .parameters import SHAPES, DeadLeavesParams, radius_distribution

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer

__all__ = ["DeadLeaves"]

_NARROWEST = 64
"""Least number of levels of a colour in a category."""


class DeadLeaves(Generator):
    """Dead leaves (Lee, Mumford and Huang 2001): shapes of many sizes that cover each other.

    A category has an exponent of the radii, a probability of each shape, and a range of levels for red, green and blue;
    these are our reading, since the published images have no classes. A gray canvas takes the range of red. Leaves are
    drawn from the top one down until they cover the canvas, whose padding is ignored.

    Raises:
        ConfigError: published images are asked for on a gray canvas.
    """

    name = "dead-leaves"
    version = 1
    Params = DeadLeavesParams
    fills_canvas = True
    default_channels = 3
    default_instances = 1000
    columns = (
        "sigma", *SHAPES, "red_min", "red_max", "green_min", "green_max", "blue_min", "blue_max"
    )  # fmt: skip
    category_params = frozenset({"random", "shape", "sigma", "sigma_spread"})

    params: DeadLeavesParams

    def __init__(self, params: DeadLeavesParams, canvas: Canvas, seed: int) -> None:
        super().__init__(params, canvas, seed)
        if self.is_published and canvas.channels != 3:
            raise ConfigError("canvas.channels: must be 3 with random: published, whose leaves are in colour")

    @property
    def is_published(self) -> bool:
        return self.params.random == "published"

    # Categories ------------------------------------------------------------------------------------------------------

    def max_categories(self) -> int | None:
        return 1 if self.is_published else None

    def default_categories(self) -> int:
        return self.max_categories() or 1000

    def category(self, index: int) -> Float64[np.ndarray, " columns"]:
        params, random = self.params, self.stream(index)
        if self.is_published:
            return np.array([params.sigma, *self._mix(np.ones(len(SHAPES))), *(0, 255) * 3])
        sigma = random.uniform(params.sigma - params.sigma_spread, params.sigma + params.sigma_spread)
        # Third powers: most categories have a few shapes that are frequent.
        mix = self._mix(random.random(len(SHAPES)) ** 3)
        levels = random.integers(_NARROWEST, 256, 3, endpoint=True)
        low = random.integers(0, 256 - levels, endpoint=True)
        return np.array([sigma, *mix, *np.column_stack([low, low + levels - 1]).ravel()])

    def _mix(self, shares: Float64[np.ndarray, " shapes"]) -> Float64[np.ndarray, " shapes"]:
        """Probabilities of the shapes, in proportion to ``shares`` where the recipe's shape is mixed."""
        if self.params.shape != "mixed":
            shares = np.array([float(shape == self.params.shape) for shape in SHAPES])
        return shares / shares.sum()

    def check_category(self, parameters: Float64[np.ndarray, "rows 13"]) -> None:
        sigma, mix, levels = np.split(parameters[0], [1, 1 + len(SHAPES)])
        if self.is_published and not np.array_equal(parameters, [self.category(0)]):
            raise ValueError("must be that of the published set: use random: independent for categories from files")
        if len(parameters) != 1 or not 0.1 <= sigma[0] <= 10:
            raise ValueError("must be one row, with a sigma from 0.1 to 10")
        if mix.min() < 0 or not 0.99 <= mix.sum() <= 1.01:
            raise ValueError(f"the shapes must have probabilities: not negative, and 1 in sum, which is {mix.sum():g}")
        low, high = levels.reshape(3, 2).T
        if (levels != np.floor(levels)).any() or (low < 0).any() or (high < low).any() or (high > 255).any():
            raise ValueError("levels of colours must be whole numbers from 0 to 255, min not above max")

    # Instances -------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        return 2**32 if self.is_published else None

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        out = np.empty((1, *self.canvas.shape), np.uint8)
        self.render_batch(category, np.array([instance]), out)
        return out[0]

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        (self._draw_published if self.is_published else self._draw)(category, instances, out)

    def _draw(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        from formulavision.rendering.random import kernel_key

        from . import leaves

        size = self.canvas.size
        table = leaves.category_table(self.params, np.array(category.parameters[0]))
        radii, around, key = self._radii, leaves.directions(), kernel_key(self.seed, b"leaf")
        colors = np.zeros((self.params.leaves + 1, 3), np.uint8)
        for image, instance in zip(out, instances.tolist(), strict=True):
            owners = np.zeros(size * size + leaves.STEP, np.int16)
            counter = (instance & 0xFFFF_FFFF, category.index, instance >> 32)
            leaves.draw_leaves(counter, key, table, radii, around, owners, colors, size)
            leaves.paint(owners, colors, image)

    @functools.cached_property
    def _radii(self) -> Float32[np.ndarray, " 256"]:
        from .leaves import radii_in_pixels

        return radii_in_pixels(self.params, self.canvas.size)

    def _draw_published(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        from formulavision.rendering import python_random

        from . import leaves, published

        radii, cumulative = radius_distribution(self.params, self.params.sigma)
        shape = -1 if self.params.shape == "mixed" else SHAPES.index(self.params.shape)
        for image, instance in zip(out, instances.tolist(), strict=True):
            owners = np.zeros((self.canvas.size,) * 2, np.int16)
            colors = np.zeros((self.params.leaves + 1, 3), np.uint8)
            states = published.numpy_seeded(instance), python_random.seeded(instance)
            published.draw(*states, shape, len(SHAPES), radii, cumulative, owners, colors)
            leaves.paint(owners.reshape(-1), colors, image)

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.random import kernel_key
        from formulavision.rendering.triton_support import runs_on, upload

        if self.is_published or not runs_on(device):
            return None
        from .leaves_triton import LeafTables, draw_leaves

        tables = LeafTables(self.params, self.canvas.size, categories, device)
        indices = np.array([category.index for category in categories])

        def draw(
            labels: Int64[np.ndarray, " n"],
            instances: Int64[np.ndarray, " n"],
            out: UInt8[torch.Tensor, "n size size channels"],
        ) -> None:
            images = np.column_stack([labels, instances & 0xFFFF_FFFF, indices[labels], instances >> 32])
            draw_leaves(upload(images, device), tables, kernel_key(self.seed, b"leaf"), self.params.leaves, out)

        return draw
