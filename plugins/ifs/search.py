"""Search for categories: random systems whose image fills enough of the canvas (paper, section 3.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from formulavision.generator import random_stream
from formulavision.rendering import points

from .orbits import independent_orbit, published_orbit, select

SEARCH_SIZE = 512
SEARCH_PADDING = 6
SEARCH_POINTS = 100_000
"""The published search looks at a system in 100,000 points on 512 x 512 pixels with a padding of 6."""

_STREAM = int.from_bytes(b"ifs/find", "little")
_LYAPUNOV_STEPS = 4096


def with_probabilities(transformations: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [n, 7]: a to f and p, proportional to |det A| = |a d - b c|.

    The paper (section 3.2) writes det A; a determinant may be negative, and the published search takes its magnitude.
    """
    a, b, c, d = transformations[:, :4].T
    magnitude = np.abs(a * d - b * c)
    total = 0.0
    for p in magnitude:  # one by one, as published: a pairwise sum may differ in the last bit
        total += p
    return np.column_stack([transformations, magnitude / total])


def cumulated(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulated one by one."""
    return np.cumsum(probabilities)


def published_search(seed: int, max_transformations: int, fill_rate: float) -> Iterator[NDArray[np.float64]]:
    """The published search: one numpy legacy stream from a seed, trial by trial. Yields float64 [n, 7], without end.

    The stream is drawn in this thread while two others look at the trials before; their order does not change.
    """
    stream = np.random.RandomState(seed)
    ahead: deque[tuple[NDArray[np.float64], Future[float]]] = deque()
    with ThreadPoolExecutor(2) as threads:
        try:
            while True:
                while len(ahead) < 8:
                    n = stream.randint(2, max_transformations + 1)
                    system = with_probabilities(np.array([stream.uniform(-1, 1, 6) for _ in range(n)]))
                    draws = stream.random_sample(SEARCH_POINTS)
                    ahead.append((system, threads.submit(_published_fill, system, draws)))
                system, fill = ahead.popleft()
                if fill.result() >= fill_rate:
                    yield system
        finally:
            for _, fill in ahead:
                fill.cancel()


def _published_fill(system: NDArray[np.float64], draws: NDArray[np.float64]) -> float:
    selection = np.empty(SEARCH_POINTS, np.uint8)
    select(draws, cumulated(system[:, 6]), selection)
    x = np.empty(SEARCH_POINTS)
    y = np.empty(SEARCH_POINTS)
    published_orbit(with_identity(system), selection, x, y)
    return _filled(x, y)


def with_identity(system: NDArray[np.float64]) -> NDArray[np.float64]:
    """a to f of the system, and below them the identity, which a draw above all cumulated probabilities selects."""
    return np.vstack([system[:, :6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]])


def _filled(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    columns = np.empty(len(x), np.uint16)
    rows = np.empty(len(x), np.uint16)
    length = points.to_pixels(x, y, SEARCH_SIZE, SEARCH_PADDING, columns, rows)
    grid = np.empty((SEARCH_SIZE, SEARCH_SIZE), np.uint8)
    return points.count_lit(columns, rows, length, grid) / SEARCH_SIZE**2


def independent_search(
    seed: int, index: int, max_transformations: int, fill_rate: float, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Category ``index`` from a stream of its own: the first system that fills enough and never diverges.

    Args:
        weights: float64 [rows, 6]; a system that diverges under any of its weights is refused.

    Returns:
        float64 [n, 7].
    """
    stream = random_stream(seed, _STREAM, index)
    x = np.empty(SEARCH_POINTS, np.float32)
    y = np.empty(SEARCH_POINTS, np.float32)
    while True:
        n = int(stream.integers(2, max_transformations, endpoint=True))
        system = with_probabilities(stream.uniform(-1, 1, (n, 6)))
        key = stream.integers(0, 2**32, 4, dtype=np.uint32)
        if not is_contractive(system, np.ones((1, 6)), stream):
            continue
        independent_orbit(system[:, :6].astype(np.float32), borders(system), *key, x, y)
        if _filled(x, y) >= fill_rate and is_contractive(system, weights, stream):
            return system


def borders(system: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Cumulated probabilities but the last, in units of 2^-16."""
    return np.round(cumulated(system[:, 6])[:-1] * 65536).astype(np.uint32)


def is_contractive(system: NDArray[np.float64], weights: NDArray[np.float64], stream: np.random.Generator) -> bool:
    """Whether the system contracts on average under every row of weights, so that its orbit stays bounded.

    That is a negative Lyapunov exponent (Barnsley and Elton 1988), estimated from 4,096 steps.
    """
    selection = np.empty(_LYAPUNOV_STEPS, np.uint8)
    select(stream.random(_LYAPUNOV_STEPS), cumulated(system[:, 6]), selection)
    np.minimum(selection, len(system) - 1, out=selection)
    return all(_lyapunov_exponent(system[:, :4] * row[:4], selection) < 0 for row in weights)


@njit(cache=True, nogil=True)
def _lyapunov_exponent(matrices, selection):  # type: ignore[no-untyped-def]
    """Mean log growth of a vector under the chosen matrices, float64 [n, 4]."""
    u = 1.0
    v = 0.5
    growth = 0.0
    for j in selection:
        m = matrices[j]
        u, v = m[0] * u + m[1] * v, m[2] * u + m[3] * v
        size = np.sqrt(u * u + v * v)
        if size < 1e-300:
            return -np.inf
        growth += np.log(size)
        u /= size
        v /= size
    return growth / len(selection)
