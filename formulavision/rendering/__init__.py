"""Drawing kernels that generators share, and ``kernel``, the decorator of every CPU kernel.

The modules are imported on first use, so numba is imported only when something is drawn. ``points``, ``polylines``,
``noise_fields`` and ``random`` have twins for GPUs beside them (``points_triton`` and so on), which import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["color", "kernel", "noise_fields", "points", "polylines", "random"]


def __getattr__(name: str) -> Any:
    if name == "kernel":
        return importlib.import_module(f"{__name__}.kernels").kernel
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


if TYPE_CHECKING:
    from formulavision.rendering import color as color
    from formulavision.rendering import noise_fields as noise_fields
    from formulavision.rendering import points as points
    from formulavision.rendering import polylines as polylines
    from formulavision.rendering import random as random
    from formulavision.rendering.kernels import kernel as kernel
