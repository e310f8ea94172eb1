"""What the generators ``rcdb`` and ``segrcdb`` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from formulavision import Category, Generator
from formulavision.rendering.memory import scratch

from .independent import check_contour
from .parameters import ContourParams

if TYPE_CHECKING:
    from .drawing import Contour

__all__ = ["ContourGenerator"]


class ContourGenerator(Generator):
    """A generator of contours, which says itself where they are."""

    draws_masks = True

    params: ContourParams

    @property
    def is_published(self) -> bool:
        return self.params.random == "published"

    def default_categories(self) -> int:
        return self.params.drawn("published_categories")

    def max_categories(self) -> int | None:
        return self.default_categories() if self.is_published else None

    def categories_are_independent(self) -> bool:
        return not self.is_published

    def check_category(self, parameters: Float64[np.ndarray, "rows columns"]) -> None:
        check_contour(parameters)

    def check_categories(self, categories: Sequence[Category]) -> None:
        most = self.max_categories()
        if most is None:
            return
        own = [np.asarray(parameters) for parameters in self.categories(min(len(categories), most))]
        for category in categories:
            if category.index >= most or not np.array_equal(category.parameters[0], own[category.index]):
                raise ValueError(
                    f"{category.name} is not category {category.index} of the published set, whose images depend on "
                    "the order of its categories: use random: independent for other categories"
                )

    def render(
        self, category: Category, instance: int
    ) -> tuple[UInt8[np.ndarray, "size size channels"], UInt8[np.ndarray, "size size"]]:
        out, masks = np.zeros((1, *self.canvas.shape), np.uint8), np.zeros((1, *self.canvas.shape[:2]), np.uint8)
        self.render_batch(category, np.array([instance]), out, masks)
        return out[0], masks[0]

    def render_batch(
        self,
        category: Category,
        instances: Int64[np.ndarray, " n"],
        out: UInt8[np.ndarray, "n size size channels"],
        masks: UInt8[np.ndarray, "n size size"] | None = None,
    ) -> None:
        odd, plane = (scratch(name, self.canvas.shape[:2], np.uint8) for name in ("odd", "plane"))
        for i, polygons, grays in self.contours(category, instances):
            image = out[i, :, :, 0] if self.canvas.channels == 1 else plane
            image[:] = self.background
            self.draw(image, polygons, grays, odd)
            if self.canvas.channels == 3:
                out[i] = image[:, :, None]
            if masks is not None:
                self.mark(masks[i], polygons, odd)

    def contours(self, category: Category, instances: Int64[np.ndarray, " n"]) -> Iterator[Contour]:
        """Polygons and gray levels of instances, in any order."""
        raise NotImplementedError

    def draw(
        self,
        image: UInt8[np.ndarray, "size size"],
        polygons: Int32[np.ndarray, "lines 2 vertices"],
        grays: UInt8[np.ndarray, " lines"],
        odd: UInt8[np.ndarray, "size size"],
    ) -> None:
        """Draw a contour over an image; ``odd`` is scratch memory, as in ``shapes.fill_area``."""
        raise NotImplementedError

    def mark(
        self,
        mask: UInt8[np.ndarray, "size size"],
        polygons: Int32[np.ndarray, "lines 2 vertices"],
        odd: UInt8[np.ndarray, "size size"],
    ) -> None:
        """Set the pixels of a contour in a mask to 1."""
        raise NotImplementedError
