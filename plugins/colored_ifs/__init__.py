"""The generators ``colored-ifs`` and ``diamond-square``: coloured fractals, coloured backgrounds, scenes of both.

Source: Anderson and Farrell, "Improving Fractal Pre-training", WACV 2022.

================== ====================================================================================================
``generator.py``   the class :class:`ColoredIfs`; ``background.py`` the class :class:`DiamondSquare`
``parameters.py``  the parameters of a recipe
``systems.py``     systems of affine maps from random singular values, and their jitter
``choices.py``     what varies among images and scenes
``independent.py`` images and scenes from counter-based random numbers
``published.py``   those of the published program
``orbits.py``      from a system to the points of its orbit
``drawing.py``     from points to images; ``pixels.py`` its kernels
================== ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from formulavision import Generator, hookimpl

from .diamond_square import DiamondSquare
from .generator import ColoredIfs
from .parameters import ColoredIfsParams, DiamondSquareParams

__all__ = ["ColoredIfs", "ColoredIfsParams", "DiamondSquare", "DiamondSquareParams"]


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(ColoredIfs)
    register(DiamondSquare)
