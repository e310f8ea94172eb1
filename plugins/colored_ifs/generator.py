"""The class of the generator ``colored-ifs``: its categories, its instances and its scenes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from formulavision_plugins.ifs.systems import check_system
from jaxtyping import Float64, UInt8

from formulavision import Category, Generator, Scene

from .parameters import ColoredIfsParams
from .systems import determinants, sampled_system

if TYPE_CHECKING:
    from .independent import IndependentSource
    from .published import PublishedSource

__all__ = ["ColoredIfs"]


class ColoredIfs(Generator):
    """Coloured fractals on coloured backgrounds (Anderson and Farrell, WACV 2022).

    A category is a system of affine maps with random singular values. An instance is a jittered system, seen through a
    random window: the hue of a pixel follows from the number of points on it. Scenes of the generator's own
    (``scene: own``) hold several fractals.
    """

    name = "colored-ifs"
    version = 2
    Params = ColoredIfsParams
    columns = ("a", "b", "c", "d", "e", "f", "p")
    category_params = frozenset({"random", "maps_min", "maps_max", "sigma_factor"})
    default_channels = 3
    default_instances = 1000
    draws_masks = True

    params: ColoredIfsParams

    # Categories ------------------------------------------------------------------------------------------------------

    @property
    def is_published(self) -> bool:
        return self.params.random == "published"

    def default_categories(self) -> int:
        return 1000

    def category(self, index: int) -> Float64[np.ndarray, "n 7"]:
        params = self.params
        random = np.random.default_rng(self.seed + index) if self.is_published else self.stream(index)
        return sampled_system(random, params.maps_min, params.maps_max, params.sigma_factor)

    def check_category(self, parameters: Float64[np.ndarray, "n 7"]) -> None:
        check_system(parameters)
        if self.params.jitter != "none" and not determinants(parameters).any():
            raise ValueError(
                "have determinants a d - b c of 0 only, from which jitter takes the probabilities: set "
                "generator.jitter=none"
            )

    # Instances -------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        return self.params.published_instances if self.is_published else None

    def render(
        self, category: Category, instance: int
    ) -> tuple[UInt8[np.ndarray, "size size channels"], UInt8[np.ndarray, "size size"]]:
        from . import drawing, pixels

        image, mask = np.zeros(self.canvas.shape, np.uint8), np.zeros(self.canvas.shape[:2], np.uint8)
        fractal, background, sigma = self._source.instance(category, instance)
        drawing.draw_background(background, image)
        drawing.draw_fractal(fractal, self.params.shading == "binary", image, mask)
        if sigma:
            pixels.blur(image, sigma)
        return image, mask

    def max_scenes(self) -> int | None:
        return self.params.published_images if self.is_published else None

    def scene(self, categories: Sequence[Category], index: int) -> Scene:
        from . import drawing, pixels

        image, object_map = np.zeros(self.canvas.shape, np.uint8), np.zeros(self.canvas.shape[:2], np.uint16)
        objects, background, sigma = self._source.scene(categories, index)
        drawing.draw_background(background, image)
        for number, drawn in enumerate(objects, 1):
            drawing.draw_object(drawn, number, self.params.shading == "binary", image, object_map)
        if sigma:
            pixels.blur(image, sigma)
        return Scene(image, object_map, np.array([drawn.label for drawn in objects], np.int64))

    @functools.cached_property
    def _source(self) -> IndependentSource | PublishedSource:
        if self.is_published:
            from .published import PublishedSource

            return PublishedSource(self.params, self.canvas.size, f"{self.name}-{self.version}")
        from .independent import IndependentSource

        return IndependentSource(self.params, self.canvas.size, self.seed, self.stream)
