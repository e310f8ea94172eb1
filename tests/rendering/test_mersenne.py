"""Numpy's legacy stream, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from formulavision.rendering import mersenne

SEEDS = [0, 1, 100, 20_220_401, 2**32 - 1]


def next_fractions(stream: NDArray[np.uint32], count: int) -> NDArray[np.uint64]:
    """The next ``count`` values of ``random_sample``, times 2^53."""
    blocks: list[NDArray[np.uint64]] = []
    for _ in range(0, count, 312):
        draws = np.empty(312, np.uint64)
        mersenne.fractions(stream, draws)
        blocks.append(draws[: count - 312 * len(blocks)])
        mersenne.skip(stream, 2 * len(blocks[-1]))
    return np.concatenate(blocks)


@pytest.mark.parametrize("counts", [(1, 0, 3), (311, 312, 313), (5000, 2)])
def test_samples_follow_each_other_as_those_of_numpy(counts: tuple[int, ...]) -> None:
    stream, expected = mersenne.stream(7), np.random.RandomState(7)
    for count in counts:
        drawn = np.empty(count)
        mersenne.random_sample(stream, drawn)
        assert np.array_equal(drawn, expected.random_sample(count))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_stream_of_doubles_equals_that_of_numpy(seed: int) -> None:
    stream = mersenne.stream(seed)
    expected = np.random.RandomState(seed).random_sample(200_000)
    assert np.array_equal(next_fractions(stream, 200_000) * 2.0**-53, expected)


@pytest.mark.parametrize("count", [0, 1, 2, 226, 227, 228, 454, 623, 624, 625, 851, 1248, 200_000])
def test_skipped_words_are_those_that_numpy_draws(count: int) -> None:
    stream, numpy_stream = mersenne.stream(1), np.random.RandomState(1)
    for _ in range(3):
        mersenne.skip(stream, count)
        numpy_stream.randint(0, 2**32, count, np.uint32)
        assert np.array_equal(next_fractions(stream, 500) * 2.0**-53, numpy_stream.random_sample(500))


def test_moving_on_by_624_words_is_skipping_them() -> None:
    stream, other = mersenne.stream(1), mersenne.stream(1)
    mersenne.next_words(stream)
    mersenne.skip(other, mersenne.WORDS)
    assert np.array_equal(stream, other)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 0.1), (-3.3, 12.7)])
def test_uniform_equals_that_of_numpy(seed: int, low: float, high: float) -> None:
    expected = np.random.RandomState(seed).uniform(low, high, 3000)
    draws = next_fractions(mersenne.stream(seed), 3000)
    assert [mersenne.uniform(draw, low, high) for draw in draws] == expected.tolist()


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 4, 5, 6, 7, 8, 255, 256, 1000, 2**31, 2**32 - 2, 2**32 - 1])
def test_randint_equals_that_of_numpy_and_draws_as_many_words(largest: int) -> None:
    for seed in SEEDS:
        stream, numpy_stream = mersenne.stream(seed), np.random.RandomState(seed)
        drawn = [mersenne.randint(stream, largest) for _ in range(2000)]
        assert drawn == [numpy_stream.randint(0, largest + 1) for _ in range(2000)]
        assert np.array_equal(next_fractions(stream, 312) * 2.0**-53, numpy_stream.random_sample(312))


def test_randint_and_doubles_take_turns() -> None:
    """So that doubles begin at odd words too, and are made of two blocks of words."""
    stream, numpy_stream = mersenne.stream(7), np.random.RandomState(7)
    for turn in range(500):
        assert mersenne.randint(stream, turn % 9) == numpy_stream.randint(0, turn % 9 + 1)
        assert np.array_equal(next_fractions(stream, turn) * 2.0**-53 if turn else [], numpy_stream.random_sample(turn))
