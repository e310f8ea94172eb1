"""The published search for categories: one numpy legacy stream from a seed, trial by trial (paper, section 3.2).

A trial draws a system, then 100,000 numbers for its orbit. One thread skims the stream: it reads the systems and skips
the orbits' numbers. Others come back for those and look at the trials.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from formulavision.rendering import kernel, points

from . import mersenne
from .search import SEARCH_PADDING, SEARCH_POINTS, SEARCH_SIZE, needed_pixels

_TRIALS = 32
"""Trials that a thread looks at in one go; an even number."""
_THREADS = 16
"""Skimming feeds no more."""
_CELLS = 1024
_CELL_BITS = 43
"""A draw is an integer below 2^53; its highest ten bits are the number of its cell."""
_BLOCK = 1024

_memory = threading.local()


def published_search(seed: int, max_transformations: int, fill_rate: float) -> Iterator[NDArray[np.float64]]:
    """The systems that fill enough, in the order of the stream. Yields float64 [n, 7], without end."""
    stream = mersenne.stream(seed)
    needed = needed_pixels(fill_rate)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, _THREADS)
    threads = ThreadPoolExecutor(workers, initializer=_take_memory)
    ahead: deque[Future[list[NDArray[np.float64]]]] = deque()
    try:
        while True:
            while len(ahead) < 2 * workers:
                ahead.append(threads.submit(_accepted, needed, *_skim(stream, max_transformations)))
            yield from ahead.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _take_memory() -> None:
    """For the orbits of a thread, until it ends: new pages cost more than what is written to them."""
    _memory.orbits = np.empty((2, 2, SEARCH_POINTS))


def _skim(
    stream: NDArray[np.uint32], max_transformations: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32]]:
    """The next trials.

    Returns:
        Numbers n of transformations, int64 [trials]; a to f, float64 [trials, max_transformations + 1, 6], and the
        identity in row n; the streams from where they draw the orbits on, uint32 [trials, 624].
    """
    sizes = np.empty(_TRIALS, np.int64)
    systems = np.zeros((_TRIALS, max_transformations + 1, 6))
    streams = np.empty((_TRIALS, mersenne.WORDS), np.uint32)
    _read(stream, max_transformations, sizes, systems, streams)
    systems[np.arange(_TRIALS), sizes] = [1, 0, 0, 1, 0, 0]
    return sizes, systems, streams


@kernel
def _read(stream, max_transformations, sizes, systems, streams):  # type: ignore[no-untyped-def]
    draws = np.empty(mersenne.WORDS // 2, np.uint64)
    for trial in range(len(sizes)):
        n = 2 + mersenne.randint(stream, max_transformations - 2)
        mersenne.fractions(stream, draws)
        for j in range(n):
            for k in range(6):
                systems[trial, j, k] = mersenne.uniform(draws[6 * j + k], -1.0, 1.0)
        mersenne.skip(stream, 12 * n)
        sizes[trial] = n
        streams[trial] = stream
        mersenne.skip(stream, 2 * SEARCH_POINTS)


def _accepted(
    needed: int, sizes: NDArray[np.int64], systems: NDArray[np.float64], streams: NDArray[np.uint32]
) -> list[NDArray[np.float64]]:
    """The systems of ``_skim`` that light ``needed`` pixels, with their probabilities."""
    a, b, c, d = np.moveaxis(systems[:, :, :4], 2, 0)
    absent = np.arange(systems.shape[1]) >= sizes[:, None]
    # As in ``with_probabilities``, for all trials at once: cumsum adds one by one, and zeros change no sum.
    magnitude = np.where(absent, 0.0, np.abs(a * d - b * c))
    probabilities = magnitude / np.cumsum(magnitude, axis=1)[:, -1:]
    # For the integer 2^53 draw, draw <= p is 2^53 draw <= floor(2^53 p). What is above all selects the identity.
    borders = (np.cumsum(probabilities, axis=1) * 2**53).astype(np.uint64)
    borders[absent] = 2**53
    fills = np.empty(len(sizes), np.bool_)
    x, y = _memory.orbits
    _look(systems, borders, streams, needed, x, y, fills)
    return [np.column_stack([systems[i, : sizes[i]], probabilities[i, : sizes[i]]]) for i in np.flatnonzero(fills)]


@kernel
def _look(systems, borders, streams, needed, x, y, fills):  # type: ignore[no-untyped-def]
    columns, rows = np.empty(_BLOCK, np.uint16), np.empty(_BLOCK, np.uint16)
    lit = np.empty(SEARCH_SIZE**2, np.uint8)
    for i in range(0, len(fills), 2):
        boxes = _walk(systems[i : i + 2], borders[i : i + 2], streams[i : i + 2], x, y)
        for lane in range(2):
            fills[i + lane] = _fills(x[lane], y[lane], boxes[lane], needed, columns, rows, lit)


@kernel
def _walk(systems, borders, streams, x, y):  # type: ignore[no-untyped-def]
    """Two published orbits side by side, since the steps of one wait for each other.

    Args:
        systems: float64 [2, > n, 6]; row n is the identity.
        borders: uint64 [2, > n], cumulated probabilities times 2^53; from n on they are 2^53.
        streams: uint32 [2, 624].
        x, y: float64 [2, SEARCH_POINTS], are filled.

    Returns:
        The two bounding boxes: low x, high x, low y, high y of all points that are numbers.
    """
    streams = streams.copy()
    draws = np.empty((2, mersenne.WORDS // 2), np.uint64)
    first = np.empty((2, _CELLS), np.uint8)
    for lane in range(2):
        _select_cells(borders[lane], first[lane])
    px = py = low_px = high_px = low_py = high_py = 0.0
    qx = qy = low_qx = high_qx = low_qy = high_qy = 0.0
    x[:, 0] = 0.0
    y[:, 0] = 0.0
    for start in range(1, SEARCH_POINTS, draws.shape[1]):
        for lane in range(2):
            mersenne.fractions(streams[lane], draws[lane])
            mersenne.next_words(streams[lane])
        # Unsigned, since numba looks for negative indices otherwise.
        for i in range(uint64(min(draws.shape[1], SEARCH_POINTS - start))):
            at = uint64(start) + i
            px, py = _step(systems, borders, first, 0, draws[0, i], px, py)
            x[0, at], y[0, at] = px, py
            low_px, high_px = _extended(low_px, high_px, px)
            low_py, high_py = _extended(low_py, high_py, py)
            qx, qy = _step(systems, borders, first, 1, draws[1, i], qx, qy)
            x[1, at], y[1, at] = qx, qy
            low_qx, high_qx = _extended(low_qx, high_qx, qx)
            low_qy, high_qy = _extended(low_qy, high_qy, qy)
    return (low_px, high_px, low_py, high_py), (low_qx, high_qx, low_qy, high_qy)


@kernel
def _select_cells(borders, first):  # type: ignore[no-untyped-def]
    """Fill ``first``, uint8 [cells], with what the lowest draw of each cell selects."""
    j = 0
    for cell in range(_CELLS):
        while uint64(cell) << uint64(_CELL_BITS) > borders[j]:
            j += 1
        first[cell] = j


@kernel
def _step(systems, borders, first, lane, draw, x, y):  # type: ignore[no-untyped-def]
    """A step with the first j for which ``draw <= borders[j]``, sought from what the draw's cell starts with."""
    j = uint64(first[lane, draw >> uint64(_CELL_BITS)])
    while draw > borders[lane, j]:
        j += uint64(1)
    w = systems[lane, j]
    return x * w[0] + y * w[1] + w[4], x * w[2] + y * w[3] + w[5]


@kernel
def _extended(low, high, value):  # type: ignore[no-untyped-def]
    return value if value < low else low, value if value > high else high


@kernel
def _fills(x, y, box, needed, columns, rows, lit):  # type: ignore[no-untyped-def]
    """Whether an orbit lights ``needed`` pixels; looks no further than it must to know.

    Args:
        x, y: float64 [points].
        box: low x, high x, low y, high y of all points that are numbers.
        columns, rows: uint16 [_BLOCK], and lit: uint8 [SEARCH_SIZE^2], are scratch space.
    """
    length = points.valid_length(y, points.valid_length(x, len(x)))
    if length < needed:
        return False
    if length < len(x):
        box = points.bounding_box(x, y, length)
    lit[:] = 0
    total = 0
    for start in range(0, length, _BLOCK):
        size = min(_BLOCK, length - start)
        stop = start + size
        points.place(x[start:stop], y[start:stop], size, box, SEARCH_SIZE, SEARCH_PADDING, columns, rows)
        for i in range(size):
            pixel = uint64(rows[i]) * uint64(SEARCH_SIZE) + uint64(columns[i])
            total += 1 - lit[pixel]
            lit[pixel] = 1
        if total >= needed or total + length - stop < needed:
            break
    return total >= needed
