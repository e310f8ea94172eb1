"""Drawing on a device: straight into its memory where the generator can, else on the CPU and moved over."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision.drawing import Drawer
from formulavision.errors import ConfigError

__all__ = ["DeviceDrawer", "find_device"]


def find_device(name: str) -> torch.device:
    """The device to draw on, by torch's name for it.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device: '{name}' is not available on this machine: must be cpu")
    return torch.device(name)


class DeviceDrawer:
    """Draws instances of a recipe into tensors on a device.

    It holds there what the generator needs of the categories; beyond that, a call takes the memory of its images and
    the generator's scratch memory, and gives the latter back.

    Args:
        drawer: the recipe and its categories.
        device: where the images shall be.

    Attributes:
        native: whether the generator draws on the device itself.

    Raises:
        PluginError: the generator raised.
    """

    def __init__(self, drawer: Drawer, device: torch.device) -> None:
        self.drawer = drawer
        self.device = device
        with drawer.blamed(f"while preparing to draw on {device}"):
            self._renderer = drawer.generator.device_renderer(drawer.categories, device)
        self.native = self._renderer is not None

    def draw_instances(self, labels: NDArray[np.int64], instances: NDArray[np.int64]) -> torch.Tensor:
        """Images of any instances, also beyond the recipe's: uint8 [n, size, size, channels], on the device.

        What draws is put on torch's current stream; nothing waits for it.

        Args:
            labels, instances: int64 [n].

        Raises:
            PluginError: the generator raised.
        """
        if self._renderer is None:
            images = torch.from_numpy(self.drawer.draw_instances(labels, instances))
            return images.to(self.device)
        out = torch.empty((len(labels), *self.drawer.recipe.canvas.shape), dtype=torch.uint8, device=self.device)
        with self.drawer.blamed(f"while drawing on {self.device}"):
            self._renderer(labels, instances, out)
        return out
