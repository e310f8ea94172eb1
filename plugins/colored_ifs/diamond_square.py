"""The generator ``diamond-square``: the coloured backgrounds, for scenes of any generators."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from formulavision import Category, Generator

from .parameters import DiamondSquareParams

__all__ = ["DiamondSquare"]

_PUBLISHED = 1000
"""Number of published instances: one depends on the random numbers of all before it."""


class DiamondSquare(Generator):
    """Coloured fields by the diamond-square algorithm, the backgrounds of the generator ``colored-ifs``.

    There is one category: a background of a scene takes random instances of it, ``background: diamond-square``.
    """

    name = "diamond-square"
    version = 1
    Params = DiamondSquareParams
    columns = ("category",)
    category_params = frozenset()
    default_channels = 3
    fills_canvas = True

    params: DiamondSquareParams

    def max_categories(self) -> int:
        return 1

    def max_instances(self) -> int | None:
        return _PUBLISHED if self.params.random == "published" else None

    def category(self, index: int) -> list[int]:
        return [index]

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        from formulavision.rendering import mersenne

        from .drawing import draw_background
        from .independent import independent_background
        from .published import field_numbers, published_background

        params, size = self.params, self.canvas.size
        image = np.empty(self.canvas.shape, np.uint8)
        if params.random == "published":
            stream = mersenne.stream(params.numba_seed)
            mersenne.skip(stream, 2 * instance * field_numbers(size))
            background = published_background(stream, params.decay_seed, size)
        else:
            counter = (instance >> 32, instance, category.index)
            background = independent_background(self.random(category, instance), counter, self.seed, size)
        draw_background(background, image)
        return image
