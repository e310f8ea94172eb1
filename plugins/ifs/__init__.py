"""The generator ``ifs``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from formulavision import Canvas, Category, ConfigError, Generator, Params, hookimpl, rendering

if TYPE_CHECKING:
    import torch

    from formulavision.generators.contract import DeviceRenderer

GRAY = 127
"""The published images draw (127, 127, 127) on black."""
HUES = 128
FLIPS = 4
MAX_ROWS = 254
"""Transformations of a category read from a file at most: a selection is one byte."""
LARGEST = 1_000_000
"""Largest of a to f in a category read from a file, far beyond what converges."""
ROUNDED = 0.02
"""How far from 1 probabilities in a file may sum up to, where they were rounded: 0.33 three times."""


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
    weights: Literal["continuous", "table"] = Field(
        "continuous",
        description="what multiplies a to f in an instance: continuous: 1 + u, each its own u, drawn anew for every "
        "instance, of which there is no end; table: one of the 25 rows of the published weights",
    )
    perturbation: float = Field(
        0.2,
        gt=0.0,
        le=0.5,
        description="continuous weights: u is uniform from minus this to this",
        json_schema_extra={"unit": "share"},
    )
    weight_interval: float = Field(
        0.4,
        ge=0.0,
        le=0.5,
        description="weights from the table: step of the five weights around 1 that multiply one of a to f at a time, "
        "25 rows in all (paper, section 3.3; 0.4 is best in table 3); 0: no variation",
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

    @model_validator(mode="after")
    def _weights_are_those_that_count(self) -> IfsParams:
        for name, weights in (("perturbation", "continuous"), ("weight_interval", "table")):
            if self.weights != weights and getattr(self, name) != IfsParams.model_fields[name].default:
                raise ConfigError(f"{name}: counts with weights: {weights} only, and weights is {self.weights}")
        return self


class Ifs(Generator):
    """Fractals of iterated function systems, as in FractalDB (Kataoka et al., ACCV 2020, section 3).

    With weights from the table, instance = weight x flip x patch draw, the weight running fastest, so that the first
    instances differ most; flips share a drawing, patch draws an orbit. With continuous weights every instance draws its
    own weights, flip and patches.
    """

    name = "ifs"
    version = 2
    Params = IfsParams
    columns = ("a", "b", "c", "d", "e", "f", "p")
    category_params = frozenset(
        {"search", "max_transformations", "fill_rate", "weights", "perturbation", "weight_interval"}
    )

    params: IfsParams

    def __init__(self, params: IfsParams, canvas: Canvas, seed: int) -> None:
        super().__init__(params, canvas, seed)
        self.table = weight_table(params.weight_interval) if params.weights == "table" else None
        """Weights of a to f, float64 [25, 6], where they come from the table."""
        self._flips = FLIPS if params.flips else 1

    # Categories

    def categories_are_independent(self) -> bool:
        return self.params.search == "independent"

    def category(self, index: int) -> NDArray[np.float64]:
        from .search import independent_search

        params = self.params
        return independent_search(
            self.seed, index, params.max_transformations, params.fill_rate, self.table, params.perturbation
        )

    def categories(self, count: int) -> Iterator[NDArray[np.float64]]:
        if self.params.search == "independent":
            yield from super().categories(count)  # type: ignore[misc]
            return
        from .published_search import published_search

        if self.seed >= 2**32:
            raise ConfigError(f"seed: {self.seed} is not allowed: the published search takes seeds below 2^32")
        found = published_search(self.seed, self.params.max_transformations, self.params.fill_rate)
        for _, system in zip(range(count), found, strict=False):
            yield system

    def check_category(self, parameters: NDArray[np.float64]) -> None:
        if len(parameters) > MAX_ROWS:
            raise ValueError(f"have {len(parameters)} transformations, not {MAX_ROWS} at most")
        if np.abs(parameters[:, :6]).max() > LARGEST:
            raise ValueError(f"a to f must be from -{LARGEST:,} to {LARGEST:,}")
        p = parameters[:, 6]
        if p.min() < 0 or abs(p.sum() - 1) > ROUNDED:
            raise ValueError(f"p must be probabilities: not negative, and 1 in sum, which is {p.sum():g}")

    # Instances

    def max_instances(self) -> int | None:
        # Without random patches nothing varies but the table's weights and the flips.
        repeats = self.table is not None and self.params.patch == "point"
        return len(self.table) * self._flips if repeats else None

    def decompose(self, instances: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Weight row, patch draw and flip of instances, int64 [n] each, where weights come from the table."""
        assert self.table is not None
        rest, weights = np.divmod(instances, len(self.table))
        patches, flips = np.divmod(rest, self._flips)
        return weights, patches, flips

    def instance_name(self, instance: int) -> str:
        """With weights from the table as published: ``WW_count_C_flipF``."""
        if self.table is None:
            return super().instance_name(instance)
        weight, patch, flip = (int(part) for part in self.decompose(np.int64(instance)))
        return f"{weight:02d}_count_{patch}_flip{flip}"

    def shared_work(self, instances: NDArray[np.int64]) -> NDArray[np.int64]:
        """Instances of one weight row share its orbit."""
        return instances if self.table is None else instances % len(self.table)

    def render(self, category: Category, instance: int) -> NDArray[np.uint8]:
        out = np.zeros((1, *self.canvas.shape), np.uint8)
        self.render_batch(category, np.array([instance]), out)
        return out[0]

    def render_batch(self, category: Category, instances: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        if self.table is None:
            indices, rows = (np.full(len(instances), n) for n in (category.index, len(category.parameters)))
            weights, flips = self.continuous_weights(indices, rows, instances)
            for i, instance in enumerate(instances.tolist()):
                owners = self._owners(category, weights[i], instance)
                self._turn(self._shade(owners, self.masks(category, instance)), int(flips[i]), out[i])
            return
        parts = list(zip(*(part.tolist() for part in self.decompose(instances)), strict=True))
        last: tuple[int, int] | None = None
        for i in sorted(range(len(parts)), key=lambda i: parts[i]):
            weight, patch, flip = parts[i]
            if last is None or weight != last[0]:
                owners = self._owners(category, self.table[weight], weight)
            if (weight, patch) != last:
                image = self._shade(owners, self.masks(category, weight + len(self.table) * patch))
                last = (weight, patch)
            self._turn(image, flip, out[i])

    def masks(self, category: Category, draw: int) -> NDArray[np.uint16]:
        """9-bit masks of the patches for ``rendering.points.shade``, until the next call.

        A 0, then one for each point, or for all of them where they are fixed or bare points are drawn.
        """
        if self.params.patch == "point":
            return np.array([0, 1], np.uint16)
        masks = _scratch("masks", 1 + (self.params.dots if self.params.patch == "random" else 1), np.uint16)
        masks[0] = 0
        rendering.points.patch_masks(masks[1:], draw, category.index, *self.key(b"mask"))
        return masks

    def draw_published(self, category: Category, weight: int, masks: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """The published image of a weight row from given masks, one a point: uint8 [size, size, channels], flip 0."""
        assert self.table is not None
        image = np.empty(self.canvas.shape, np.uint8)
        owners = self._owners(category, self.table[weight], weight)
        self._turn(self._shade(owners, np.concatenate([np.zeros(1, np.uint16), masks])), 0, image)
        return image

    def continuous_weights(
        self, categories: NDArray[np.int64], rows: NDArray[np.int64], instances: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Weights 1 + u of instances, and their flips.

        They are numpy's ``uniform(-perturbation, perturbation, (rows, 6))``, then its ``integers(flips)``, from each
        instance's stream.

        Args:
            categories, instances: int64 [n]; a category by its index.
            rows: int64 [n], of the category's system.

        Returns:
            float64 [n, most rows, 6], 1 beyond an instance's rows; and int64 [n].
        """
        numbers = self.uniforms(categories, instances, 6 * rows + 1)
        ends = np.cumsum(6 * rows + 1) - 1
        weights = np.ones((len(rows), rows.max(initial=0), 6))
        own = np.arange(weights.shape[1]) < rows[:, None]
        perturbation = self.params.perturbation
        weights[own] += np.delete(numbers, ends).reshape(-1, 6) * (perturbation + perturbation) - perturbation
        # integers(4) takes the two highest of a word's lower 32 bits, of which a uniform number has the upper 53.
        words = (numbers[ends] * 2.0**53).astype(np.int64)
        return weights, (words >> 19) % self._flips if self._flips == FLIPS else np.zeros(len(rows), np.int64)

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if not runs_on(device):
            return None
        from .on_device import IfsRenderer

        return IfsRenderer(self, categories, device)

    def key(self, purpose: bytes) -> tuple[int, int]:
        """Of the random numbers that kernels draw: b"walk" or b"mask"."""
        return self.seed & 0xFFFF_FFFF, (self.seed >> 32) ^ int.from_bytes(purpose, "little")

    def _owners(self, category: Category, weights: NDArray[np.float64], draw: int) -> NDArray[np.uint32]:
        """For each pixel the last point that draws there, uint32 [size, size], until the next call.

        Args:
            weights: float64 [6] or [rows, 6].
            draw: number of the orbit, where it is an independent one.
        """
        size, padding, dots = self.canvas.size, self.canvas.padding, self.params.dots
        columns, rows = (_scratch(name, dots, np.uint16) for name in ("columns", "rows"))
        system = category.parameters[:, :6] * weights
        length = dots
        if self.params.orbit == "published":
            from .orbits import published_orbit
            from .search import with_identity

            x, y = (_scratch(name, dots, np.float64) for name in ("x", "y"))
            published_orbit(with_identity(system), self._selection(category), x, y)
            length = rendering.points.to_pixels(x, y, size, padding, columns, rows)
        else:
            from .orbits import in_fours, independent_orbit
            from .search import borders

            counter = (draw, category.index, *self.key(b"walk"))
            fours = in_fours(system, borders(category.parameters))
            independent_orbit(*fours, *counter, size, padding, columns, rows)
        latest = _scratch("latest", size * size, np.uint32).reshape(size, size)
        rendering.points.mark(columns, rows, length, latest)
        if self.params.patch == "point":
            return latest
        owners = _scratch("owners", size * size, np.uint32).reshape(size, size)
        rendering.points.patch_owners(latest, owners)
        return owners

    def _selection(self, category: Category) -> NDArray[np.uint8]:
        """What the published orbit selects; weights leave p as it is, so a category has one sequence."""
        selected = self._selected
        if selected is None or selected[0] is not category:
            from .orbits import select
            from .search import cumulated

            selection = np.empty(self.params.dots, np.uint8)
            select(self.published_draws, cumulated(category.parameters[:, 6]), selection)
            self._selected = (category, selection)
            return selection
        return selected[1]

    _selected: tuple[Category, NDArray[np.uint8]] | None = None

    @cached_property
    def published_draws(self) -> NDArray[np.float64]:
        """What the published orbit selects by, in all categories the same: float64 [dots]."""
        return np.random.RandomState(100).random_sample(self.params.dots)

    def _shade(self, owners: NDArray[np.uint32], masks: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Gray levels or numbers of colours, uint8 [size, size], until the next call; row 0 is the lowest y."""
        image = _scratch("image", owners.size, np.uint8).reshape(owners.shape)
        if self.canvas.channels == 1:
            rendering.points.shade(owners, masks, GRAY, image)
        else:
            rendering.points.shade_in_colors(owners, masks, HUES, image)
        return image

    def _turn(self, image: NDArray[np.uint8], flip: int, out: NDArray[np.uint8]) -> None:
        """Write a drawing to ``out``, uint8 [size, size, channels]; flips: none, top-bottom, left-right, both."""
        if flip in (2, 3):
            mirrored = _scratch("mirrored", image.size, np.uint8).reshape(image.shape)
            rendering.points.mirror(image, mirrored)
            image = mirrored
        if flip in (0, 2):
            image = image[::-1]  # row 0 of the points is the lowest y
        if self.canvas.channels == 1:
            out[:, :, 0] = image
        else:
            np.take(self.palette, image, axis=0, out=out)

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """Black, then what is lit: gray, or the hues. The published files hold these with red and blue exchanged."""
        if self.canvas.channels == 1:
            return np.array([[0], [GRAY]], np.uint8)
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
