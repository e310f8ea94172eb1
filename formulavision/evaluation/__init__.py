"""How good a fine-tuned model is, class by class. Imported on first use: torch is slow to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Evaluation", "evaluate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        value = getattr(importlib.import_module("formulavision.evaluation.classification"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'formulavision.evaluation' has no attribute '{name}'")


if TYPE_CHECKING:
    from formulavision.evaluation.classification import Evaluation as Evaluation
    from formulavision.evaluation.classification import evaluate as evaluate
