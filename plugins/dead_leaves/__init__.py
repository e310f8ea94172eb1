"""The generator ``dead-leaves``: shapes of many sizes that cover each other.

Source: Baradad, Wulff, Wang, Isola and Torralba, "Learning to See by Looking at Noise", NeurIPS 2021.

================= =====================================================================================================
``generator.py``  the class :class:`DeadLeaves`: its categories and its instances
``parameters.py`` the parameters of a recipe
``leaves.py``     drawing with counter-based random numbers
``published.py``  drawing with the random numbers of the published program
``opencv.py``     filled polygons and circles with OpenCV's pixels
================= =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from formulavision import Generator, hookimpl

from .generator import DeadLeaves
from .parameters import DeadLeavesParams

__all__ = ["DeadLeaves", "DeadLeavesParams"]


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(DeadLeaves)
