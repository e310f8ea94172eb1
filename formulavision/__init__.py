"""FormulaVision: formula-driven supervised learning, from a formula to a comparison table.

Everything public is here; it is imported on first use, so that ``import formulavision`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from formulavision.util.version import __version__

_PUBLIC = {
    "Canvas": "formulavision.generators.contract",
    "Category": "formulavision.generators.contract",
    "Generator": "formulavision.generators.contract",
    "Params": "formulavision.generators.contract",
    "hookimpl": "formulavision.generators.hookspecs",
    "register": "formulavision.generators.registry",
    "plugins": "formulavision.generators.registry",
    "Recipe": "formulavision.recipes.recipe",
    "find_categories": "formulavision.recipes.categories",
    "Drawer": "formulavision.recipes.drawing",
    "generate": "formulavision.storage.generation",
    "Store": "formulavision.storage",
    "verify": "formulavision.storage",
    "contact_sheet": "formulavision.recipes.sheets",
    "preview": "formulavision.recipes.sheets",
    "FormulaDataset": "formulavision.data.datasets",
    "StoredDataset": "formulavision.data.datasets",
    "label_noise": "formulavision.data.labels",
    "pretrain": "formulavision.training",
    "finetune": "formulavision.training",
    "freeze": "formulavision.training",
    "load_checkpoint": "formulavision.training",
    "export_model": "formulavision.training",
    "deepcluster_labels": "formulavision.training",
    "evaluate": "formulavision.evaluation",
    "probe": "formulavision.evaluation",
    "first_layer_filters": "formulavision.evaluation",
    "grad_cam": "formulavision.evaluation",
    "grad_cam_sheet": "formulavision.evaluation",
    "per_class_difference": "formulavision.evaluation",
    "compare": "formulavision.comparison",
    "sweep": "formulavision.comparison",
    "report": "formulavision.comparison.joining",
    "ConfigError": "formulavision.util.errors",
    "FormulaVisionError": "formulavision.util.errors",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'formulavision' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from formulavision.comparison import compare as compare
    from formulavision.comparison import sweep as sweep
    from formulavision.comparison.joining import report as report
    from formulavision.data.datasets import FormulaDataset as FormulaDataset
    from formulavision.data.datasets import StoredDataset as StoredDataset
    from formulavision.data.labels import label_noise as label_noise
    from formulavision.evaluation import evaluate as evaluate
    from formulavision.evaluation import first_layer_filters as first_layer_filters
    from formulavision.evaluation import grad_cam as grad_cam
    from formulavision.evaluation import grad_cam_sheet as grad_cam_sheet
    from formulavision.evaluation import per_class_difference as per_class_difference
    from formulavision.evaluation import probe as probe
    from formulavision.generators.contract import Canvas as Canvas
    from formulavision.generators.contract import Category as Category
    from formulavision.generators.contract import Generator as Generator
    from formulavision.generators.contract import Params as Params
    from formulavision.generators.hookspecs import hookimpl as hookimpl
    from formulavision.generators.registry import plugins as plugins
    from formulavision.generators.registry import register as register
    from formulavision.recipes.categories import find_categories as find_categories
    from formulavision.recipes.drawing import Drawer as Drawer
    from formulavision.recipes.recipe import Recipe as Recipe
    from formulavision.recipes.sheets import contact_sheet as contact_sheet
    from formulavision.recipes.sheets import preview as preview
    from formulavision.storage import Store as Store
    from formulavision.storage import verify as verify
    from formulavision.storage.generation import generate as generate
    from formulavision.training import deepcluster_labels as deepcluster_labels
    from formulavision.training import export_model as export_model
    from formulavision.training import finetune as finetune
    from formulavision.training import freeze as freeze
    from formulavision.training import load_checkpoint as load_checkpoint
    from formulavision.training import pretrain as pretrain
    from formulavision.util.errors import ConfigError as ConfigError
    from formulavision.util.errors import FormulaVisionError as FormulaVisionError
