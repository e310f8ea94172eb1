"""Kernels draw the numbers of CPython's ``random``, and leave its state."""

from __future__ import annotations

import random

import numpy as np
import pytest

from formulavision.rendering import python_random

SEEDS = [0, 1, 40, 2**32 - 1, 2**32, 2**70 + 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_all_kinds_of_numbers_in_turn_are_those_of_python(seed: int) -> None:
    state, python = python_random.seeded(seed), random.Random(seed)
    things = list(range(37))
    for turn in range(2000):
        assert python_random.fraction(state) == python.random()
        assert python_random.uniform(state, -0.3, 7.1) == python.uniform(-0.3, 7.1)
        assert python_random.randint(state, -400, 400) == python.randint(-400, 400)
        assert python_random.randint(state, 0, turn) == python.randint(0, turn)
        assert python_random.below(state, 511) + 1 == python.randrange(1, 512)
        assert python_random.below(state, 37) == python.choice(things)
        assert python_random.expovariate(state, 1 / 100) == python.expovariate(1 / 100)
    assert state.tolist() == list(python.getstate()[1])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 255, 256, 257, 2**16, 2**31, 2**31 + 1, 2**32 - 1])
def test_whole_numbers_take_as_many_words_as_in_python(count: int) -> None:
    state, python = python_random.seeded(5), random.Random(5)
    assert [python_random.below(state, count) for _ in range(500)] == [python.randrange(count) for _ in range(500)]
    assert state.tolist() == list(python.getstate()[1])


@pytest.mark.parametrize("words", [0, 1, 2, 622, 623, 624, 625, 1248, 100_001])
def test_skipped_words_are_those_that_python_draws(words: int) -> None:
    state, python = python_random.seeded(9), random.Random(9)
    for _ in range(3):
        python_random.skip(state, words)
        for _ in range(words):
            python.getrandbits(32)
        assert python_random.fraction(state) == python.random()
    assert np.array_equal(state, np.array(python.getstate()[1], np.uint32))


@pytest.mark.parametrize("count", [0, 1, 311, 312, 313, 2000])
@pytest.mark.parametrize("before", [0, 1, 623])
def test_many_fractions_at_once_are_those_one_by_one(count: int, before: int) -> None:
    state, python = python_random.seeded(3), random.Random(3)
    for _ in range(before):
        python_random.below(state, 2**32 - 1)
        python.randrange(2**32 - 1)
    out = np.empty(count)
    python_random.fractions(state, np.empty(2 * count, np.uint32), out)
    assert out.tolist() == [python.random() for _ in range(count)]
    assert state.tolist() == list(python.getstate()[1])
