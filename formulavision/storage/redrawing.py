"""Draws images of a store again, in another order and another process than ``generate``, and compares them.

This finds images that depend on more than the recipe and their index: on images drawn before, on a clock, on a global
random generator, or on the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category, Scene
from formulavision.generators.new_process import GeneratorUnknownThereError, run_in_new_process
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.impurity import AFTER_OTHERS, impurity
from formulavision.storage.manifest import origins
from formulavision.storage.own_categories import category_files
from formulavision.storage.scene_objects import EncodedObjects
from formulavision.storage.store import Store
from formulavision.util.errors import StoreError
from formulavision.util.remote import AnyFolder

__all__ = ["redraw"]

Found = tuple[int, list[str]]
"""Number of images that were drawn, and problems with them, one line each."""

_ALONE = 100
"""Number of images that are drawn one by one; the others are drawn in batches, as ``generate`` does."""
_EXPLAINED = 3
"""Number of differing images whose cause is looked for."""


def redraw(
    store: Store, categories: list[Category], indices: NDArray[np.int64], *, damaged_pieces: set[int]
) -> Iterator[Found]:
    """Draw images again and compare them with the stored ones.

    Args:
        indices: int64 [n], of the images.
        damaged_pieces: numbers of pieces whose files are known to be damaged, which explains differences there.

    Yields:
        The number of images that were drawn since the last time, and problems with them, one line each.

    Raises:
        PluginError: the generator raised, or the process that draws ended abruptly.
    """
    if len(indices) == 0:
        return
    generators = [part.generator.generator for _, part in category_files(store.recipe)]
    comparison = _Comparison(store.root, categories, indices, damaged_pieces)
    try:
        yield from run_in_new_process(generators, comparison)
    except GeneratorUnknownThereError:
        yield from comparison.run()


# The comparison ------------------------------------------------------------------------------------------------------


@dataclass
class _Comparison:
    """Draws images of a store again, in this process, and compares them."""

    path: AnyFolder
    categories: list[Category]
    indices: NDArray[np.int64]
    damaged_pieces: set[int]
    explained: int = 0

    def run(self) -> Iterator[Found]:
        self.store = Store(self.path)
        drawer = self.new_drawer()
        shuffled = random_stream(0, Stream.VERIFIED, 1).permutation(self.indices)
        alone = shuffled[:_ALONE].tolist()
        for index in alone:
            yield 1, self.problems(index, self.draw(drawer, [index])[0])
        for batch in reversed(list(drawer.batches(np.sort(shuffled[_ALONE:])))):
            pairs = zip(batch[::-1].tolist(), self.draw(drawer, batch[::-1]), strict=True)
            yield len(batch), [problem for index, drawn in pairs for problem in self.problems(index, drawn)]
        # The first image once more, now after others: in a store of one image it was the first drawn image, too.
        yield 0, self.problems(alone[0], self.draw(drawer, [alone[0]])[0])

    def new_drawer(self) -> Drawer:
        return Drawer(self.store.recipe, categories=self.categories)

    def draw_one_by_one(self, indices: Iterable[int]) -> _Drawn:
        """The last of these images, drawn one after the other by a new drawer."""
        drawer = self.new_drawer()
        return [self.draw(drawer, [index])[0] for index in indices][-1]

    def draw(self, drawer: Drawer, indices: Sequence[int] | NDArray[np.int64]) -> list[_Drawn]:
        """What the store must hold of each image."""
        least = self.store.layout.min_visible
        if least is None:
            images, _ = drawer.draw_batch(indices)
            return [_Drawn(image) for image in images]
        scenes = drawer.draw_scenes(np.asarray(indices))
        return [_Drawn.of_scene(scenes[i], EncodedObjects.of(scenes[i], least).boxes) for i in range(len(indices))]

    def stored(self, index: int) -> _Drawn:
        if self.store.layout.scenes is None:
            return _Drawn(self.store.read(index))
        return _Drawn.of_scene(self.store.scene(index), self.store.boxes(index))

    def problems(self, index: int, drawn: _Drawn) -> list[str]:
        """The difference between an image and the stored one, in one line; nothing where they are equal."""
        try:
            stored = self.stored(index)
        except StoreError as error:
            # The problem of a damaged file is known, and each of its images would repeat it.
            return [] if self.in_damaged_piece(index) else [str(error)]
        difference = stored.difference(drawn)
        if not difference:
            return []
        self.explained += 1
        cause = f": {self.cause(index, stored, drawn)}" if self.explained <= _EXPLAINED else ""
        return [f"{self.store.layout.name(index)}: {difference} differ from the formula's{cause}"]

    def in_damaged_piece(self, index: int) -> bool:
        return any(index in self.store.pieces[number].indices for number in self.damaged_pieces)

    def cause(self, index: int, stored: _Drawn, drawn: _Drawn) -> str:
        """The most likely reason for a difference, found by drawing the image alone, again, and after others."""
        if self.in_damaged_piece(index):
            return "its file is damaged"
        others = {0, max(index - 1, 0), min(index + 1, len(self.store) - 1), len(self.store) - 1} - {index}
        why, first = impurity(self.draw_one_by_one, index, others, _Drawn.difference)
        if why:
            return why
        if not first.difference(stored) or first.difference(drawn):
            return AFTER_OTHERS
        origin, written = origins(self.store.recipe), self.store.manifest.generator_package
        if origin != written:
            return f"{written} wrote the store, and {origin}, which is installed, draws other pixels"
        return (
            f"{origin} drew other pixels then: they changed without a new version of the generator, or they depend on "
            "the day, the machine or the process"
        )


@dataclass(frozen=True)
class _Drawn:
    """An image; for a scene also its object map, and its objects' categories and boxes."""

    image: NDArray[np.uint8]
    object_map: NDArray[np.uint16] | None = None
    categories: tuple[int, ...] = ()
    boxes: tuple[int, ...] = ()

    @classmethod
    def of_scene(cls, scene: Scene, boxes: NDArray[np.int64]) -> _Drawn:
        return cls(scene.image, scene.object_map, tuple(scene.categories.tolist()), tuple(boxes.ravel().tolist()))

    def difference(self, other: _Drawn) -> str:
        """What differs from another drawing, such as ``3 pixels``; empty where nothing does."""
        found = []
        if pixels := int(np.any(self.image != other.image, axis=-1).sum()):
            found.append(f"{pixels} pixels")
        if self.object_map is not None and (pixels := int((self.object_map != other.object_map).sum())):
            found.append(f"{pixels} pixels of its object map")
        if self.categories != other.categories:
            found.append("its objects' categories")
        elif self.boxes != other.boxes:
            found.append("its objects' boxes")
        return " and ".join(found)
