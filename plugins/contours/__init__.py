"""The generators ``rcdb`` and ``segrcdb``: radial contours, single ones and scenes of many with masks.

Sources: Kataoka et al., "Replacing Labeled Real-Image Datasets With Auto-Generated Contours", CVPR 2022; Shinoda et
al., "SegRCDB: Semantic Segmentation via Formula-Driven Supervised Learning", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Callable

from formulavision import Generator, hookimpl

from .parameters import RcdbParams
from .rcdb import Rcdb

__all__ = ["Rcdb", "RcdbParams"]


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Rcdb)
