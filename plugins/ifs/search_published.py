"""The search for the categories of the published FractalDB: trial by trial along numpy's legacy random stream.

A trial draws a random system, and 100,000 numbers for its orbit; the system becomes a category if its image fills
enough of the canvas (paper, section 3.2). One thread walks along the stream: it reads the systems and skips the numbers
of the orbits (:func:`_read_trials`). Other threads draw these numbers and examine the trials (:func:`_accepted`).
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt16, UInt32, UInt64
from numba import uint64

from formulavision import ConfigError
from formulavision.rendering import kernel, mersenne, points

from .systems import add_identities

__all__ = ["SEARCH_PADDING", "SEARCH_POINTS", "SEARCH_SIZE", "needed_pixels", "published_search"]

SEARCH_SIZE = 512
SEARCH_PADDING = 6
SEARCH_POINTS = 100_000
"""The search draws a system in 100,000 points on 512 x 512 pixels with a padding of 6."""

_TRIALS = 32
"""Number of trials that a thread examines in one call; an even number."""
_MOST_TRIALS = 10_000_000
"""Largest number of trials for a category; a fill_rate of 0.2 needs about 50, one of 0.28 about 45,000."""
_THREADS = 16
"""Largest number of threads: one thread that reads the stream feeds no more."""
_CELLS = 1024
_CELL_BITS = 43
"""A draw is an integer below 2^53; its highest ten bits are the number of its cell."""
_BLOCK = 1024

_memory = threading.local()


def needed_pixels(fill_rate: float) -> int:
    """The least number of lit pixels for which ``lit / SEARCH_SIZE**2 >= fill_rate``."""
    needed = math.floor(fill_rate * SEARCH_SIZE**2)
    return needed if needed / SEARCH_SIZE**2 >= fill_rate else needed + 1


def published_search(seed: int, max_transformations: int, fill_rate: float) -> Iterator[Float64[np.ndarray, "n 7"]]:
    """The systems that fill enough of the canvas, in the order of the stream.

    Args:
        seed: of the stream, below 2^32.
        max_transformations: largest number of transformations; 7 for the published FractalDB.
        fill_rate: smallest share of lit pixels; 0.2 for the published FractalDB.

    Yields:
        Systems, a to f and p of each transformation, without end.

    Raises:
        ConfigError: 10,000,000 trials one after the other gave none.
    """
    stream = mersenne.stream(seed)
    needed = needed_pixels(fill_rate)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, _THREADS)
    threads = ThreadPoolExecutor(workers, initializer=_take_memory)
    ahead: deque[Future[list[Float64[np.ndarray, "n 7"]]]] = deque()
    in_vain = 0
    try:
        while in_vain < _MOST_TRIALS:
            while len(ahead) < 2 * workers:
                ahead.append(threads.submit(_accepted, needed, *_read_trials(stream, max_transformations)))
            found = ahead.popleft().result()
            yield from found
            in_vain = 0 if found else in_vain + _TRIALS
    finally:
        threads.shutdown(cancel_futures=True)
    raise ConfigError(
        f"generator: none of {_MOST_TRIALS:,} random systems fills {fill_rate:g} of the canvas: lower fill_rate, or "
        "raise max_transformations"
    )


def _take_memory() -> None:
    """Memory for the orbits of a thread, until it ends: new pages cost more than what is written to them."""
    _memory.orbits = np.empty((2, 2, SEARCH_POINTS))


def _read_trials(
    stream: UInt32[np.ndarray, " 624"], max_transformations: int
) -> tuple[Int64[np.ndarray, " trials"], Float64[np.ndarray, "trials rows 6"], UInt32[np.ndarray, "trials 624"]]:
    """Read the next trials and move the stream on behind them.

    Returns:
        The systems' numbers of transformations; a to f, with the identity behind a system's last transformation; and
        the streams as they are where a trial's orbit begins.
    """
    sizes = np.empty(_TRIALS, np.int64)
    transformations = np.zeros((_TRIALS, max_transformations, 6))
    streams = np.empty((_TRIALS, mersenne.WORDS), np.uint32)
    _read(stream, max_transformations, sizes, transformations, streams)
    return sizes, add_identities(transformations, sizes), streams


@kernel
def _read(
    stream: UInt32[np.ndarray, " 624"],
    max_transformations: int,
    sizes: Int64[np.ndarray, " trials"],
    transformations: Float64[np.ndarray, "trials most 6"],
    streams: UInt32[np.ndarray, "trials 624"],
) -> None:
    draws = np.empty(mersenne.WORDS // 2, np.uint64)
    for trial in range(len(sizes)):
        n = 2 + mersenne.randint(stream, max_transformations - 2)
        mersenne.fractions(stream, draws)
        for j in range(n):
            for k in range(6):
                transformations[trial, j, k] = mersenne.uniform(draws[6 * j + k], -1.0, 1.0)
        mersenne.skip(stream, 12 * n)
        sizes[trial] = n
        streams[trial] = stream
        mersenne.skip(stream, 2 * SEARCH_POINTS)


def _accepted(
    needed: int,
    sizes: Int64[np.ndarray, " trials"],
    systems: Float64[np.ndarray, "trials rows 6"],
    streams: UInt32[np.ndarray, "trials 624"],
) -> list[Float64[np.ndarray, "n 7"]]:
    """The systems that light ``needed`` pixels, with their probabilities; the arguments are from ``_read_trials``."""
    a, b, c, d = np.moveaxis(systems[:, :, :4], 2, 0)
    absent = np.arange(systems.shape[1]) >= sizes[:, None]
    # p as in systems.with_probabilities, for all trials at once: cumsum adds one by one, and zeros change no sum.
    magnitude = np.where(absent, 0.0, np.abs(a * d - b * c))
    probabilities = magnitude / np.cumsum(magnitude, axis=1)[:, -1:]
    # For the integer 2^53 draw, draw <= p is 2^53 draw <= floor(2^53 p). A draw above all sums selects the identity.
    cumulative = (np.cumsum(probabilities, axis=1) * 2**53).astype(np.uint64)
    cumulative[absent] = 2**53
    fills = np.empty(len(sizes), np.bool_)
    x, y = _memory.orbits
    _examine(systems, cumulative, streams, needed, x, y, fills)
    return [np.column_stack([systems[i, : sizes[i]], probabilities[i, : sizes[i]]]) for i in np.flatnonzero(fills)]


@kernel
def _examine(
    systems: Float64[np.ndarray, "trials rows 6"],
    cumulative: UInt64[np.ndarray, "trials rows"],
    streams: UInt32[np.ndarray, "trials 624"],
    needed: int,
    x: Float64[np.ndarray, "2 points"],
    y: Float64[np.ndarray, "2 points"],
    fills: Bool[np.ndarray, " trials"],
) -> None:
    """Fill ``fills`` with whether each trial lights ``needed`` pixels; ``x`` and ``y`` are scratch memory."""
    columns, rows = np.empty(_BLOCK, np.uint16), np.empty(_BLOCK, np.uint16)
    lit = np.empty((SEARCH_SIZE, SEARCH_SIZE), np.uint8)
    for i in range(0, len(fills), 2):
        boxes = _two_orbits(systems[i : i + 2], cumulative[i : i + 2], streams[i : i + 2], x, y)
        for lane in range(2):
            fills[i + lane] = _fills(x[lane], y[lane], boxes[lane], needed, columns, rows, lit)


@kernel
def _two_orbits(
    systems: Float64[np.ndarray, "2 rows 6"],
    cumulative: UInt64[np.ndarray, "2 rows"],
    streams: UInt32[np.ndarray, "2 624"],
    x: Float64[np.ndarray, "2 points"],
    y: Float64[np.ndarray, "2 points"],
) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
    """Two published orbits (equation 2) side by side, since the steps of one wait for each other.

    Args:
        systems: a to f; the identity is the row behind a system's last.
        cumulative: cumulative probabilities times 2^53; from the identity's row on they are 2^53.
        streams: the streams where the orbits' numbers begin.
        x, y: the points, are filled.

    Returns:
        The two bounding boxes: low x, high x, low y, high y of all points that are not NaN.
    """
    streams = streams.copy()
    draws = np.empty((2, mersenne.WORDS // 2), np.uint64)
    first = np.empty((2, _CELLS), np.uint8)
    for lane in range(2):
        _select_cells(cumulative[lane], first[lane])
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
            px, py = _step(systems, cumulative, first, 0, draws[0, i], px, py)
            x[0, at], y[0, at] = px, py
            low_px, high_px = _extended(low_px, high_px, px)
            low_py, high_py = _extended(low_py, high_py, py)
            qx, qy = _step(systems, cumulative, first, 1, draws[1, i], qx, qy)
            x[1, at], y[1, at] = qx, qy
            low_qx, high_qx = _extended(low_qx, high_qx, qx)
            low_qy, high_qy = _extended(low_qy, high_qy, qy)
    return (low_px, high_px, low_py, high_py), (low_qx, high_qx, low_qy, high_qy)


@kernel
def _select_cells(cumulative: UInt64[np.ndarray, " rows"], first: UInt8[np.ndarray, " cells"]) -> None:
    """Fill ``first`` with the row that the lowest draw of each cell selects."""
    j = 0
    for cell in range(_CELLS):
        while uint64(cell) << uint64(_CELL_BITS) > cumulative[j]:
            j += 1
        first[cell] = j


@kernel
def _step(
    systems: Float64[np.ndarray, "2 rows 6"],
    cumulative: UInt64[np.ndarray, "2 rows"],
    first: UInt8[np.ndarray, "2 cells"],
    lane: int,
    draw: np.uint64,
    x: float,
    y: float,
) -> tuple[float, float]:
    """Equation 2 with the first row j for which ``draw <= cumulative[j]``, from the row of the draw's cell on."""
    j = uint64(first[lane, draw >> uint64(_CELL_BITS)])
    while draw > cumulative[lane, j]:
        j += uint64(1)
    w = systems[lane, j]
    return x * w[0] + y * w[1] + w[4], x * w[2] + y * w[3] + w[5]


@kernel
def _extended(low: float, high: float, value: float) -> tuple[float, float]:
    return value if value < low else low, value if value > high else high


@kernel
def _fills(
    x: Float64[np.ndarray, " points"],
    y: Float64[np.ndarray, " points"],
    box: tuple[float, float, float, float],
    needed: int,
    columns: UInt16[np.ndarray, " block"],
    rows: UInt16[np.ndarray, " block"],
    lit: UInt8[np.ndarray, "size size"],
) -> bool:
    """Whether an orbit lights ``needed`` pixels; looks at no more points than that takes.

    Args:
        x, y: the points.
        box: low x, high x, low y, high y of all points that are not NaN.
        needed: number of pixels.
        columns, rows, lit: scratch memory.
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
        points.scale_to_canvas(x[start:stop], y[start:stop], size, box, SEARCH_SIZE, SEARCH_PADDING, columns, rows)
        total += points.light(columns, rows, size, lit)
        if total >= needed or total + length - stop < needed:
            break
    return total >= needed
