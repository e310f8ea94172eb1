"""Numpy's legacy random numbers: MT19937 (Matsumoto and Nishimura 1998), as ``numpy.random.RandomState`` draws them.

A stream is held as its next 624 words before tempering, whatever its position: they determine all words that follow.
So skipping words costs a fraction of drawing them, and a copy of the 624 words is a position to return to.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt32, UInt64
from numba import uint32, uint64

from formulavision.rendering.kernels import kernel

__all__ = [
    "WORDS",
    "fractions",
    "legacy_random",
    "next_words",
    "randint",
    "random_sample",
    "skip",
    "stream",
    "tempered",
    "uniform",
]

WORDS = 624
"""Number of words of the generator's state."""


def legacy_random(seed: int) -> np.random.RandomState:
    """``RandomState(seed)``, which itself would first ask the operating system for random numbers."""
    random = np.random.RandomState(np.random.MT19937(0))
    random.seed(seed)
    return random


def stream(seed: int) -> UInt32[np.ndarray, " 624"]:
    """The stream of ``RandomState(seed)``."""
    words = legacy_random(seed).get_state(legacy=False)["state"]["key"]
    next_words(words)
    return words


@kernel
def _word_after(word: np.uint32, following: np.uint32, partner: np.uint32) -> np.uint32:
    """The word 624 words behind ``word``."""
    mixed = (word & uint32(0x80000000)) | (following & uint32(0x7FFFFFFF))
    return partner ^ (mixed >> uint32(1)) ^ ((mixed & uint32(1)) * uint32(0x9908B0DF))


@kernel
def _replace(words: UInt32[np.ndarray, " 624"], start: int, count: int, partner: int) -> None:
    """Replace ``count`` words from ``start`` on by those 624 behind them.

    At most 227 in one call, since the words 227 before take part.
    """
    for i in range(count):
        words[start + i] = _word_after(words[start + i], words[start + i + 1], words[partner + i])


@kernel
def next_words(words: UInt32[np.ndarray, " 624"]) -> None:
    """Move a stream on by 624 words."""
    # Plain numbers: with expressions of constants, numba makes no vector instructions.
    _replace(words, 0, 227, 397)
    _replace(words, 227, 227, 0)
    _replace(words, 454, 169, 227)
    words[623] = _word_after(words[623], words[0], words[396])


@kernel
def skip(words: UInt32[np.ndarray, " 624"], count: int) -> None:
    """Move a stream on by ``count`` words."""
    for _ in range(count // WORDS):
        next_words(words)
    rest = count % WORDS
    while rest > 0:
        part = min(rest, 227)
        _replace(words, 0, part, 397)
        words[:] = np.roll(words, -part)
        rest -= part


@kernel
def tempered(word: np.uint32) -> np.uint32:
    """The random word that numpy returns for a word of the stream."""
    word ^= word >> uint32(11)
    word ^= (word << uint32(7)) & uint32(0x9D2C5680)
    word ^= (word << uint32(15)) & uint32(0xEFC60000)
    return word ^ (word >> uint32(18))


@kernel
def fractions(words: UInt32[np.ndarray, " 624"], draws: UInt64[np.ndarray, " 312"]) -> None:
    """Fill ``draws`` with the stream's next values of ``random_sample``, times 2^53; the stream stays where it is."""
    for i in range(uint64(WORDS // 2)):
        high = tempered(words[uint64(2) * i]) >> uint32(5)
        low = tempered(words[uint64(2) * i + uint64(1)]) >> uint32(6)
        draws[i] = (uint64(high) << uint64(26)) | uint64(low)


@kernel
def random_sample(words: UInt32[np.ndarray, " 624"], out: Float64[np.ndarray, " numbers"]) -> None:
    """Fill ``out`` with the stream's next values of ``random_sample``; the stream is moved on behind them."""
    draws = np.empty(WORDS // 2, np.uint64)
    for start in range(0, len(out), len(draws)):
        some = out[start : start + len(draws)]
        fractions(words, draws)
        for i in range(len(some)):
            some[i] = draws[i] * 2.0**-53
        skip(words, 2 * len(some))


@kernel
def uniform(draw: np.uint64, low: float, high: float) -> float:
    """The value of ``uniform(low, high)`` for a value of ``fractions``."""
    return low + (high - low) * (draw * 2.0**-53)


@kernel
def randint(words: UInt32[np.ndarray, " 624"], largest: int) -> int:
    """The value of ``randint(0, largest + 1)``, largest < 2^32; moves the stream on behind it.

    It is the low bits of the first word for which they are not above ``largest``.
    """
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
