"""The class of the generator ``ifs``: its categories, and how an instance follows from its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt32

from formulavision import Canvas, Category, ConfigError, Generator, WalkedStreams

from .parameters import IfsParams
from .systems import check_system
from .weights import ContinuousVariation, TableVariation, Variation, weight_table

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer

    from .drawing import FractalDrawing

__all__ = ["Ifs"]


class Ifs(Generator):
    """Fractals of iterated function systems, as in FractalDB (Kataoka et al., ACCV 2020, section 3)."""

    name = "ifs"
    version = 2
    Params = IfsParams
    columns = ("a", "b", "c", "d", "e", "f", "p")
    category_params = frozenset(
        {
            "search", "max_transformations", "fill_rate", "weights", "perturbation", "weight_interval", "table_rows",
            "base", "base_seed", "base_transformations", "sigma",
        }
    )  # fmt: skip

    params: IfsParams

    def __init__(self, params: IfsParams, canvas: Canvas, seed: int) -> None:
        super().__init__(params, canvas, seed)
        self.table: Float64[np.ndarray, "rows 6"] | None = None
        """Weights of a to f; None for continuous weights."""
        if params.search == "one_base":
            self.table = weight_table(0)
        elif params.weights == "table":
            self.table = weight_table(params.weight_interval)[: params.table_rows]
        if self.has_published_perturbations:
            # Whether a try is taken depends on its image, and the random numbers of the next one on its points.
            of_images = {"patches", "patch_seed", "patch", "dots", "fill_size", "fill_padding"}
            self.category_params = type(self).category_params | of_images
        elif params.search == "published":
            # No weights are tested: 2D-OFDB shares the cached categories of FractalDB.
            self.category_params = type(self).category_params - {"table_rows"}
        self._by_table = None if self.table is None else TableVariation(self.table, params.flips)
        self.variation: Variation = self._by_table or ContinuousVariation(
            self.uniforms, params.perturbation, params.flips
        )
        """How instances follow from their numbers."""
        self._streams: WalkedStreams | None = None
        """The stream of the patches of all categories, where they share one and are known."""

    # Categories ------------------------------------------------------------------------------------------------------

    def categories_are_independent(self) -> bool:
        return self.params.search != "published"

    def category(self, index: int) -> Float64[np.ndarray, "n 7"]:
        from .search_independent import category_stream, independent_search

        if self.has_published_perturbations:
            from .drawing import FractalDrawing
            from .search_one_base import published_perturbation

            canvas = Canvas(size=self.params.fill_size, padding=self.params.fill_padding)
            return published_perturbation(FractalDrawing(self.params, canvas, self.seed), self._base, index)
        weights = np.full((1, 6), 1 + self.params.perturbation) if self.table is None else self.table
        return independent_search(
            category_stream(self.seed, index), self._random_system, self.params.fill_rate, weights
        )

    def _random_system(self, stream: np.random.Generator) -> Float64[np.ndarray, "n 7"]:
        """A system as the search draws it, before it is tested."""
        from .search_independent import contracting_system, uniform_system
        from .search_one_base import perturbed

        params = self.params
        if params.search == "one_base":
            base, most = self._base.parameters, params.perturbation
            return perturbed(base, stream.uniform(1 - most, 1 + most, (len(base), 6)))
        if params.search == "singular_values":
            return contracting_system(stream, params.max_transformations)
        return uniform_system(stream, params.max_transformations)

    @property
    def has_published_perturbations(self) -> bool:
        return self.params.search == "one_base" and self.has_published_patches

    @cached_property
    def _base(self) -> Category:
        """The system that all categories are perturbations of: the program tests none, our own fills the canvas."""
        from .search_independent import independent_search
        from .search_one_base import random_base

        params = self.params
        stream = np.random.default_rng(params.base_seed)
        draw = partial(random_base, n=params.base_transformations, sigma=params.sigma)
        if params.base is not None:
            system = np.array(params.base)
        elif self.has_published_patches:
            system = draw(stream)
        else:
            system = independent_search(stream, draw, params.fill_rate, weight_table(0))
        return Category(0, "base", system)

    def categories(self, count: int) -> Iterator[Float64[np.ndarray, "n 7"]]:
        if self.categories_are_independent():
            yield from (self.category(index) for index in range(count))
            return
        from .search_published import published_search

        if self.seed >= 2**32:
            raise ConfigError(f"seed: {self.seed} is not allowed: the published search takes seeds below 2^32")
        found = published_search(self.seed, self.params.max_transformations, self.params.fill_rate)
        for _, system in zip(range(count), found, strict=False):
            yield system

    def check_category(self, parameters: Float64[np.ndarray, "n 7"]) -> None:
        check_system(parameters)

    # Instances -------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        # Without random patches only the table's weights and the flips vary.
        if self._by_table is not None and (self.params.patch in ("full", "point") or self.has_published_patches):
            return len(self._by_table.table) * self._by_table.flips
        return None

    def instance_name(self, instance: int) -> str:
        """With weights from the table as published: ``WW_count_C_flipF``."""
        if self._by_table is None:
            return super().instance_name(instance)
        weight, patch, flip = (int(part[0]) for part in self._by_table.decompose(np.array([instance])))
        return f"{weight:02d}_count_{patch}_flip{flip}"

    def shared_work(self, instances: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Instances with the same row of the table of weights share an orbit."""
        return instances if self.table is None else instances % len(self.table)

    # Drawing ---------------------------------------------------------------------------------------------------------

    @cached_property
    def drawing(self) -> FractalDrawing:
        """What draws on the CPU; numba is imported on first use."""
        from .drawing import FractalDrawing

        return FractalDrawing(self.params, self.canvas, self.seed)

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        out = np.zeros((1, *self.canvas.shape), np.uint8)
        self.render_batch(category, np.array([instance]), out)
        return out[0]

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        drawing = self.drawing
        indices, sizes = (np.full(len(instances), number) for number in (category.index, len(category.parameters)))
        draws = self.variation.draws(indices, sizes, instances)
        orbit = patch = None
        # In this order one orbit serves all its draws of patches, and one drawing all its flips.
        for i in np.lexsort((draws.flips, draws.patches, draws.orbits)):
            if orbit != draws.orbits[i]:
                orbit, patch = int(draws.orbits[i]), None
                owners = drawing.owners(category, draws.weights[i], orbit)
            if patch != draws.patches[i]:
                patch = int(draws.patches[i])
                image = drawing.shade(owners, drawing.masks(category, patch, self._patch_stream(category)))
            drawing.turn(image, int(draws.flips[i]), out[i])

    # Published patches ----------------------------------------------------------------------------------------------

    @property
    def has_published_patches(self) -> bool:
        return self.params.patches == "published"

    def _patch_stream(self, category: Category) -> UInt32[np.ndarray, " 625"] | None:
        """The state of Python's random where the patches of a category's image begin; None where they have none."""
        if not self.has_published_patches or self.params.patch != "random":
            return None
        from .search_one_base import published_tries

        if self.has_published_perturbations:
            base = self._base.parameters[:, :6]
            for factors, state in published_tries(self.drawing, self._base, category.index):
                if np.array_equal(base * factors, category.parameters[:, :6]):
                    return state
            raise ConfigError(
                f"categories: {category.name} is no perturbation that patches: published draws for category "
                f"{category.index}: remove categories.folder, or use patches: independent"
            )
        if self._streams is None or category.index >= self._streams.length:
            raise ConfigError(
                f"patches: published needs the categories before {category.name} to draw it: call "
                "generator.before_drawing(categories) first, as Drawer does"
            )
        begins: UInt32[np.ndarray, " 625"] = self._streams.checkpoint(category.index)["state"][:-1].copy()
        return begins

    def before_drawing(self, categories: Sequence[Category]) -> None:
        if self.has_published_patches and not self.has_published_perturbations:
            from .patches_published import walked_patches

            version, params = self.version, self.params
            self._streams = walked_patches(self.name, version, params, categories, self._published_length)

    def _published_length(self, category: Category) -> int:
        assert self.table is not None  # published patches need it: one row
        return self.drawing.published_length(category, self.table)

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if self.has_published_patches or not runs_on(device):
            return None
        from .drawing_on_device import IfsRenderer

        return IfsRenderer(self.params, self.canvas, self.seed, self.variation, categories, device)
