"""A plugin whose images take time while the environment says so: a run of it is still at work when it is ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formulavision import Category, Generator, hookimpl


class Slow(Generator):
    """The first category is drawn at once. Before each image of the others it waits while SLOW is set."""

    name = "slow"

    def category(self, index: int) -> list[int]:
        return [index]

    def render(self, category: Category, instance: int) -> NDArray[np.uint8]:
        if category.index > 0 and "SLOW" in os.environ:
            time.sleep(0.2)
        return np.full(self.canvas.shape, 2 * category.index + instance, np.uint8)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Slow)


def installed(folder: Path) -> dict[str, str]:
    """Environment variables with which a new Python process finds the plugin, by an entry point in a folder."""
    information = folder / "slow_generator-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-generator\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[formulavision]\nslow = slow_generator\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)])}
