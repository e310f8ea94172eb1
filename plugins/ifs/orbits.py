"""Orbits of iterated function systems by the random iteration algorithm (paper, section 3.1; Barnsley 1988).

A system is float64 [n, 6]; a row is a transformation a to f: x' = a x + b y + e, y' = c x + d y + f (equation 2).
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint32

from formulavision.rendering.random import philox4x32

CHAINS = 128
"""Chains of an independent orbit. Point i is step i div CHAINS of chain i mod CHAINS."""
BURN_IN = 64
"""Steps that a chain of an independent orbit makes before its points count."""


@njit(cache=True, nogil=True)
def select(draws, cumulative, selection):  # type: ignore[no-untyped-def]
    """Fill ``selection``, uint8 [n], with the first j for which ``draws[i] <= cumulative[j]``, or their number if none.

    Counting the borders below a draw has no branch to mispredict; blocks of it stay in the cache.
    """
    n = len(selection)
    below = np.empty(2048, np.int64)
    for start in range(0, n, 2048):
        size = min(2048, n - start)
        below[:] = 0
        for border in cumulative:
            for i in range(size):
                below[i] += draws[start + i] > border
        for i in range(size):
            selection[start + i] = below[i]


@njit(cache=True, nogil=True)
def published_orbit(system, selection, x, y):  # type: ignore[no-untyped-def]
    """The published orbit: from (0, 0), in float64, in the order x a + y b + e, without fused multiply-add.

    Args:
        system: float64 [n + 1, 6]; the last row is the identity, for a draw above all cumulated probabilities.
        selection: uint8 [at least len(x) - 1].
        x, y: float64 [points], are filled.
    """
    px = 0.0
    py = 0.0
    x[0] = px
    y[0] = py
    for i in range(len(x) - 1):
        w = system[selection[i]]
        qx = px * w[0] + py * w[1] + w[4]
        py = px * w[2] + py * w[3] + w[5]
        px = qx
        x[i + 1] = px
        y[i + 1] = py


@njit(cache=True, nogil=True)
def independent_orbit(system, borders, counter2, counter3, key0, key1, x, y):  # type: ignore[no-untyped-def]
    """CHAINS orbits side by side, in float32, each from (0, 0) with BURN_IN steps that do not count.

    The selection of eight steps of a chain is one block of Philox4x32-10 for the counter (block, chain, counter2,
    counter3): 16 bits a step, compared with the cumulated probabilities in units of 2^-16.

    Args:
        system: float32 [n, 6].
        borders: uint32 [n - 1], the cumulated probabilities but the last, times 65536, rounded.
        x, y: float32 [points], are filled.
    """
    points = len(x)
    a = np.zeros(len(system), np.float32)
    b = np.zeros(len(system), np.float32)
    c = np.zeros(len(system), np.float32)
    d = np.zeros(len(system), np.float32)
    e = np.zeros(len(system), np.float32)
    f = np.zeros(len(system), np.float32)
    for j in range(len(system)):
        a[j], b[j], c[j], d[j], e[j], f[j] = system[j]
    words = np.empty((4, CHAINS), np.uint32)
    chosen = np.empty(CHAINS, np.uint32)
    px = np.zeros(CHAINS, np.float32)
    py = np.zeros(CHAINS, np.float32)
    steps = BURN_IN + (points + CHAINS - 1) // CHAINS
    for step in range(steps):
        turn = step & 7
        if turn == 0:
            block = uint32(step >> 3)
            for chain in range(CHAINS):
                words[0, chain], words[1, chain], words[2, chain], words[3, chain] = philox4x32(
                    block, uint32(chain), uint32(counter2), uint32(counter3), uint32(key0), uint32(key1)
                )
        word = words[turn >> 1]
        shift = uint32(16) * uint32(turn & 1)
        for chain in range(CHAINS):
            chosen[chain] = uint32(0)
        for border in borders:
            for chain in range(CHAINS):
                chosen[chain] += uint32(((word[chain] >> shift) & uint32(0xFFFF)) >= border)
        for chain in range(CHAINS):
            j = chosen[chain]
            qx = px[chain] * a[j] + py[chain] * b[j] + e[j]
            py[chain] = px[chain] * c[j] + py[chain] * d[j] + f[j]
            px[chain] = qx
        if step >= BURN_IN:
            start = (step - BURN_IN) * CHAINS
            stop = min(start + CHAINS, points)
            for i in range(start, stop):
                x[i] = px[i - start]
                y[i] = py[i - start]
