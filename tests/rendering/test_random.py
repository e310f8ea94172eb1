from __future__ import annotations

import numpy as np
import pytest
import torch

from formulavision.generators.streams import random_stream
from formulavision.rendering.random import philox4x32, philox4x64, uniform_streams

known_answers_of_random123 = pytest.mark.parametrize(
    ("counter", "key", "output"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)


@known_answers_of_random123
def test_philox4x32_10_gives_the_known_answers(counter: list[int], key: list[int], output: str) -> None:
    words = philox4x32(*(np.uint32(word) for word in counter + key))
    assert " ".join(f"{int(word):08x}" for word in words) == output


@known_answers_of_random123
def test_philox4x32_10_gives_the_known_answers_in_kernels_for_gpus(
    device: torch.device, counter: list[int], key: list[int], output: str
) -> None:
    from philox_kernel import philox_words

    words = philox_words(counter, key, device)
    # The counters that follow it, too, are those of the CPU's kernel.
    following = [philox4x32(*np.array([counter[0] + n, *counter[1:], *key]).astype(np.uint32)) for n in range(8)]
    assert " ".join(f"{word:08x}" for word in words[:, 0].tolist()) == output
    assert words.T.tolist() == [[int(word) for word in block] for block in following]


@pytest.mark.parametrize(
    ("counter", "key", "output"),
    [
        ([0] * 4, [0] * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (
            [0xFFFFFFFFFFFFFFFF] * 4,
            [0xFFFFFFFFFFFFFFFF] * 2,
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
        (
            [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
            [0x452821E638D01377, 0xBE5466CF34E90C6C],
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_philox4x64_10_gives_the_known_answers_of_random123(counter: list[int], key: list[int], output: str) -> None:
    words = philox4x64(*(np.uint64(word) for word in counter + key))
    assert " ".join(f"{int(word):016x}" for word in words) == output


def test_many_streams_at_once_are_numpys() -> None:
    counters = np.array([[3, 5, 1], [2**40, 7, 1], [0, 0, 0], [2**62, 9, 1]])
    counts = [5, 8, 0, 1]
    key = 12345678901234, 2**62 + 5
    one_by_one = [random_stream(*key, *row).random(n) for row, n in zip(counters.tolist(), counts, strict=True)]
    assert uniform_streams(key, counters, counts).tolist() == np.concatenate(one_by_one).tolist()
    assert uniform_streams(key, counters, 3).shape == (12,)


def test_streams_of_different_keys_differ_in_every_place() -> None:
    keys = [(0,), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0, 1)]
    assert len({random_stream(*key).bytes(16) for key in keys}) == len(keys)


def test_a_stream_is_the_same_each_time() -> None:
    assert random_stream(5, 6, 7).bytes(64) == random_stream(5, 6, 7).bytes(64)
