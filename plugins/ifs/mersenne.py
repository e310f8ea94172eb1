"""Numpy's legacy generator, MT19937 (Matsumoto and Nishimura 1998), as ``numpy.random.RandomState`` draws from it.

A stream is its next 624 words before tempering, uint32 [624], wherever it stands: they determine all that follow. So
words are skipped at a fraction of what drawing them costs, and a copy is a place to come back to.
"""

from __future__ import annotations

import numpy as np
from numba import uint32, uint64
from numpy.typing import NDArray

from formulavision.rendering import kernel

WORDS = 624


def stream(seed: int) -> NDArray[np.uint32]:
    """The stream of ``RandomState(seed)``."""
    words = np.random.RandomState(seed).get_state(legacy=False)["state"]["key"]
    next_words(words)
    return words


@kernel
def _made(word, following, partner):  # type: ignore[no-untyped-def]
    """The word 624 after ``word``."""
    mixed = (word & uint32(0x80000000)) | (following & uint32(0x7FFFFFFF))
    return partner ^ (mixed >> uint32(1)) ^ ((mixed & uint32(1)) * uint32(0x9908B0DF))


@kernel
def _make(words, start, count, partner):  # type: ignore[no-untyped-def]
    """Replace words from ``start`` on by those 624 after them: 227 at most, since the words 227 before take part."""
    for i in range(count):
        words[start + i] = _made(words[start + i], words[start + i + 1], words[partner + i])


@kernel
def next_words(words):  # type: ignore[no-untyped-def]
    """Move a stream on by 624 words."""
    # In numbers, since with constants that numba has to work out no vector instructions come of it.
    _make(words, 0, 227, 397)
    _make(words, 227, 227, 0)
    _make(words, 454, 169, 227)
    words[623] = _made(words[623], words[0], words[396])


@kernel
def skip(words, count):  # type: ignore[no-untyped-def]
    """Move a stream on by ``count`` words."""
    for _ in range(count // WORDS):
        next_words(words)
    rest = count % WORDS
    while rest > 0:
        part = min(rest, 227)
        _make(words, 0, part, 397)
        words[:] = np.roll(words, -part)
        rest -= part


@kernel
def tempered(word):  # type: ignore[no-untyped-def]
    word ^= word >> uint32(11)
    word ^= (word << uint32(7)) & uint32(0x9D2C5680)
    word ^= (word << uint32(15)) & uint32(0xEFC60000)
    return word ^ (word >> uint32(18))


@kernel
def fractions(words, draws):  # type: ignore[no-untyped-def]
    """Fill ``draws``, uint64 [312], with the stream's next values of ``random_sample``, times 2^53."""
    for i in range(uint64(WORDS // 2)):
        high = tempered(words[uint64(2) * i]) >> uint32(5)
        low = tempered(words[uint64(2) * i + uint64(1)]) >> uint32(6)
        draws[i] = (uint64(high) << uint64(26)) | uint64(low)


@kernel
def uniform(draw, low, high):  # type: ignore[no-untyped-def]
    """The value of ``uniform(low, high)`` for a value of ``fractions``."""
    return low + (high - low) * (draw * 2.0**-53)


@kernel
def randint(words, largest):  # type: ignore[no-untyped-def]
    """``randint(0, largest + 1)``, largest < 2^32, and move the stream on: the low bits of the first word that fits."""
    if largest == 0:
        return 0
    mask = 1
    while mask < largest:
        mask = 2 * mask + 1
    while True:
        value = int(tempered(words[0])) & mask
        skip(words, 1)
        if value <= largest:
            return value
