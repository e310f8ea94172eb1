"""Pre-training and fine-tuning, on Lightning and timm.

``__init__.pyi`` lists the public names. A name is imported on first use: the command line builds its options from
``TrainSettings`` without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
