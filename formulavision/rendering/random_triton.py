"""Counter-based random numbers on a GPU: the twin of ``philox4x32`` in ``random``."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["philox4x32"]


@triton.jit
def philox4x32(counter0, counter1, counter2, counter3, key0, key1):
    """Four words of Philox4x32-10 for each element of ``counter0``; the other arguments are single numbers.

    All are taken modulo 2^32.
    """
    zero = counter0.to(tl.uint32) * 0
    c0, c1, c2, c3 = tl.philox_impl(
        zero + counter0.to(tl.uint32),
        zero + counter1.to(tl.uint32),
        zero + counter2.to(tl.uint32),
        zero + counter3.to(tl.uint32),
        key0.to(tl.uint32),
        key1.to(tl.uint32),
    )
    return c0, c1, c2, c3
