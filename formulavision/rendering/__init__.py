"""Drawing kernels that generators share, and ``kernel``, the decorator of every CPU kernel.

``__init__.pyi`` lists the public modules. They are imported on first use, so numba is imported only when something is
drawn. ``compositing``, ``points``, ``polylines``, ``noise_fields`` and ``random`` have twins for GPUs beside them
(``points_triton`` and so on), which import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
