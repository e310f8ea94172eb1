"""Where a comparison is, for who waits for it."""

from __future__ import annotations

from formulavision.comparison.run import position


def test_the_time_left_is_told_from_the_stages_that_are_finished() -> None:
    assert position(1, 3, 0) == "[1/3]"
    assert position(2, 3, 600) == "[2/3, 10 min so far, about 20 min left]"
    assert position(3, 3, 600) == "[3/3, 10 min so far, about 5 min left]"
    assert position(2, 2, 0) == "[2/2, 0.0 s so far, about 0.0 s left]"
