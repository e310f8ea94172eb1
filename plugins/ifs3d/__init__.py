"""The generator ``ifs3d``: clouds of points of 3D iterated function systems, seen by a camera.

Sources: Yamada et al., "MV-FractalDB: Formula-Driven Supervised Learning for Multi-View Image Recognition", IROS 2021;
Kataoka et al., "Replacing Labeled Real-Image Datasets With Auto-Generated Contours", CVPR 2022 (ExFractalDB); Nakamura
et al., "Pre-training Vision Transformers with Very Limited Synthesized Images", ICCV 2023 (3D-OFDB).

================= =====================================================================================================
``generator.py``  the class :class:`Ifs3d`: its categories and its instances
``parameters.py`` the parameters of a recipe
``search.py``     the search for categories, of the published program and our own
``clouds.py``     from a system to a cloud of points, and the table of weights
``published.py``  the random streams of the published programs for clouds and views
================= =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from formulavision import Generator, hookimpl

from .generator import Ifs3d
from .parameters import Ifs3dParams

__all__ = ["Ifs3d", "Ifs3dParams"]


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Ifs3d)
