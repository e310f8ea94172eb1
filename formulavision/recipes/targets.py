"""Targets: what a model learns from a scene. The object map and the objects' categories determine all of them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int64, UInt8, UInt16

from formulavision.generators.contract import Scene
from formulavision.util.errors import ConfigError

__all__ = [
    "IGNORED",
    "IGNORED_16",
    "MAX_CATEGORIES",
    "MAX_CATEGORIES_8",
    "TARGETS",
    "Objects",
    "Target",
    "has_label",
    "labels_target",
    "objects_target",
    "scene_target",
    "semantic_target",
]

Target = Literal["class", "labels", "semantic", "objects"]
TARGETS: tuple[Target, ...] = ("class", "labels", "semantic", "objects")
"""class: one category an image; labels: the categories that are visible; semantic: a category at each pixel; objects:
the mask, box and category of each object."""

IGNORED, IGNORED_16 = 255, 65535
"""Value of pixels in semantic targets that are not counted: in 8 bits, and in 16 bits."""
MAX_CATEGORIES_8, MAX_CATEGORIES = 254, 65_534
"""Largest numbers of categories of which semantic targets have 8 bits, and 16 bits."""


class Objects(NamedTuple):
    """The visible objects of a scene.

    Attributes:
        boxes: int64 [n, 4]: left, top, right and bottom in pixels; right and bottom are the first that are outside.
        categories: int64 [n].
        numbers: int64 [n]: the value of each object in the object map.
    """

    boxes: Int64[np.ndarray, "n 4"]
    categories: Int64[np.ndarray, " n"]
    numbers: Int64[np.ndarray, " n"]


def has_label(scene: Scene, min_visible: int) -> Bool[np.ndarray, " objects"]:
    """Whether each object has a box, mask and label: at least ``min_visible`` pixels of it, and one, are visible."""
    from formulavision.rendering.compositing import visible_pixels  # imports numba

    return visible_pixels(scene.object_map.ravel(), len(scene.categories)) >= max(1, min_visible)


def labels_target(scene: Scene, num_categories: int, min_visible: int) -> Int8[np.ndarray, " categories"]:
    """1 for each category of which an object has a label, 0 for the others."""
    present = np.zeros(num_categories, np.int8)
    present[scene.categories[has_label(scene, min_visible)]] = 1
    return present


def semantic_target(
    scene: Scene, num_categories: int, min_visible: int
) -> UInt8[np.ndarray, "size size"] | UInt16[np.ndarray, "size size"]:
    """Category + 1 at each pixel of an object that has a label, 0 elsewhere.

    Returns:
        uint8, or uint16 where there are more than 254 categories.

    Raises:
        ConfigError: there are more categories than 16 bits hold.
    """
    if num_categories > MAX_CATEGORIES:
        raise ConfigError(f"target: semantic is not allowed with more than {MAX_CATEGORIES:,} categories")
    values = np.where(has_label(scene, min_visible), scene.categories + 1, 0)
    table = np.concatenate([[0], values]).astype(np.uint8 if num_categories <= MAX_CATEGORIES_8 else np.uint16)
    return table.take(scene.object_map)


def objects_target(scene: Scene, min_visible: int) -> Objects:
    """The objects that have a label, with the boxes of their visible pixels."""
    from formulavision.rendering.compositing import measure_objects  # imports numba

    boxes, pixels = measure_objects(scene.object_map, len(scene.categories))
    chosen = np.flatnonzero(pixels >= max(1, min_visible))
    return Objects(boxes[chosen], scene.categories[chosen], chosen + 1)


def scene_target(scene: Scene, target: Target, num_categories: int, min_visible: int) -> Any:
    """What a model learns from a scene: the label of its only object (class), or what the target's function gives."""
    if target == "class":
        return int(scene.categories[0])
    if target == "labels":
        return labels_target(scene, num_categories, min_visible)
    if target == "semantic":
        return semantic_target(scene, num_categories, min_visible)
    return objects_target(scene, min_visible)
