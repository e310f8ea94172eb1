"""The objects of a scene as a store holds them: the object map as PNG, with the objects' categories and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt16

from formulavision.generators.contract import Scene
from formulavision.rendering.kernels import kernel
from formulavision.storage.png import encode_object_map

__all__ = ["EncodedObjects", "measure_objects"]


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


@kernel
def measure_objects(
    object_map: UInt16[np.ndarray, "h w"], objects: int
) -> tuple[Int64[np.ndarray, "objects 4"], Int64[np.ndarray, " objects"]]:
    """The box of each object, as in :class:`EncodedObjects`, and the number of its visible pixels.

    It is several times as fast as ``objects_target``, which would take as long as a part of the drawing.

    Args:
        object_map: values up to ``objects``.

    Returns:
        The boxes, which mean nothing where no pixel is visible; and the numbers of pixels.
    """
    height, width = object_map.shape
    boxes = np.zeros((objects, 4), np.int64)
    boxes[:, 0] = width
    boxes[:, 1] = height
    pixels = np.zeros(objects, np.int64)
    for row in range(height):
        column = 0
        while column < width:
            start, value = column, object_map[row, column]
            while column < width and object_map[row, column] == value:
                column += 1
            if value > 0:
                k = value - 1
                pixels[k] += column - start
                boxes[k, 0] = min(boxes[k, 0], start)
                boxes[k, 1] = min(boxes[k, 1], row)
                boxes[k, 2] = max(boxes[k, 2], column)
                boxes[k, 3] = row + 1
    return boxes, pixels
