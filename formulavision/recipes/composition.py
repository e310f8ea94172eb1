"""Composing scenes on the CPU: images of single objects, drawn over a background one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from formulavision.generators.contract import Canvas, Category, Generator, Scene, render_each
from formulavision.generators.failures import blamed
from formulavision.recipes.parts import Part
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.scenes import PlannedObjects, ScenePlanner, SceneSettings
from formulavision.rendering.memory import scratch
from formulavision.util.errors import PluginError

__all__ = ["SceneBatch", "SceneComposer", "build_generators", "draw_category", "own_scenes"]

_CHUNK_BYTES = 64_000_000
"""Memory for the images of objects before they are composed; a scene of more objects is composed in steps."""


@dataclass(frozen=True, eq=False)
class SceneBatch(Sequence[Scene]):
    """Several scenes; each item is a :class:`Scene`.

    Attributes:
        images: uint8 [n, size, size, channels].
        object_maps: uint16 [n, size, size].
        categories: of the objects of each scene, int64 [objects].
    """

    images: UInt8[np.ndarray, "n size size channels"]
    object_maps: UInt16[np.ndarray, "n size size"]
    categories: list[Int64[np.ndarray, " objects"]]

    def __len__(self) -> int:
        return len(self.categories)

    def __getitem__(self, index: Any) -> Any:
        return Scene(self.images[index], self.object_maps[index], self.categories[index])

    def __repr__(self) -> str:
        size = self.images.shape[1]
        return f"SceneBatch({len(self)} scenes of {size} x {size})"


class Chunk(NamedTuple):
    """Objects whose images fit into memory together.

    Attributes:
        objects: as planned, in their order.
        rows: what ``rendering.compositing.compose`` takes of them.
        pixel_bytes, mask_bytes: memory for their images, and for their masks.
    """

    objects: PlannedObjects
    rows: Int64[np.ndarray, "objects 10"]
    pixel_bytes: int
    mask_bytes: int


class SceneComposer:
    """Composes the scenes of a recipe, and says for each object which generator draws it on which canvas.

    Args:
        recipe: with settings of a scene.
        categories: of all parts, and then of the background.

    Attributes:
        generators: of each part and then of the background, one for each size.
    """

    def __init__(self, recipe: Recipe, categories: Sequence[Category]) -> None:
        settings = recipe.scene
        assert isinstance(settings, SceneSettings)
        self.recipe = recipe
        self.categories = categories
        parts = [*recipe.all_parts, *([] if settings.background is None else [settings.background])]
        self.planner = ScenePlanner(settings, recipe.all_parts, recipe.canvas, recipe.seed)
        self.canvases = settings.canvases(recipe.canvas)
        self.part_of = np.repeat(np.arange(len(parts)), [part.num_categories for part in parts])
        self.generators = build_generators(parts, self.canvases, recipe.seed, categories)
        self._whole = np.array([part.object == "fill" for part in recipe.all_parts] + [True])[: len(parts)]

    def draw(self, numbers: Int64[np.ndarray, " n"]) -> SceneBatch:
        """Scenes by their numbers.

        Raises:
            PluginError: a generator raised.
        """
        from formulavision.rendering.compositing import compose

        planned = self.planner.plan(numbers)
        images = np.zeros((len(numbers), *self.recipe.canvas.shape), np.uint8)
        object_maps = np.zeros(images.shape[:3], np.uint16)
        for chunk in self.chunks(planned):
            # Of this thread: several may draw at once.
            pixels = scratch("scene pixels", (chunk.pixel_bytes,), np.uint8)
            covered = scratch("scene masks", (chunk.mask_bytes,), np.uint8)
            pixels[:], covered[:] = 0, 0
            for part, step, group, out, masks in self.groups(chunk, pixels, covered):
                labels, instances = chunk.objects.labels[group], chunk.objects.instances[group]
                for some in _runs(labels):
                    draw_category(
                        self.generators[part][step],
                        self.categories[int(labels[some.start])],
                        instances[some],
                        out[some],
                        None if masks is None else masks[some],
                    )
            compose(pixels, covered, chunk.rows, chunk.objects.colors, images, object_maps)
        return SceneBatch(images, object_maps, self.objects_categories(planned, len(numbers)))

    def objects_categories(self, planned: PlannedObjects, scenes: int) -> list[Int64[np.ndarray, " objects"]]:
        """The categories of each scene's objects, without the backgrounds'."""
        real = planned.chosen(planned.numbers > 0)
        return np.split(real.labels, np.cumsum(np.bincount(real.scenes, minlength=scenes))[:-1]) if scenes else []

    def chunks(self, planned: PlannedObjects) -> Iterator[Chunk]:
        """Objects in parts that fit into memory, in their order."""
        sides = np.array([canvas.size for canvas in self.canvases])[planned.steps]
        bytes_ = sides**2 * self.canvases[0].channels
        ends = np.searchsorted(np.cumsum(bytes_), np.arange(_CHUNK_BYTES, bytes_.sum(), _CHUNK_BYTES))
        for start, stop in zip([0, *ends], [*ends, len(planned)], strict=True):
            if start < stop:
                yield self._chunk(planned.chosen(slice(start, stop)), sides[start:stop])

    def _chunk(self, chunk: PlannedObjects, sides: Int64[np.ndarray, " objects"]) -> Chunk:
        from formulavision.rendering.compositing import BY_BACKGROUND, BY_MASK, WHOLE

        part, channels = self.part_of[chunk.labels], self.canvases[0].channels
        masked = np.array([generators[0].draws_masks for generators in self.generators])[part] & ~self._whole[part]
        background = np.array([generators[0].background for generators in self.generators])[part]
        order = np.lexsort((chunk.instances, chunk.labels, chunk.steps))
        starts, mask_starts = np.zeros_like(sides), np.zeros_like(sides)
        starts[order] = np.cumsum(sides[order] ** 2 * channels) - sides[order] ** 2 * channels
        mask_sizes = sides**2 * masked
        mask_starts[order] = np.cumsum(mask_sizes[order]) - mask_sizes[order]
        where = np.where(self._whole[part], WHOLE, np.where(masked, BY_MASK, BY_BACKGROUND))
        deep = channels == self.recipe.canvas.channels
        columns = (
            chunk.scenes, chunk.numbers, starts, mask_starts, sides, *chunk.places.T, chunk.turns, where,
            2 * background + deep,
        )  # fmt: skip
        rows = np.stack(columns, axis=1).astype(np.int64)
        return Chunk(chunk, rows, int((sides**2 * channels).sum()), int(mask_sizes.sum()))

    def groups(
        self, chunk: Chunk, pixels: Any, masks: Any
    ) -> Iterator[tuple[int, int, Int64[np.ndarray, " k"], Any, Any]]:
        """Objects of one part and size together, with views of the memory that their images and masks take.

        Args:
            pixels, masks: flat memory, of numpy or of torch.

        Yields:
            The numbers of the part and the size; positions of the objects in the chunk, in the order of their
            categories and instances; their images [k, side, side, channels]; their masks [k, side, side], or None.
        """
        channels = self.canvases[0].channels
        planned, rows = chunk.objects, chunk.rows
        order = np.argsort(rows[:, 2], kind="stable")
        kind = self.part_of[planned.labels[order]] + len(self.generators) * planned.steps[order]
        for run in _runs(kind):
            group = order[run]
            part, step = int(self.part_of[planned.labels[group[0]]]), int(planned.steps[group[0]])
            generator, side = self.generators[part][step], self.canvases[step].size
            start, length = rows[group[0], 2], len(group) * side * side
            out = pixels[start : start + length * channels].reshape(len(group), side, side, channels)
            mask_out = None
            if generator.draws_masks and not self._whole[part]:
                mask_start = rows[group[0], 3]
                mask_out = masks[mask_start : mask_start + length].reshape(len(group), side, side)
            yield part, step, group, out, mask_out


def build_generators(
    parts: Sequence[Part], canvases: Sequence[Canvas], seed: int, categories: Sequence[Category]
) -> list[list[Generator]]:
    """The generators of each part, one for each canvas, ready to draw: they know the categories.

    Args:
        categories: of all parts, in the order of the parts.

    Raises:
        PluginError: a generator raised.
    """
    rest, found = iter(categories), []
    for part in parts:
        own = list(itertools.islice(rest, part.num_categories))
        found.append([part.generator.build(canvas, seed) for canvas in canvases])
        for generator in found[-1]:
            with blamed(generator.name, "in before_drawing()"):
                generator.before_drawing(own)
    return found


def own_scenes(generator: Generator, categories: Sequence[Category], numbers: Int64[np.ndarray, " n"]) -> SceneBatch:
    """Scenes of a generator's own, checked.

    Raises:
        PluginError: the generator raised, or returned something else than a scene of its canvas.
    """
    canvas = generator.canvas
    batch = SceneBatch(
        np.empty((len(numbers), *canvas.shape), np.uint8), np.empty((len(numbers), *canvas.shape[:2]), np.uint16), []
    )
    for i, number in enumerate(numbers.tolist()):
        with blamed(generator.name, f"while drawing scene {number}"):
            drawn: Any = generator.scene(categories, number)
            if not (isinstance(drawn, tuple) and len(drawn) == 3):
                raise TypeError(f"scene() returned a {type(drawn).__name__}, not a Scene")
            image, object_map, labels = (np.asarray(array) for array in drawn)
            if image.dtype != np.uint8 or image.shape not in (canvas.shape, canvas.shape[:2]):
                raise TypeError(
                    f"scene() returned an image {image.dtype} {list(image.shape)}, not uint8 {list(canvas.shape)}"
                )
            if object_map.dtype != np.uint16 or object_map.shape != canvas.shape[:2]:
                raise TypeError(
                    f"scene() returned an object map {object_map.dtype} {list(object_map.shape)}, not uint16 "
                    f"{list(canvas.shape[:2])}"
                )
            labels = labels.astype(np.int64, casting="safe") if labels.size else np.empty(0, np.int64)
            if labels.ndim != 1 or np.any((labels < 0) | (labels >= len(categories))):
                raise ValueError(f"scene() returned categories that are not from 0 to {len(categories) - 1}")
            if object_map.max() > len(labels):
                raise ValueError(f"scene() returned object {object_map.max()} in the map, and {len(labels)} categories")
        batch.images[i] = image.reshape(canvas.shape)
        batch.object_maps[i] = object_map
        batch.categories.append(labels)
    return batch


def draw_category(
    generator: Generator,
    category: Category,
    instances: Int64[np.ndarray, " n"],
    out: UInt8[np.ndarray, "n size size channels"],
    masks: UInt8[np.ndarray, "n size size"] | None = None,
) -> None:
    """Draw instances of one category. If that fails, they are drawn one by one, to name the one that fails.

    Args:
        out, masks: zeros.

    Raises:
        PluginError: the generator raised.
    """
    which = str(instances[0]) if len(instances) == 1 else f"{instances.min()} to {instances.max()} in one batch"
    try:
        with blamed(generator.name, f"while drawing category {category.name}, instance {which}"):
            render: Any = generator.render_batch
            if generator.draws_masks and type(generator).render_batch is Generator.render_batch:
                render = partial(render_each, generator)
            drawn = render(category, instances, out, *((masks,) if generator.draws_masks else ()))
            if drawn is not None and not (isinstance(drawn, np.ndarray) and np.may_share_memory(drawn, out)):
                raise TypeError("render_batch() returned images, it must draw them into 'out'")
    except PluginError:
        if len(instances) > 1:
            for instance in np.sort(instances):
                alone = None if masks is None else np.zeros_like(masks[:1])
                draw_category(generator, category, np.array([instance]), np.zeros_like(out[:1]), alone)
        raise


def _runs(values: Int64[np.ndarray, " n"]) -> list[slice]:
    """Slices of neighbours with equal values."""
    cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]
