"""Drawing on a device: straight into its memory where the generator can, else on the CPU and moved over."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision.generators.contract import DeviceRenderer
from formulavision.generators.failures import blamed
from formulavision.recipes.drawing import Drawer
from formulavision.util.errors import ConfigError, PluginError

__all__ = ["DeviceDrawer", "device_name", "find_device"]


def find_device(name: str) -> torch.device:
    """The device to draw on, by torch's name for it: cpu, cuda, or cuda:N.

    Raises:
        ConfigError: there is no device of the name, or not on this machine.
    """
    match = re.fullmatch(r"cpu|cuda(?::(0|[1-9]\d*))?", name)
    if match is None:
        raise ConfigError(f"device: '{name}' is not allowed: must be cpu or cuda (cuda:1 is a machine's second GPU)")
    if name != "cpu":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not there:
            raise ConfigError(f"device: '{name}' is not available on this machine: must be cpu")
        if int(match[1] or 0) >= there:
            raise ConfigError(f"device: '{name}' is not available on this machine: its last is cuda:{there - 1}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What people call a device: cpu, or a GPU by its maker's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one in a block."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


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
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())  # which may be another one later
        self.device = device
        # Kernels that a generator launches go to the current device, which need not be this one.
        with blamed(drawer.generator.name, f"while preparing to draw on {device}"), _current(device):
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
        if not len(labels):
            return out
        try:
            with blamed(self.drawer.generator.name, f"while drawing on {self.device}"), _current(self.device):
                self._renderer(labels, instances, out)
        except PluginError as error:
            # After an error of the device itself, every image fails.
            if not isinstance(error.__cause__, torch.AcceleratorError):
                self._draw_one_by_one(self._renderer, labels, instances, out)
            raise
        return out

    def _draw_one_by_one(
        self,
        renderer: DeviceRenderer,
        labels: NDArray[np.int64],
        instances: NDArray[np.int64],
        out: torch.Tensor,
    ) -> None:
        """Raises what is raised for one of the images alone, to say which."""
        for i, (label, instance) in enumerate(zip(labels, instances, strict=True)):
            image = f"category {self.drawer.categories[label].name}, instance {instance}"
            with blamed(self.drawer.generator.name, f"while drawing {image} on {self.device}"), _current(self.device):
                renderer(labels[i : i + 1], instances[i : i + 1], out[i : i + 1])

    def wait(self) -> None:
        """Return when the device has drawn what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
