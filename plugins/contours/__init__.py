"""The generators ``rcdb``, ``segrcdb`` and ``visual-atoms``: contours with noise, single ones and scenes of many.

Sources: Kataoka et al., "Replacing Labeled Real-Image Datasets With Auto-Generated Contours", CVPR 2022; Shinoda et
al., "SegRCDB: Semantic Segmentation via Formula-Driven Supervised Learning", ICCV 2023; Takashima et al., "Visual
Atoms: Pre-training Vision Transformers with Sinusoidal Waves", CVPR 2023.

=======
==================== ==============================================================================================
``rcdb.py``          the class :class:`Rcdb`, and ``segrcdb.py`` the class :class:`SegRcdb`; ``generator.py``: what
                     they have in common, ``parameters.py``: the parameters of a recipe
``independent.py``   categories and instances with counter-based random numbers
``published.py``     categories and instances of the published programs, along their random streams
``shapes.py``        polygons of a contour, and their pixels; ``shapes_triton.py`` is its twin on a GPU
``drawing.py``       contours of a batch and of a scene on the CPU; ``drawing_on_device.py`` on a GPU
``visual_atoms.py``  the class :class:`VisualAtoms`; ``published_waves.py``: its published random streams;
                     ``waves.py``: the sine waves of its polygons
==================== ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from formulavision import Generator, hookimpl

from .parameters import RcdbParams, SegRcdbParams, VisualAtomsParams
from .rcdb import Rcdb
from .segrcdb import SegRcdb
from .visual_atoms import VisualAtoms

__all__ = ["Rcdb", "RcdbParams", "SegRcdb", "SegRcdbParams", "VisualAtoms", "VisualAtomsParams"]


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Rcdb)
    register(SegRcdb)
    register(VisualAtoms)
