"""The objects of a scene as a store holds them: the object map as PNG, with the objects' categories and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from formulavision.generators.contract import Scene
from formulavision.storage.png import encode_object_map

__all__ = ["EncodedObjects"]


@dataclass(frozen=True)
class EncodedObjects:
    """The objects of a scene, as a store holds them.

    Attributes:
        png: the encoded object map.
        categories: the label of object k, at k - 1.
        boxes: left, top, right and bottom of the visible pixels of object k, in pixels, at k - 1. Right and bottom are
            the first that are outside. Four zeros for an object that has no box: with fewer visible pixels than the
            recipe's ``min_visible``.
    """

    png: bytes
    categories: Int64[np.ndarray, " objects"]
    boxes: Int64[np.ndarray, "objects 4"]

    @classmethod
    def of(cls, scene: Scene, min_visible: int) -> EncodedObjects:
        """Encode the objects of a scene."""
        objects = len(scene.categories)
        from formulavision.rendering.compositing import measure_objects  # imports numba

        boxes, pixels = measure_objects(scene.object_map, objects)
        boxes[pixels < max(1, min_visible)] = 0
        return cls(encode_object_map(scene.object_map, objects), scene.categories, boxes)

    def facts(self) -> dict[str, Any]:
        """Categories and boxes as plain values, by the names that they have in every format."""
        return {"object_categories": self.categories.tolist(), "boxes": self.boxes.tolist()}

    @classmethod
    def from_facts(cls, png: bytes, facts: Any) -> EncodedObjects:
        """The way back from :meth:`facts`.

        Raises:
            ValueError, LookupError, TypeError: the values are no such facts.
        """
        categories = np.array(facts["object_categories"], np.int64)
        boxes = np.array(facts["boxes"], np.int64).reshape(len(categories), 4)
        return cls(png, categories, boxes)
