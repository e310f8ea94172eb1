"""The first epoch that reaches an accuracy, by arm."""

from __future__ import annotations

from collections.abc import Sequence

from formulavision.comparison.convergence import Reached, reached
from formulavision.comparison.results import ArmFacts, Entry, Findings, Row


def findings(curves: dict[str, Sequence[Sequence[float | None]]], reach: list[float] | None = None) -> Findings:
    """Arms with a curve a seed each."""
    return Findings(
        name="curves",
        size="full",
        model="resnet18",
        data="on-demand",
        arms={arm: ArmFacts(content=arm, origin="", scratch=False, base=arm) for arm in curves},
        downstreams={"digits": "0"},
        freezes=["none"],
        entries=[
            Entry(
                row=Row(arm, "digits", "none", seed, score=curve[-1] if curve else None),
                history=[{"epoch": i + 1, "validation_accuracy": accuracy} for i, accuracy in enumerate(curve)],
            )
            for arm, runs in curves.items()
            for seed, curve in enumerate(runs)
        ],
        reach=reach,
    )


def epochs(rows: Sequence[Reached]) -> dict[tuple[str, float], float | None]:
    return {(row.arm, row.level): row.epoch for row in rows}


def test_it_is_the_first_epoch_even_where_the_accuracy_falls_again() -> None:
    rows = reached(findings({"one": [[0.2, 0.6, 0.4, 0.7]]}, reach=[0.5, 0.7]))
    assert epochs(rows) == {("one", 0.5): 2, ("one", 0.7): 4}


def test_epochs_without_a_measurement_count() -> None:
    rows = reached(findings({"one": [[None, 0.2, None, 0.7]]}, reach=[0.2, 0.7]))
    assert epochs(rows) == {("one", 0.2): 2, ("one", 0.7): 4}


def test_an_accuracy_that_is_never_reached_has_no_epoch() -> None:
    (row,) = reached(findings({"one": [[0.2, 0.6]]}, reach=[0.9]))
    assert (row.epoch, row.text) == (None, "never")


def test_seeds_are_averaged_and_those_that_never_reach_it_are_told() -> None:
    rows = reached(findings({"one": [[0.5, 0.9], [0.1, 0.5]]}, reach=[0.5, 0.9]))
    assert [row.text for row in rows] == ["1.5", "2 (1 of 2 seeds)"]


def test_levels_are_those_that_two_arms_reach_and_that_tell_them_apart() -> None:
    rows = reached(findings({"fast": [[0.35, 0.55, 0.9]], "slow": [[0.25, 0.45, 0.65]]}))
    assert sorted({row.level for row in rows}) == [0.3, 0.4, 0.5, 0.6]


def test_levels_are_finer_where_tens_are_too_few() -> None:
    rows = reached(findings({"fast": [[0.11, 0.27]], "slow": [[0.11, 0.22]]}))
    assert sorted({row.level for row in rows}) == [0.15, 0.2]


def test_one_arm_alone_has_levels_too() -> None:
    rows = reached(findings({"one": [[0.05, 0.35]]}))
    assert [row.level for row in rows] == [0.1, 0.2, 0.3]


def test_rows_that_have_no_curve_are_left_out() -> None:
    assert {row.arm for row in reached(findings({"one": [[0.05, 0.35]], "pending": [[]]}))} == {"one"}
    assert reached(findings({"pending": [[]]})) == []


def test_a_share_of_labels_is_no_score_to_be_reached() -> None:
    found = findings({"one": [[0.05, 0.35]]})
    for row in found.rows:
        row.metric = "mean average precision"
    assert reached(found) == []
