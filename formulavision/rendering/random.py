"""Counter-based random numbers inside kernels: Philox4x32-10 (Salmon et al., SC 2011), the same on every device."""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

__all__ = ["philox4x32"]

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint32(0x9E3779B9)
_W1 = np.uint32(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@njit(cache=True, nogil=True)
def philox4x32(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Four random uint32 for a counter of four uint32 and a key of two."""
    for _ in range(10):
        product0 = _M0 * uint64(c0)
        product1 = _M1 * uint64(c2)
        high0 = uint32(product0 >> _32)
        high1 = uint32(product1 >> _32)
        c0 = uint32(high1 ^ c1 ^ k0)
        c1 = uint32(product1 & _LOW)
        c2 = uint32(high0 ^ c3 ^ k1)
        c3 = uint32(product0 & _LOW)
        k0 = uint32(k0 + _W0)
        k1 = uint32(k1 + _W1)
    return c0, c1, c2, c3
