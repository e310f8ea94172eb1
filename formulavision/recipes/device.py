"""Devices that can draw, by torch's names: cpu, cuda, cuda:N. torch is imported when a device is looked up."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from formulavision.util.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["check_device", "current_device", "device_name", "find_device"]


def check_device(name: str) -> None:
    """Refuse a device that is not there, before any work is done. The CPU is always there, and torch is not imported.

    Raises:
        ConfigError: there is no device of the name, or not on this machine.
    """
    if name != "cpu":
        find_device(name)


def find_device(name: str) -> torch.device:
    """The device with torch's name for it: cpu, cuda, or cuda:N.

    Raises:
        ConfigError: there is no device of the name, or not on this machine.
    """
    import torch

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
    """``cpu``, or the product name of a GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU torch's current device within a block: kernels are launched on the current device."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
