"""Streams of random numbers: every use and every generator has its own."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from formulavision import Canvas, Generator, Params
from formulavision.generators.contract import Category
from formulavision.generators.streams import Stream, generator_key, random_stream

ROOT = Path(__file__).parents[2]


def named(name: str) -> Generator:
    return type("Named", (Generator,), {"name": name})(Params(), Canvas(), 1)


@pytest.mark.parametrize("name", ["ifs", "bezier", "perlin", "rings", "discs", "a", "fractal-", "12345678"])
def test_generators_with_short_names_keep_their_streams(name: str) -> None:
    stream = np.random.Generator(
        np.random.Philox(key=[1, int.from_bytes(name.encode(), "little")], counter=[0, 3, 5, 1])
    )
    category = Category(3, "00003", np.zeros((1, 1)))
    assert named(name).random(category, 5).bytes(64) == stream.bytes(64)


NAMES = [
    *["fractal-", "fractal-tree", "fractal-leaf", "fractal_tree", "fractal-trees"],
    *[f"a-generator-{i}" for i in range(1000)],
    *["".join(letters) for letters in itertools.product("az09_-", repeat=3)],
]


def test_two_names_never_share_a_stream() -> None:
    names = set(NAMES)
    assert len({generator_key(name) for name in names}) == len(names)
    # Keys of long names have a bit that no ASCII name has.
    assert all((generator_key(name) >> 63 == 1) == (len(name) > 8) for name in names)
    assert named("fractal-tree").stream(0).bytes(16) != named("fractal-leaf").stream(0).bytes(16)


def test_the_numbers_of_many_instances_are_those_of_each_for_long_names_too() -> None:
    generator = named("fractal-tree")
    indices, instances = np.array([0, 4, 4]), np.array([7, 7, 8])
    each = [
        generator.random(Category(i, "", np.zeros((1, 1))), n).random(2)
        for i, n in zip(indices.tolist(), instances.tolist(), strict=True)
    ]
    assert generator.uniforms(indices, instances, 2).tolist() == np.concatenate(each).tolist()


def test_uses_keep_their_numbers_and_a_new_one_takes_a_new_number() -> None:
    numbers = {name: int(stream) for name, stream in Stream.__members__.items()}
    assert numbers.items() >= {
        "SHUFFLE": 0, "AUGMENT": 1, "STEP": 2, "LABEL_NOISE": 3, "CLUSTER": 4, "EMPTY_CLUSTER": 5, "BALANCE": 6,
        "HEAD": 7, "FEW_SHOT": 0, "HOLD_OUT": 1, "SHOWN": 0, "VERIFIED": 0,
    }.items()  # fmt: skip
    # These were numbered apart from training's before there was one list.
    apart = {"FEW_SHOT", "HOLD_OUT", "SHOWN", "VERIFIED"}
    assert max(Counter(number for name, number in numbers.items() if name not in apart).values()) == 1
    assert max(numbers.values()) < min(generator_key(letter) for letter in "abcdefghijklmnopqrstuvwxyz")
    assert random_stream(5, Stream.STEP, 1).bytes(16) == random_stream(5, 2, 1).bytes(16)


def test_no_module_numbers_a_stream_by_itself() -> None:
    key = r"(?:random_stream\(|uniform_streams\(\()(\w[\w.]*)(?:, (\w[\w.]*))?"
    found = [
        (path.name, match[2])
        for path in (ROOT / "formulavision").rglob("*.py")
        for match in re.finditer(key, path.read_text())
        if match[2] is None or not match[2].startswith(("Stream.", "generator_key"))
    ]
    # A subset of a downstream dataset is numbered by the class; augmentation of one kind and another by a ``Stream``.
    assert sorted(found) == [("loading.py", "stream"), ("opening.py", "numbers")]


def test_integers_of_all_sizes_have_streams_of_their_own() -> None:
    keys = [(1, 2**63), (1, 2**63 + 1), (1, -1), (1, -2), (1, 0, 2**63), (1, 0, 2**63 + 1), (1, 0, -1), (1, 0, -2)]
    assert len({random_stream(*key).bytes(16) for key in keys}) == len(keys)
    with pytest.raises(ValueError, match="up to five integers, not 6"):
        named("discs").stream(1, 2, 3, 4)
