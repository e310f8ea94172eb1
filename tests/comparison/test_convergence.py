"""The first epoch that reaches an accuracy, by arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from formulavision.comparison.convergence import FirstEpochs
from formulavision.comparison.convergence import first_epochs as first_epochs_of
from formulavision.comparison.results import ArmFacts, Findings, Result
from formulavision.comparison.tables import table_of


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
        results=[
            Result(
                arm,
                "digits",
                "none",
                seed,
                score=curve[-1] if curve else None,
                history=[{"epoch": i + 1, "validation_accuracy": accuracy} for i, accuracy in enumerate(curve)],
            )
            for arm, runs in curves.items()
            for seed, curve in enumerate(runs)
        ],
        reach=reach,
    )


def first_epochs(found: Findings) -> list[FirstEpochs]:
    return first_epochs_of(table_of(found, Path()))


def test_it_is_the_first_epoch_even_where_the_accuracy_falls_again() -> None:
    (table,) = first_epochs(findings({"one": [[0.2, 0.6, 0.4, 0.7]]}, reach=[0.5, 0.7]))
    assert (table.levels, table.epochs) == ([0.5, 0.7], {"one": ["2", "4"]})


def test_epochs_without_a_measurement_count() -> None:
    (table,) = first_epochs(findings({"one": [[None, 0.2, None, 0.7]]}, reach=[0.2, 0.7]))
    assert table.epochs == {"one": ["2", "4"]}


def test_an_accuracy_that_is_never_reached_has_no_epoch() -> None:
    (table,) = first_epochs(findings({"one": [[0.2, 0.6]]}, reach=[0.9]))
    assert table.epochs == {"one": ["never"]}


def test_seeds_are_averaged_and_those_that_never_reach_it_are_told() -> None:
    (table,) = first_epochs(findings({"one": [[0.5, 0.9], [0.1, 0.5]]}, reach=[0.5, 0.9]))
    assert table.epochs == {"one": ["1.5", "2 (1 of 2 seeds)"]}


def test_levels_are_those_that_two_arms_reach_and_that_tell_them_apart() -> None:
    (table,) = first_epochs(findings({"fast": [[0.35, 0.55, 0.9]], "slow": [[0.25, 0.45, 0.65]]}))
    assert table.levels == [0.3, 0.4, 0.5, 0.6]


def test_levels_are_finer_where_tens_are_too_few() -> None:
    (table,) = first_epochs(findings({"fast": [[0.11, 0.27]], "slow": [[0.11, 0.22]]}))
    assert table.levels == [0.15, 0.2]


def test_one_arm_alone_has_levels_too() -> None:
    (table,) = first_epochs(findings({"one": [[0.05, 0.35]]}))
    assert table.levels == [0.1, 0.2, 0.3]


def test_rows_that_have_no_curve_are_left_out() -> None:
    (table,) = first_epochs(findings({"one": [[0.05, 0.35]], "pending": [[]]}))
    assert list(table.epochs) == ["one"]
    assert first_epochs(findings({"pending": [[]]})) == []


def in_steps(found: Findings, interval: int = 50) -> Findings:
    """The same rows in runs of steps, each after so many steps."""
    for result in found.results:
        result.history = [
            {"step": interval * (i + 1), "validation_accuracy": row["validation_accuracy"]}
            for i, row in enumerate(result.history)
        ]
    return found


def test_runs_of_steps_are_counted_in_steps() -> None:
    (table,) = first_epochs(findings({"one": [[0.2, 0.6, 0.7]]}, reach=[0.5]))
    assert (table.unit, table.epochs) == ("epoch", {"one": ["2"]})
    (table,) = first_epochs(in_steps(findings({"one": [[0.2, 0.6, 0.7], [0.6, 0.7, 0.7]]}, reach=[0.5])))
    assert (table.unit, table.epochs) == ("step", {"one": ["75"]})


def test_levels_of_runs_of_steps_tell_arms_apart_too() -> None:
    (table,) = first_epochs(in_steps(findings({"fast": [[0.35, 0.55, 0.9]], "slow": [[0.25, 0.45, 0.65]]})))
    assert table.levels == [0.3, 0.4, 0.5, 0.6]


def test_a_share_of_labels_is_no_score_to_be_reached() -> None:
    found = findings({"one": [[0.05, 0.35]]})
    for row in found.results:
        row.metric = "mean average precision"
    assert first_epochs(found) == []
