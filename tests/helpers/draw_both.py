"""Images of a generator from the CPU and from a device, in any process; and fractals with given masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision import Category, Drawer, Recipe
from formulavision.recipes.drawing import DeviceDrawer


def draw_both(
    device: torch.device,
    name: str,
    changes: list[str],
    labels: Sequence[int],
    instances: Sequence[int],
    **recipe: Any,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """uint8 [n, size, size, channels] from each, of a small canvas."""
    data = {"generator": {"name": name}, "canvas": {"size": 40, "padding": 3}, "instances": 20, **recipe}
    drawer = Drawer(Recipe.from_dict(data, changes))
    on_device = DeviceDrawer(drawer, device)
    assert on_device.native
    places = np.array(labels), np.array(instances)
    with np.errstate(all="ignore"):  # the interpreter computes with numpy, which warns of orbits that overflow
        return drawer.draw_instances(*places), on_device.draw_instances(*places).cpu().numpy()


def draw_scenes_both(device: torch.device, recipe: dict[str, Any], numbers: Sequence[int]) -> None:
    """Draw scenes on the CPU and on a device, and compare images, object maps and categories, bit for bit."""
    drawer = Drawer(Recipe.from_dict(recipe))
    on_device = DeviceDrawer(drawer, device)
    assert on_device.native
    expected = drawer.draw_scenes(np.array(numbers))
    images, object_maps, categories = on_device.draw_scenes(np.array(numbers))
    assert expected.object_maps.any()
    assert np.array_equal(images.cpu().numpy(), expected.images)
    assert np.array_equal(object_maps.cpu().numpy(), expected.object_maps)
    assert all(np.array_equal(*labels) for labels in zip(categories, expected.categories, strict=True))


def draw_with_masks(drawer: Drawer, category: Category, weight: int, masks: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """A fractal with given masks of its patches, one a point: uint8 [size, size, channels], without a flip."""
    generator: Any = drawer.generator
    drawing = generator.drawing
    image = np.empty(drawer.recipe.canvas.shape, np.uint8)
    owners = drawing.owners(category, generator.table[weight : weight + 1], weight)
    drawing.turn(drawing.shade(owners, np.concatenate([np.zeros(1, np.uint16), masks])), 0, image)
    return image
