"""How good models are, class by class, and what they look at. Imported on first use: torch is slow to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "ClassDifference": "formulavision.evaluation.differences",
    "Evaluation": "formulavision.evaluation.scores",
    "Probe": "formulavision.evaluation.probes",
    "evaluate": "formulavision.evaluation.classification",
    "first_layer_filters": "formulavision.evaluation.filters",
    "grad_cam": "formulavision.evaluation.heatmaps",
    "grad_cam_sheet": "formulavision.evaluation.heatmaps",
    "per_class_difference": "formulavision.evaluation.differences",
    "probe": "formulavision.evaluation.probes",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'formulavision.evaluation' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from formulavision.evaluation.classification import evaluate as evaluate
    from formulavision.evaluation.differences import ClassDifference as ClassDifference
    from formulavision.evaluation.differences import per_class_difference as per_class_difference
    from formulavision.evaluation.filters import first_layer_filters as first_layer_filters
    from formulavision.evaluation.heatmaps import grad_cam as grad_cam
    from formulavision.evaluation.heatmaps import grad_cam_sheet as grad_cam_sheet
    from formulavision.evaluation.probes import Probe as Probe
    from formulavision.evaluation.probes import probe as probe
    from formulavision.evaluation.scores import Evaluation as Evaluation
