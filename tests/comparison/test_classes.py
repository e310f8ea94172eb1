"""The classes on which an arm differs from its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import formulavision.evaluation
from formulavision.comparison.classes import by_class
from formulavision.comparison.results import ArmFacts, Entry, Findings, Row
from formulavision.errors import ConfigError


def findings(arms: Mapping[str, str | None], seeds: int = 1) -> Findings:
    """Arms by name, each with its baseline."""
    return Findings(
        name="classes",
        size="full",
        model="resnet18",
        data="on-demand",
        arms={a: ArmFacts(content=a, origin="", scratch=False, base=a, baseline=b) for a, b in arms.items()},
        downstreams={"digits": "0"},
        freezes=["none", "conv1"],
        entries=[
            Entry(row=Row(arm, "digits", freeze, seed, score=0.5), folder=f"{arm}-{freeze}-{seed}")
            for arm in arms
            for freeze in ("none", "conv1")
            for seed in range(seeds)
        ],
    )


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], list[tuple[str, float, float]]]]:
    """What two folders' models do on each class, to be filled."""
    content: dict[tuple[str, str], list[tuple[str, float, float]]] = {}

    def compare(first: Path, second: Path) -> list[SimpleNamespace]:
        if (first.name, second.name) not in content:
            raise ConfigError(f"{first.name}: holds no evaluation")
        return [SimpleNamespace(name=n, first=a, second=b) for n, a, b in content[first.name, second.name]]

    monkeypatch.setattr(formulavision.evaluation, "per_class_difference", compare, raising=False)
    yield content


Differences = dict[tuple[str, str], list[tuple[str, float, float]]]


def test_better_and_worse_classes_come_the_greatest_difference_first(differences: Differences) -> None:
    differences["new-none-0", "old-none-0"] = [("a", 0.6, 0.5), ("b", 0.9, 0.1), ("c", 0.2, 0.9), ("d", 0.5, 0.5)]
    (classes,) = by_class(findings({"old": None, "new": "old"}), Path(), ["old", "new"])
    assert (classes.arm, classes.baseline, classes.freeze) == ("new", "old", "none")
    assert [line.name for line in classes.better] == ["b", "a"]
    assert [line.name for line in classes.worse] == ["c"]


def test_seeds_are_paired_and_averaged(differences: Differences) -> None:
    differences["new-none-0", "old-none-0"] = [("a", 0.6, 0.5)]
    differences["new-none-1", "old-none-1"] = [("a", 1.0, 0.5)]
    (classes,) = by_class(findings({"old": None, "new": "old"}, seeds=2), Path(), ["new"])
    assert [(line.arm, line.baseline) for line in classes.better] == [(pytest.approx(0.8), 0.5)]


def test_there_are_ten_each_way_at_most(differences: Differences) -> None:
    differences["new-none-0", "old-none-0"] = [(str(i), i / 40, 0.5) for i in range(41)]
    (classes,) = by_class(findings({"old": None, "new": "old"}), Path(), ["new"])
    assert [line.name for line in classes.better] == [str(i) for i in range(40, 30, -1)]
    assert [line.name for line in classes.worse] == [str(i) for i in range(10)]


def test_runs_that_are_not_at_hand_say_so_in_a_line(differences: Differences) -> None:
    (classes,) = by_class(findings({"old": None, "new": "old"}), Path(), ["new"])
    assert classes.problem == "new-none-0: holds no evaluation"
