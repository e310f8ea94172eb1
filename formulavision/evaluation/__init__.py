"""Metrics of trained models, class by class; probes of frozen features; first-layer filters and Grad-CAM.

``__init__.pyi`` lists every public name with the module that defines it. A name is imported on first use: torch is slow
to import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
