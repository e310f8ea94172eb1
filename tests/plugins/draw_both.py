"""Images of a generator from the CPU and from a device, in any process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision import Drawer, Recipe
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
