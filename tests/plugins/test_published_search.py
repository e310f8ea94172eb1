"""The published search against what the publication did, written down once more without its speed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from cases import slow
from formulavision_plugins.ifs import search_published
from formulavision_plugins.ifs.orbits import published_orbit, select
from formulavision_plugins.ifs.systems import add_identity, cumulative_probabilities, with_probabilities
from numpy.typing import NDArray

from formulavision import ConfigError
from formulavision.rendering import mersenne, points

POINTS = 100_000
Trials = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32]]


def published_trials(seed: int, max_transformations: int) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Each trial's system, float64 [n, 7], and its share of lit pixels."""
    stream = np.random.RandomState(seed)
    while True:
        n = stream.randint(2, max_transformations + 1)
        rows = [stream.uniform(-1, 1, 6) for _ in range(n)]
        probabilities = [abs(a * d - b * c) for a, b, c, d, _, _ in rows]
        *_, total = itertools.accumulate(probabilities)
        system = np.column_stack([rows, [p / total for p in probabilities]])
        x, y = orbit(system, stream.random_sample(POINTS))
        yield system, lit_share(x, y)


def orbit(system: NDArray[np.float64], draws: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    transformations = [*system[:, :6].tolist(), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    selection = np.searchsorted(list(itertools.accumulate(system[:, 6].tolist())), draws)
    x = y = 0.0
    path = [(x, y)]
    for j in selection[:-1].tolist():
        a, b, c, d, e, f = transformations[j]
        x, y = x * a + y * b + e, x * c + y * d + f
        path.append((x, y))
    xs, ys = np.array(path).T
    return xs, ys


def lit_share(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    for dropping in (0, 1):
        missing = np.flatnonzero(np.isnan((x, y)[dropping]))
        kept = max(0, missing[0] - 100) if len(missing) else len(x)
        x, y = x[:kept], y[:kept]
    if len(x) == 0:
        return 0.0
    image = np.zeros((512, 512))
    image[pixels(y), pixels(x)] = 1
    return image.sum() / 512**2


def pixels(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    with np.errstate(invalid="ignore", over="ignore"):
        if values.min() < 0:
            values = values - values.min()
        place = values / (values.max() - values.min()) * 500 + 6
        return np.where(np.isfinite(place), place, 0).astype(np.uint16)


@pytest.mark.parametrize(
    ("seed", "max_transformations", "fill_rate"),
    [(3, 8, 0.06), *slow((1, 7, 0.05), (2, 2, 0.01), (2**32 - 1, 4, 0.03))],
)
def test_accepted_are_the_trials_that_fill_enough(seed: int, max_transformations: int, fill_rate: float) -> None:
    trials = list(itertools.islice(published_trials(seed, max_transformations), 20))
    expected = [system for system, share in trials if share >= fill_rate]
    assert 0 < len(expected) < len(trials)
    found = search_published.published_search(seed, max_transformations, fill_rate)
    for system, other in zip(expected, found, strict=False):
        assert np.array_equal(system, other)


@pytest.fixture(scope="module")
def trials() -> Trials:
    """640 trials of seed 1: sizes, systems and streams."""
    stream = mersenne.stream(1)
    return tuple(np.concatenate(parts) for parts in zip(*(skim(stream) for _ in range(20)), strict=True))  # type: ignore[return-value]


def skim(stream: NDArray[np.uint32]) -> Trials:
    return search_published._read_trials(stream, 7)


@pytest.fixture(scope="module")
def lit(trials: Trials) -> list[tuple[int, int]]:
    """Points that count and pixels that they light, for each trial."""
    sizes, systems, _ = trials
    numpy_stream = np.random.RandomState(1)
    counts = []
    x, y = np.empty(POINTS), np.empty(POINTS)
    columns, rows = np.empty(POINTS, np.uint16), np.empty(POINTS, np.uint16)
    selection = np.empty(POINTS, np.uint8)
    for n, transformations in zip(sizes, systems, strict=True):
        assert numpy_stream.randint(2, 8) == n
        assert np.array_equal(numpy_stream.uniform(-1, 1, (n, 6)), transformations[:n])
        system = with_probabilities(transformations[:n])
        select(numpy_stream.random_sample(POINTS), cumulative_probabilities(system), selection)
        published_orbit(add_identity(system), selection, x, y)
        length = points.to_pixels(x, y, 512, 6, columns, rows)
        counts.append((length, points.light(columns, rows, length, np.zeros((512, 512), np.uint8))))
    return counts


def accepted(trials: Trials, needed: int) -> list[NDArray[np.float64]]:
    search_published._take_memory()
    return search_published._accepted(needed, *trials)


@pytest.mark.parametrize("needed", [1, 1000, 5000, 20_000, 52_429, 100_001])
def test_each_trial_is_decided_as_its_picture_says(trials: Trials, lit: list[tuple[int, int]], needed: int) -> None:
    sizes, systems, _ = trials
    expected = [with_probabilities(systems[i, : sizes[i]]) for i, (_, count) in enumerate(lit) if count >= needed]
    found = accepted(trials, needed)
    assert len(found) == len(expected)
    assert all(np.array_equal(system, other) for system, other in zip(found, expected, strict=True))


def test_a_trial_is_accepted_up_to_the_very_number_of_its_lit_pixels(
    trials: Trials, lit: list[tuple[int, int]]
) -> None:
    diverged = [i for i, (length, _) in enumerate(lit) if length < POINTS]
    late = [i for i, (length, count) in enumerate(lit) if count < length < POINTS]
    assert len(late) > 0
    for i in [*range(60), *diverged]:
        pair = tuple(part[[i, i]] for part in trials)
        count = lit[i][1]
        assert len(accepted(pair, count)) == 2  # type: ignore[arg-type]
        assert len(accepted(pair, count + 1)) == 0  # type: ignore[arg-type]


def diverging(case: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (2, POINTS))
    x[0] = y[0] = 0
    if case == "x is NaN early":
        x[500:] = np.nan
    elif case == "y is NaN late":
        y[90_000:] = np.nan
    elif case == "x is NaN some points after y":
        y[90_000:] = x[90_050:] = np.nan
    elif case == "infinite before NaN":
        x[80_000:] = -np.inf
        y[90_000:] = np.nan
    elif case == "infinite at the end":
        y[-1] = np.inf
    elif case == "spread beyond the largest number":
        x[1:3] = 1e308, -1e308
    return x, y


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize(
    "case",
    [
        "x is NaN early",
        "y is NaN late",
        "x is NaN some points after y",
        "infinite before NaN",
        "infinite at the end",
        "spread beyond the largest number",
    ],
)
def test_an_orbit_that_diverges_lights_as_many_pixels_as_drawn(case: str) -> None:
    x, y = diverging(case)
    columns, rows = np.empty(POINTS, np.uint16), np.empty(POINTS, np.uint16)
    length = points.to_pixels(x, y, 512, 6, columns, rows)
    count = points.light(columns, rows, length, np.zeros((512, 512), np.uint8))
    box = np.nanmin(x), np.nanmax(x), np.nanmin(y), np.nanmax(y)
    scratch = columns[:1024], rows[:1024], np.empty((512, 512), np.uint8)
    assert search_published._fills(x, y, box, count, *scratch)
    assert not search_published._fills(x, y, box, count + 1, *scratch)


def test_the_iterator_may_be_closed_at_any_time() -> None:
    threads = threading.active_count()
    for found in (0, 1, 3):
        search = search_published.published_search(1, 7, 0.2)
        for _ in range(found):
            next(search)
        search.close()
        assert threading.active_count() == threads


def test_a_search_that_finds_nothing_ends_and_so_do_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_published, "_MOST_TRIALS", 64)
    threads = threading.active_count()
    with pytest.raises(ConfigError, match=r"none of 64 random systems fills 0\.3 of the canvas: lower fill_rate"):
        next(search_published.published_search(1, 7, 0.3))
    assert threading.active_count() == threads
    assert len(list(itertools.islice(search_published.published_search(1, 7, 0.02), 200))) == 200
