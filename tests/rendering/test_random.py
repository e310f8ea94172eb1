from __future__ import annotations

import numpy as np
import pytest

from formulavision.generator import random_stream
from formulavision.rendering.random import philox4x32


@pytest.mark.parametrize(
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
def test_philox4x32_10_gives_the_known_answers_of_random123(counter: list[int], key: list[int], output: str) -> None:
    words = philox4x32(*(np.uint32(word) for word in counter + key))
    assert " ".join(f"{int(word):08x}" for word in words) == output


def test_streams_of_different_keys_differ_in_every_place() -> None:
    keys = [(0,), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0, 1)]
    assert len({random_stream(*key).bytes(16) for key in keys}) == len(keys)


def test_a_stream_is_the_same_each_time() -> None:
    assert random_stream(5, 6, 7).bytes(64) == random_stream(5, 6, 7).bytes(64)
