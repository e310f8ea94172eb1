"""Memory that drawing uses again and again: new pages cost more than many a drawing."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["scratch"]

_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: type[np.generic] | np.dtype[Any]) -> NDArray[Any]:
    """Memory of this thread, zeros at first; the next call with the name gives the same memory."""
    length = math.prod(shape)
    buffer = getattr(_buffers, name, None)
    if buffer is None or len(buffer) < length or buffer.dtype != dtype:
        buffer = np.zeros(length, dtype)
        setattr(_buffers, name, buffer)
    return buffer[:length].reshape(shape)
