"""The classes on which an arm differs from its baseline."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

import formulavision.evaluation
from formulavision.comparison.classes import ByClass, classes_csv
from formulavision.comparison.classes import by_class as by_class_of
from formulavision.comparison.results import ArmFacts, Findings, Result
from formulavision.comparison.tables import table_of
from formulavision.evaluation import ClassDifference
from formulavision.util.errors import ConfigError


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
        results=[
            Result(arm, "digits", freeze, seed, score=0.5, folder=f"{arm}-{freeze}-{seed}")
            for arm in arms
            for freeze in ("none", "conv1")
            for seed in range(seeds)
        ],
    )


@pytest.fixture
def differences(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], list[tuple[str, float, float]]]]:
    """What two folders' models do on each class, to be filled."""
    content: dict[tuple[str, str], list[tuple[str, float, float]]] = {}

    def compare(first: Path, second: Path) -> list[ClassDifference]:
        if (first.name, second.name) not in content:
            raise ConfigError(f"{first.name}: holds no evaluation")
        return [ClassDifference(n, 10, a, b, a - b, 0.25) for n, a, b in content[first.name, second.name]]

    monkeypatch.setattr(formulavision.evaluation, "per_class_difference", compare, raising=False)
    yield content


Differences = dict[tuple[str, str], list[tuple[str, float, float]]]


def by_class(found: Findings, folder: Path, arms: list[str]) -> list[ByClass]:
    return by_class_of(table_of(found, folder), folder, arms)


def test_better_and_worse_classes_come_the_greatest_difference_first(differences: Differences) -> None:
    differences["new-none-0", "old-none-0"] = [("a", 0.6, 0.5), ("b", 0.9, 0.1), ("c", 0.2, 0.9), ("d", 0.5, 0.5)]
    (classes,) = by_class(findings({"old": None, "new": "old"}), Path(), ["old", "new"])
    assert (classes.cell.arm, classes.cell.baseline, classes.cell.freeze) == ("new", "old", "none")
    assert [line.name for line in classes.better] == ["b", "a"]
    assert [line.name for line in classes.worse] == ["c"]


def test_seeds_are_paired_and_averaged(differences: Differences) -> None:
    differences["new-none-0", "old-none-0"] = [("a", 0.6, 0.5)]
    differences["new-none-1", "old-none-1"] = [("a", 1.0, 0.5)]
    (classes,) = by_class(findings({"old": None, "new": "old"}, seeds=2), Path(), ["new"])
    assert [(line.first, line.second) for line in classes.better] == [(pytest.approx(0.8), 0.5)]


def test_the_p_value_of_one_seed_is_that_of_its_images_and_of_several_that_over_seeds(
    differences: Differences,
) -> None:
    differences["new-none-0", "old-none-0"] = [("a", 0.6, 0.5)]
    differences["new-none-1", "old-none-1"] = [("a", 0.9, 0.5)]
    (one,), (two,) = (by_class(findings({"old": None, "new": "old"}, seeds=n), Path(), ["new"]) for n in (1, 2))
    assert one.classes[0].p == 0.25
    assert two.classes[0].p == pytest.approx(ttest_rel([0.6, 0.9], [0.5, 0.5]).pvalue)


def test_models_are_compared_with_the_fewest_layers_frozen_whatever_the_order_in_the_file(
    differences: Differences,
) -> None:
    found = findings({"old": None, "new": "old"})
    found.freezes = ["conv1", "none"]
    (classes,) = by_class(found, Path(), ["new"])
    assert classes.cell.freeze == "none"


def test_the_csv_has_every_class(differences: Differences) -> None:
    differences["new-none-0", "old-none-0"] = [(f"class, {i}", i / 40, 0.5) for i in range(41)]
    rows = list(
        csv.DictReader(io.StringIO(classes_csv(by_class(findings({"old": None, "new": "old"}), Path(), ["new"]))))
    )
    assert len(rows) == 41
    assert rows[0] == {
        "arm": "new",
        "baseline": "old",
        "downstream": "digits",
        "frozen": "none",
        "class": "class, 40",
        "score": "1",
        "baseline_score": "0.5",
        "difference": "0.5",
        "p": "0.25",
    }


def test_runs_that_are_not_at_hand_say_so_in_a_line(differences: Differences) -> None:
    (classes,) = by_class(findings({"old": None, "new": "old"}), Path(), ["new"])
    assert classes.problem == "new-none-0: holds no evaluation"


def test_classes_of_other_images_than_the_tables_are_not_shown(tmp_path: Path, differences: Differences) -> None:
    """Both models were evaluated again, on the same other images."""
    differences["new-none-0", "old-none-0"] = [("a", 0.6, 0.5)]
    for arm, score in (("new", 0.5), ("old", 0.4)):
        (tmp_path / f"{arm}-none-0").mkdir()
        file = tmp_path / f"{arm}-none-0" / "evaluation.json"
        file.write_text(f'{{"downstream": {{"test_digest": "other"}}, "score": {score}}}')
    (classes,) = by_class(findings({"old": None, "new": "old"}), tmp_path, ["new"])
    assert not classes.classes
    assert classes.problem == "new-none-0, old-none-0: were evaluated again, on other images"
