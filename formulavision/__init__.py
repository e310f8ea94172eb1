"""FormulaVision: formula-driven supervised learning, from a formula to a comparison table.

``__init__.pyi`` lists every public name with the module that defines it. A name is imported on first use, so ``import
formulavision`` imports neither torch nor numba.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
