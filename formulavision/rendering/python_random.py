"""Random numbers of CPython's module ``random``, the same from Python 3.7 to 3.13, inside kernels.

A state is what ``random.getstate()[1]`` holds: the 624 words of MT19937 and the position of the next one. Published
programs draw their images from one such stream, image after image.
"""

from __future__ import annotations

import math
import random

import numpy as np
from jaxtyping import Float64, UInt32
from numba import uint32, uint64

from formulavision.rendering.kernels import kernel
from formulavision.rendering.mersenne import WORDS, next_words, tempered

__all__ = ["below", "expovariate", "fraction", "fractions", "randint", "seeded", "skip", "uniform"]


def seeded(seed: int) -> UInt32[np.ndarray, " 625"]:
    """The state after ``random.seed(seed)``."""
    return np.array(random.Random(seed).getstate()[1], np.uint32)


@kernel
def _word(state: UInt32[np.ndarray, " 625"]) -> np.uint32:
    position = state[WORDS]
    if position == uint32(WORDS):
        next_words(state[:WORDS])
        position = uint32(0)
    state[WORDS] = position + uint32(1)
    return tempered(state[position])


@kernel
def skip(state: UInt32[np.ndarray, " 625"], words: int) -> None:
    """Move on by ``words`` random words: ``random`` and ``uniform`` take two each."""
    position = state[WORDS] + words
    while position > WORDS:
        next_words(state[:WORDS])
        position -= WORDS
    state[WORDS] = position


@kernel
def fraction(state: UInt32[np.ndarray, " 625"]) -> float:
    """``random()``: from 0 to below 1."""
    high = _word(state) >> uint32(5)
    low = _word(state) >> uint32(6)
    return (high * 67108864.0 + low) * 2.0**-53


@kernel
def fractions(
    state: UInt32[np.ndarray, " 625"], words: UInt32[np.ndarray, " words"], out: Float64[np.ndarray, " n"]
) -> None:
    """Fill ``out`` with the next values of ``random()``: several times as fast as one by one.

    Args:
        state: is moved on.
        words: scratch memory, twice as long as ``out``.
        out: is filled.
    """
    filled = 0
    while filled < words.size:
        if state[WORDS] == WORDS:
            next_words(state[:WORDS])
            state[WORDS] = 0
        position = int(state[WORDS])
        taken = min(WORDS - position, words.size - filled)
        source, target = state[position : position + taken], words[filled : filled + taken]
        for i in range(uint64(taken)):
            target[i] = tempered(source[i])
        state[WORDS] = position + taken
        filled += taken
    for i in range(uint64(out.size)):
        high, low = words[uint64(2) * i] >> uint32(5), words[uint64(2) * i + uint64(1)] >> uint32(6)
        out[i] = (high * 67108864.0 + low) * 2.0**-53


@kernel
def uniform(state: UInt32[np.ndarray, " 625"], low: float, high: float) -> float:
    """``uniform(low, high)``."""
    return low + (high - low) * fraction(state)


@kernel
def below(state: UInt32[np.ndarray, " 625"], count: int) -> int:
    """``randrange(count)``, and the index that ``choice`` takes of ``count`` things; count < 2^32.

    It is the high bits of the first word for which they are below ``count``.
    """
    unused = 32
    while count >> (32 - unused):
        unused -= 1
    while True:
        value = int(_word(state) >> uint32(unused))
        if value < count:
            return value


@kernel
def randint(state: UInt32[np.ndarray, " 625"], low: int, high: int) -> int:
    """``randint(low, high)``, both ends included."""
    return low + below(state, high - low + 1)


@kernel
def expovariate(state: UInt32[np.ndarray, " 625"], rate: float) -> float:
    """``expovariate(rate)``."""
    return -math.log(1.0 - fraction(state)) / rate
