"""How long a comparison still takes is told from what its stages took, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from formulavision.comparison.timing import Clock, Job, duration


class Hand:
    """A clock's hand, moved by the test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def job(name: str, kind: str = "finetuning", work: float = 10) -> Job:
    return Job(Path(name), kind, work)


def clock(*jobs: Job) -> tuple[Clock, Hand]:
    hand = Hand()
    result = Clock(hand)
    for one in jobs:
        result.add(one)
    return result, hand


def test_nothing_is_estimated_before_a_stage_of_every_kind_is_done() -> None:
    times, _ = clock(job("a"), job("b"), job("c", "pretraining"))
    assert times.left is None
    times.learn(job("a"), 5)
    times.finish(Path("a"))
    assert times.left is None
    times.learn(job("c", "pretraining", 100), 50)
    assert times.left == pytest.approx(5 + 5)


def test_time_goes_with_the_work() -> None:
    times, _ = clock(job("a", work=10), job("b", work=40))
    times.learn(job("a", work=10), 2)
    times.finish(Path("a"))
    assert times.left == pytest.approx(8)


def test_a_stage_that_several_rows_share_counts_once() -> None:
    times, _ = clock(job("shared"), job("shared"))
    times.learn(job("shared"), 3)
    times.learn(job("shared"), 3)
    assert times.left == pytest.approx(3)
    assert times.position() == "[1/1, about 3 s left]"


def test_a_stage_that_begins_has_its_place_and_the_times() -> None:
    times, hand = clock(job("a"), job("b"), job("c"))
    assert times.position() == "[1/3]"
    hand.seconds = 600
    times.learn(job("a"), 600)
    times.finish(Path("a"))
    assert times.position() == "[2/3, 10 min so far, about 20 min left]"


def test_a_stage_that_failed_tells_nothing_of_the_others() -> None:
    times, _ = clock(job("a"), job("b"))
    times.finish(Path("a"))
    assert times.left is None
    assert times.position() == "[2/2, 0 s so far]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (3599, "1 h 00 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
