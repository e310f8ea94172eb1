"""The generator ``ifs``: fractals of iterated function systems (IFS), as in FractalDB.

Source: Kataoka et al., "Pre-training without Natural Images", ACCV 2020, section 3.

====================== ============================================================================
``generator.py``       the class :class:`Ifs`: its categories and its instances
``parameters.py``      the parameters of a recipe
``weights.py``         the weights that vary the instances of a category
``systems.py``         what is computed from a system: probabilities, thresholds, the added identity
``search_published.py``   the search for the categories of the published FractalDB
``search_independent.py`` the search that finds each category from a random stream of its own
``search_one_base.py``  perturbations of one base system, as in 1p-frac
``singular_values.py``  random systems by their singular values
``patches_published.py``  the random patches of 2D-OFDB and 1p-frac
``orbits.py``          the points of a system on the CPU; ``orbits_triton.py`` is its twin on a GPU
``drawing.py``         from a system to an image on the CPU; ``drawing_on_device.py`` on a GPU
====================== ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from formulavision import Generator, hookimpl

from .generator import Ifs
from .parameters import IfsParams
from .weights import weight_table

__all__ = ["Ifs", "IfsParams", "weight_table"]


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Ifs)
