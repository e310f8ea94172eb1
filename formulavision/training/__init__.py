"""Pre-training and fine-tuning, on Lightning and timm.

Everything is imported on first use: the command line builds its options from ``TrainSettings`` without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Checkpoint": "formulavision.training.checkpoints",
    "Run": "formulavision.training.runs",
    "TrainSettings": "formulavision.training.settings",
    "export_model": "formulavision.training.export",
    "deepcluster_labels": "formulavision.training.deepcluster",
    "finetune": "formulavision.training.train",
    "freeze": "formulavision.training.freezing",
    "load_checkpoint": "formulavision.training.checkpoints",
    "pretrain": "formulavision.training.train",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'formulavision.training' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from formulavision.training.checkpoints import Checkpoint as Checkpoint
    from formulavision.training.checkpoints import load_checkpoint as load_checkpoint
    from formulavision.training.deepcluster import deepcluster_labels as deepcluster_labels
    from formulavision.training.export import export_model as export_model
    from formulavision.training.freezing import freeze as freeze
    from formulavision.training.runs import Run as Run
    from formulavision.training.settings import TrainSettings as TrainSettings
    from formulavision.training.train import finetune as finetune
    from formulavision.training.train import pretrain as pretrain
