"""Counter-based random numbers (Salmon et al., "Parallel Random Numbers", SC 2011), the same on every device.

Philox4x32-10 is for random numbers inside kernels, such as those of points. Philox4x64-10 is numpy's ``Philox``, of
which each instance of a category has a stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt32, UInt64
from llvmlite import ir
from numba import uint32, uint64
from numba.extending import intrinsic
from numpy.typing import ArrayLike

from formulavision.rendering.kernels import kernel

__all__ = ["kernel_key", "philox4x32", "philox4x64", "philox_blocks", "uniform_streams"]

Word = int | np.uint32
Word64 = int | np.uint64

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10


def kernel_key(seed: int, use: bytes) -> tuple[int, int]:
    """Key of the random numbers of Philox4x32 inside kernels.

    Args:
        seed: of the recipe, below 2^64.
        use: up to four bytes. Where two kernels have the same, they draw the same numbers at the same counters.
    """
    return seed & 0xFFFF_FFFF, (seed >> 32) ^ int.from_bytes(use, "little")


# Inlined by numba, since what LLVM inlines comes too late for its loop vectoriser.
@kernel(inline="always")
def _round(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """A round in 64-bit registers, where the halves of a product are a shift and a mask: faster than 32-bit words."""
    product0 = _M0 * c0
    product1 = _M1 * c2
    return (product1 >> _32) ^ c1 ^ k0, product1 & _LOW, (product0 >> _32) ^ c3 ^ k1, product0 & _LOW


@kernel
def philox4x32(
    counter0: Word, counter1: Word, counter2: Word, counter3: Word, key0: Word, key1: Word
) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """Four random words of Philox4x32-10, for a counter of four words and a key of two, each below 2^32."""
    c0, c1, c2, c3 = uint64(counter0), uint64(counter1), uint64(counter2), uint64(counter3)
    k0, k1 = uint64(key0), uint64(key1)
    for _ in range(_ROUNDS):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return uint32(c0), uint32(c1), uint32(c2), uint32(c3)


@kernel
def philox_blocks(
    first: Word,
    counter1: Word,
    counter2: Word,
    counter3: Word,
    key0: Word,
    key1: Word,
    words: UInt32[np.ndarray, "4 blocks"],
) -> None:
    """Fill column n of ``words`` with ``philox4x32(first + n, counter1, counter2, counter3, key0, key1)``.

    Vector registers fill this order 20 times as fast as one word of a block after the other.
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


# numpy's streams -----------------------------------------------------------------------------------------------------

_M0_64, _M1_64 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0_64, _W1_64 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_11 = np.uint64(11)
_TO_UNIT = 2.0**-53


def _multiply_high(typing: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of a product of two uint64.

    Written in LLVM's instructions, of which processors make a single multiplication; 32-bit halves take four.
    """

    def generate(context: Any, builder: Any, signature: Any, factors: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(factor, wide) for factor in factors))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return uint64(uint64, uint64), generate


_high_half: Any = intrinsic(_multiply_high)


@kernel
def philox4x64(
    counter0: Word64, counter1: Word64, counter2: Word64, counter3: Word64, key0: Word64, key1: Word64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Four random words of Philox4x64-10, for a counter of four words and a key of two, each below 2^64."""
    c0, c1, c2, c3 = uint64(counter0), uint64(counter1), uint64(counter2), uint64(counter3)
    k0, k1 = uint64(key0), uint64(key1)
    for _ in range(_ROUNDS):
        c0, c1, c2, c3 = _high_half(_M1_64, c2) ^ c1 ^ k0, _M1_64 * c2, _high_half(_M0_64, c0) ^ c3 ^ k1, _M0_64 * c0
        k0 = uint64(k0 + _W0_64)
        k1 = uint64(k1 + _W1_64)
    return c0, c1, c2, c3


@kernel
def _uniform_streams(
    key0: np.uint64,
    key1: np.uint64,
    counters: UInt64[np.ndarray, "streams 3"],
    starts: Int64[np.ndarray, " streams+1"],
    out: Float64[np.ndarray, " numbers"],
) -> None:
    for n in range(len(counters)):
        start, stop = starts[n], starts[n + 1]
        for block in range((stop - start + 3) // 4):
            # numpy adds to the counter before it uses it.
            words = philox4x64(block + 1, counters[n, 0], counters[n, 1], counters[n, 2], key0, key1)
            first = start + 4 * block
            for i in range(min(4, stop - first)):
                out[first + i] = (words[i] >> _11) * _TO_UNIT


def uniform_streams(
    key: tuple[int, int], counters: Int64[np.ndarray, "streams 3"], counts: ArrayLike
) -> Float64[np.ndarray, " numbers"]:
    """Uniform numbers from 0 to below 1 of many random streams in one call.

    Stream i gives ``generators.streams.random_stream(*key, *counters[i]).random(counts[i])``.

    Args:
        key: key of all streams.
        counters: the three integers of each stream.
        counts: number of numbers of each stream, int64 [streams], or one number for all.

    Returns:
        The numbers of all streams, one stream after the other.
    """
    starts = np.zeros(len(counters) + 1, np.int64)
    starts[1:] = counts
    starts.cumsum(out=starts)
    out = np.empty(starts[-1], np.float64)
    key0, key1 = (np.uint64(k & 0xFFFF_FFFF_FFFF_FFFF) for k in key)
    _uniform_streams(key0, key1, np.ascontiguousarray(counters, np.int64).view(np.uint64), starts, out)
    return out
