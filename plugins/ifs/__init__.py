"""The generator ``ifs``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from formulavision import Canvas, Category, ConfigError, Generator, Params, hookimpl, rendering

GRAY = 127
"""The published images draw (127, 127, 127) on black."""
HUES = 128
FLIPS = 4
MAX_ROWS = 254
"""Transformations of a category read from a file at most: a selection is one byte."""


class IfsParams(Params):
    search: Literal["published", "independent"] = Field(
        "independent",
        description="published: the published stream of trials from the seed; independent: each category from a stream "
        "of its own, so that 1k grows to 10k and categories are found in parallel; systems that diverge are refused",
    )
    max_transformations: int = Field(
        8,
        ge=2,
        le=8,
        description="most transformations of a system; the paper says 8, the published search used 7",
        json_schema_extra={"unit": "transformations"},
    )
    fill_rate: float = Field(
        0.2,
        ge=0.01,
        le=0.3,
        description="least share of lit pixels of a category, in 100,000 points on 512 x 512 (paper, table 2)",
        json_schema_extra={"unit": "share"},
    )
    weight_interval: float = Field(
        0.4,
        ge=0.0,
        le=0.5,
        description="step of the five weights around 1 that multiply one of a to f at a time, 25 rows in all "
        "(paper, section 3.3; 0.4 is best in table 3); 0: no variation",
    )
    orbit: Literal["published", "independent"] = Field(
        "independent",
        description="published: one chain in float64 over the published draws, exact to the pixel; independent: 128 "
        "chains from counter-based random numbers, statistically the same image",
    )
    dots: int = Field(
        200_000,
        ge=1000,
        le=100_000_000,
        description="points of an orbit (paper, table 4)",
        json_schema_extra={"unit": "points"},
    )
    patch: Literal["random", "fixed", "point"] = Field(
        "random",
        description="a 3x3 patch at each point, random anew or fixed for the image, or the bare point (paper, table 1)",
    )
    flips: bool = Field(
        True, description="draw each image also flipped top-bottom, left-right and both, as instances of their own"
    )


class Ifs(Generator):
    """Fractals of iterated function systems, as in FractalDB (Kataoka et al., ACCV 2020, section 3).

    Instance = weight x flip x patch draw, the weight running fastest, so that the first instances differ most.
    """

    name = "ifs"
    version = 1
    Params = IfsParams
    columns = ("a", "b", "c", "d", "e", "f", "p")
    category_params = frozenset({"search", "max_transformations", "fill_rate", "weight_interval"})

    params: IfsParams

    def __init__(self, params: IfsParams, canvas: Canvas, seed: int) -> None:
        super().__init__(params, canvas, seed)
        self._weights = weight_table(params.weight_interval)
        self._flips = FLIPS if params.flips else 1

    # Categories

    def categories_are_independent(self) -> bool:
        return self.params.search == "independent"

    def category(self, index: int) -> NDArray[np.float64]:
        from .search import independent_search

        params = self.params
        return independent_search(self.seed, index, params.max_transformations, params.fill_rate, self._weights)

    def categories(self, count: int) -> Iterator[NDArray[np.float64]]:
        if self.params.search == "independent":
            yield from super().categories(count)  # type: ignore[misc]
            return
        from .search import published_search

        found = published_search(self.seed, self.params.max_transformations, self.params.fill_rate)
        for _, system in zip(range(count), found, strict=False):
            yield system

    # Instances

    def max_instances(self) -> int | None:
        # The published orbit always takes the same draws: without random patches there is nothing else that varies.
        repeats = self.params.orbit == "published" and self.params.patch == "point"
        return len(self._weights) * self._flips if repeats else None

    def decompose(self, instance: int) -> tuple[int, int, int]:
        """Weight row, patch draw and flip of an instance."""
        rest, weight = divmod(instance, len(self._weights))
        patch, flip = divmod(rest, self._flips)
        return weight, patch, flip

    def instance_name(self, instance: int) -> str:
        """As published: ``WW_count_C_flipF``."""
        weight, patch, flip = self.decompose(instance)
        return f"{weight:02d}_count_{patch}_flip{flip}"

    def render(self, category: Category, instance: int) -> NDArray[np.uint8]:
        out = np.zeros((1, *self.canvas.shape), np.uint8)
        self.render_batch(category, np.array([instance]), out)
        return out[0]

    def render_batch(self, category: Category, instances: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """One orbit serves all patch draws and flips of a weight where it is the published one, a drawing all flips."""
        parts = [self.decompose(int(instance)) for instance in instances]
        last: tuple[int, int] | None = None
        for i in sorted(range(len(parts)), key=lambda i: parts[i]):
            weight, patch, flip = parts[i]
            if (weight, patch) != last:
                if last is None or weight != last[0] or self.params.orbit == "independent":
                    pixels = self._orbit(category, weight, patch)
                image = self._colored(self._draw(*pixels, self.masks(category, weight, patch)))
                last = (weight, patch)
            # Row 0 of the points is the lowest y: the plain image is the drawing upside down (flip 0).
            out[i] = image[:: 1 if flip in (1, 3) else -1, :: -1 if flip in (2, 3) else 1]

    def masks(self, category: Category, weight: int, patch: int) -> NDArray[np.uint16] | None:
        """9-bit masks of the patches, uint16 [dots] or [1], until the next call; None where bare points are drawn."""
        if self.params.patch == "point":
            return None
        masks = _scratch("masks", self.params.dots if self.params.patch == "random" else 1, np.uint16)
        rendering.points.patch_masks(masks, self._counter(weight, patch), category.index, *self._key(b"mask"))
        return masks

    def draw_published(self, category: Category, weight: int, masks: NDArray[np.uint16] | None) -> NDArray[np.uint8]:
        """The published image of a weight row from given masks, uint8 [size, size, channels], flip 0."""
        return self._colored(self._draw(*self._published_orbit(category, weight), masks))[::-1]

    def _counter(self, weight: int, patch: int) -> int:
        return weight + len(self._weights) * patch

    def _key(self, purpose: bytes) -> tuple[int, int]:
        return self.seed & 0xFFFF_FFFF, (self.seed >> 32) ^ int.from_bytes(purpose, "little")

    def _orbit(self, category: Category, weight: int, patch: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16], int]:
        if len(category.parameters) > MAX_ROWS:
            raise ConfigError(
                f"category {category.name} has {len(category.parameters)} transformations, not {MAX_ROWS} at most"
            )
        if self.params.orbit == "published":
            return self._published_orbit(category, weight)
        from .orbits import independent_orbit
        from .search import borders

        system = (category.parameters[:, :6] * self._weights[weight]).astype(np.float32)
        x, y = (_scratch(name, self.params.dots, np.float32) for name in ("x", "y"))
        counter = self._counter(weight, patch)
        independent_orbit(system, borders(category.parameters), counter, category.index, *self._key(b"walk"), x, y)
        return self._to_pixels(x, y)

    def _published_orbit(self, category: Category, weight: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16], int]:
        from .orbits import published_orbit
        from .search import with_identity

        x, y = (_scratch(name, self.params.dots, np.float64) for name in ("x", "y"))
        weighted = category.parameters[:, :6] * self._weights[weight]
        published_orbit(with_identity(weighted), self._selection(category), x, y)
        return self._to_pixels(x, y)

    def _to_pixels(
        self, x: NDArray[np.floating], y: NDArray[np.floating]
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16], int]:
        columns, rows = (_scratch(name, len(x), np.uint16) for name in ("columns", "rows"))
        length = rendering.points.to_pixels(x, y, self.canvas.size, self.canvas.padding, columns, rows)
        return columns, rows, length

    def _selection(self, category: Category) -> NDArray[np.uint8]:
        """What the published orbit selects; weights leave p as it is, so a category has one sequence."""
        selected = self._selected
        if selected is None or selected[0] is not category:
            from .orbits import select
            from .search import cumulated

            selection = np.empty(self.params.dots, np.uint8)
            select(self._published_draws, cumulated(category.parameters[:, 6]), selection)
            self._selected = (category, selection)
            return selection
        return selected[1]

    _selected: tuple[Category, NDArray[np.uint8]] | None = None

    @cached_property
    def _published_draws(self) -> NDArray[np.float64]:
        return np.random.RandomState(100).random_sample(self.params.dots)

    def _draw(
        self, columns: NDArray[np.uint16], rows: NDArray[np.uint16], length: int, masks: NDArray[np.uint16] | None
    ) -> NDArray[np.uint8]:
        size = self.canvas.size
        image = np.zeros((size, size), np.uint8)
        if masks is None:
            rendering.points.plot_points(image, columns, rows, length, self._values)
        elif self.canvas.channels == 1:
            rendering.points.paste_patches(image, columns, rows, length, masks, GRAY)
        else:
            rendering.points.paste_patches_in_colors(image, columns, rows, length, masks, self._values)
        return image

    @cached_property
    def _values(self) -> NDArray[np.uint8]:
        """What a point writes: the gray value, or in colour the number of its hue, from 1."""
        return np.array([GRAY], np.uint8) if self.canvas.channels == 1 else np.arange(1, HUES + 1, dtype=np.uint8)

    def _colored(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.canvas.channels == 1:
            return image[:, :, None]
        return self._palette[image]

    @cached_property
    def _palette(self) -> NDArray[np.uint8]:
        """Black, then the hues. The published files hold them with red and blue exchanged."""
        return np.concatenate([np.zeros((1, 3), np.uint8), rendering.color.hue_circle(HUES)[:, ::-1]])


_buffers = threading.local()


def _scratch(name: str, length: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Memory for a step of the drawing, used again by the next image: new pages cost more than the orbit itself."""
    buffer = getattr(_buffers, name, None)
    if buffer is None or len(buffer) != length or buffer.dtype != dtype:
        buffer = np.empty(length, dtype)
        setattr(_buffers, name, buffer)
    return buffer


def weight_table(interval: float) -> NDArray[np.float64]:
    """Weights of a to f, float64 [25, 6]: one parameter at a time, at 1 - 2 i, 1 - i, 1 + i, 1 + 2 i; and no change.

    The order is that of the published tables. At interval 0.5 the lowest weight is 0.01 (paper, section 4.1).
    """
    if interval == 0:
        return np.ones((1, 6))
    levels = [round(1 + step * interval, 10) for step in (-2, -1, 0, 1, 2)]
    levels[0] = max(levels[0], 0.01)
    rows = []
    for parameter in range(6):
        for level in levels:
            if level == 1 and parameter > 0:
                continue
            row = np.ones(6)
            row[parameter] = level
            rows.append(row)
    return np.array(rows)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Ifs)
