"""A difference is more than chance where independent results say so, and each result is counted once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from formulavision.comparison.results import TOP_1, ArmFacts, Findings, Result
from formulavision.comparison.tables import MCNEMAR, T_TEST, Cell, table_of
from formulavision.comparison.wording import explanations
from formulavision.util.errors import ConfigError

Key = tuple[str, str, str, int]
"""Arm, frozen layers, downstream and seed."""


def findings(scores: Mapping[Key, float], mean_average_precision: Iterable[str] = ()) -> Findings:
    """Arms that are measured against the first of them."""
    arms, freezes, downstreams = (list(dict.fromkeys(key[i] for key in scores)) for i in range(3))
    entries = []
    for (arm, freeze, downstream, seed), score in scores.items():
        metric = "mean average precision" if downstream in mean_average_precision else TOP_1
        folder = f"{arm}-{freeze}-{downstream}-{seed}"
        entries.append(Result(arm, downstream, freeze, seed, score=score, metric=metric, folder=folder))
    return Findings(
        name="differences",
        size="full",
        model="resnet18",
        data="on-demand",
        arms={
            arm: ArmFacts(content=arm, origin="", scratch=False, base=arm, baseline=arms[0] if arm != arms[0] else None)
            for arm in arms
        },
        downstreams=dict.fromkeys(downstreams, "0"),
        freezes=freezes,
        results=entries,
    )


def predict(folder: Path, right: Mapping[str, list[bool]]) -> None:
    """Leave which images the model of each folder gets right."""
    for name, images in right.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.savez(folder / name / "predictions.npz", label=np.zeros(len(images)), predicted=~np.array(images))


def against_first(found: Findings, folder: Path = Path()) -> dict[str, Cell]:
    """Cells of the arms that have a baseline, by arm."""
    return {cell.arm: cell for cell in table_of(found, folder).cells.values() if cell.baseline is not None}


def sentences(found: Findings, folder: Path = Path()) -> list[str]:
    """What is said of the tests."""
    words = ("beyond chance", "one seed", "On these test images")
    return [each for each in explanations(table_of(found, folder))[1:] if any(word in each for word in words)]


# Several seeds -------------------------------------------------------------------------------------------------------


def test_seeds_are_paired_and_tested_by_the_t_test() -> None:
    scores = {"a": [0.5, 0.6, 0.55], "b": [0.6, 0.61, 0.7]}
    found = findings({(arm, "none", "x", seed): s for arm, each in scores.items() for seed, s in enumerate(each)})
    cell = against_first(found)["b"]
    assert (cell.method, len(cell.pairs)) == (T_TEST, 3)
    assert cell.difference == pytest.approx(0.26 / 3)
    assert cell.p == pytest.approx(ttest_rel(scores["a"], scores["b"]).pvalue)


def test_p_values_are_corrected_for_the_number_of_cells() -> None:
    gains = {"none": 0.0101, "conv1": 0.0102}
    found = findings(
        {
            (arm, freeze, "x", seed): 0.5 + (gain + seed / 1000 if arm == "b" else 0)
            for arm in ("a", "b")
            for freeze, gain in gains.items()
            for seed in range(3)
        }
    )
    cells = [table_of(found, Path()).cells["b", freeze, "x"] for freeze in gains]
    smallest = min(cell.p or 1 for cell in cells)
    assert min(cell.p_corrected or 1 for cell in cells) == pytest.approx(2 * smallest)


# One seed ------------------------------------------------------------------------------------------------------------


def test_one_seed_is_tested_by_its_images(tmp_path: Path) -> None:
    found = findings({(arm, "none", "x", 0): 0.5 for arm in ("a", "b")})
    predict(tmp_path, {"a-none-x-0": [True] * 9 + [False], "b-none-x-0": [False] * 9 + [True]})
    cell = against_first(found, tmp_path)["b"]
    assert cell.method == MCNEMAR
    assert cell.p == pytest.approx(binomtest(9, 10).pvalue)


def test_one_shared_seed_among_several_is_one_seed(tmp_path: Path) -> None:
    found = findings({("a", "none", "x", s): 0.5 for s in (0, 1)} | {("b", "none", "x", s): 0.5 for s in (1, 2)})
    predict(tmp_path, {f"{arm}-none-x-1": [True] * 5 for arm in ("a", "b")})
    cell = against_first(found, tmp_path)["b"]
    assert (cell.method, len(cell.pairs)) == (MCNEMAR, 1)


def test_without_predictions_or_with_those_of_other_images_there_is_no_test(tmp_path: Path) -> None:
    found = findings({(arm, "none", "x", 0): 0.5 for arm in ("a", "b")})
    assert against_first(found, tmp_path)["b"].method is None
    predict(tmp_path, {"a-none-x-0": [True] * 9, "b-none-x-0": [True] * 8})
    assert against_first(found, tmp_path)["b"].method is None


@pytest.mark.parametrize("damage", ["", "text", "truncated", "other arrays"])
def test_damaged_predictions_are_told_in_one_line(tmp_path: Path, damage: str) -> None:
    found = findings({(arm, "none", "x", 0): 0.5 for arm in ("a", "b")})
    predict(tmp_path, {"a-none-x-0": [True] * 9, "b-none-x-0": [False] * 9})
    file = tmp_path / "b-none-x-0" / "predictions.npz"
    if damage == "other arrays":
        np.savez(file, label=np.zeros(9))
    else:
        file.write_bytes(file.read_bytes()[:200] if damage == "truncated" else damage.encode())
    with pytest.raises(ConfigError, match=r"b-none-x-0.predictions\.npz: is damaged: .*remove its folder first"):
        table_of(found, tmp_path)


def test_a_downstream_of_several_labels_does_not_keep_the_others_from_their_test(tmp_path: Path) -> None:
    found = findings({(arm, "none", d, 0): 0.5 for d in ("scenes", "x") for arm in ("a", "b")}, ["scenes"])
    predict(tmp_path, {"a-none-x-0": [True] * 9, "b-none-x-0": [False] * 9})
    table = table_of(found, tmp_path)
    assert table.cells["b", "none", "scenes"].method is None
    assert table.cells["b", "none", "x"].method == MCNEMAR
    assert any(each.startswith("scenes cannot be tested with one seed") for each in sentences(found, tmp_path))


def test_predictions_that_were_written_anew_are_read_anew(tmp_path: Path) -> None:
    found = findings({(arm, "none", "x", 0): 0.5 for arm in ("a", "b")})
    for images in (4, 9):
        predict(tmp_path, {"a-none-x-0": [True] * images, "b-none-x-0": [False] * images})
        assert against_first(found, tmp_path)["b"].p == pytest.approx(binomtest(images, images).pvalue)


# The table -----------------------------------------------------------------------------------------------------------


def test_the_tables_difference_is_of_the_seeds_that_its_test_is_of() -> None:
    scores = {("scratch", "none", "x", 0): 0.5, ("scratch", "none", "x", 1): 0.6, ("scratch", "none", "x", 2): 0.1}
    found = findings({**scores, ("b", "none", "x", 0): 0.6, ("b", "none", "x", 1): 0.75})
    cell = against_first(found)["b"]
    assert (cell.difference, len(cell.pairs)) == (pytest.approx(0.125), 2)
    assert cell.p == pytest.approx(ttest_rel([0.5, 0.6], [0.6, 0.75]).pvalue)


def test_without_a_shared_seed_there_is_no_difference() -> None:
    found = findings({("scratch", "none", "x", 0): 0.5, ("b", "none", "x", 1): 0.6})
    cell = against_first(found)["b"]
    assert (cell.difference, cell.method, cell.p_corrected) == (None, None, None)


def test_one_seed_marks_nothing_and_says_what_its_test_is_of(tmp_path: Path) -> None:
    found = findings({(arm, "none", "x", 0): 0.5 for arm in ("scratch", "far", "near")})
    predict(tmp_path, {"scratch-none-x-0": [False] * 40, "far-none-x-0": [True] * 40})
    predict(tmp_path, {"near-none-x-0": [False] * 39 + [True]})
    cells = against_first(found, tmp_path)
    assert [(cell.method, cell.significant) for cell in cells.values()] == [(MCNEMAR, False)] * 2
    assert (cells["far"].beyond_chance, cells["near"].beyond_chance) == (True, False)
    first, second = sentences(found, tmp_path)
    assert first.startswith("A difference of one seed is not marked")
    assert "the single trained models of these arms differ: far and scratch (x) (McNemar" in second
    found.results = [result for result in found.results if result.arm != "far"]
    (_, second) = sentences(found, tmp_path)
    assert second.startswith("On these test images, no single trained model differs from its baseline (McNemar")


def test_only_what_has_several_seeds_is_marked_where_others_have_one(tmp_path: Path) -> None:
    scores = {("scratch", "none", "x", s): 0.5 + s / 1000 for s in range(3)}
    scores |= {("many", "none", "x", s): 0.7 + s / 500 for s in range(3)} | {("one", "none", "x", 0): 0.9}
    found = findings(scores)
    predict(tmp_path, {"scratch-none-x-0": [False] * 40, "one-none-x-0": [True] * 40})
    cells = against_first(found, tmp_path)
    assert (cells["many"].significant, cells["one"].significant) == (True, False)
    first, _, third = sentences(found, tmp_path)
    assert first.startswith("* is a difference beyond chance: paired t-test over seeds")
    assert "one and scratch (x)" in third


def test_a_star_is_explained_where_there_is_one() -> None:
    one = {("scratch", "none", "x", s): 0.5 + s / 1000 for s in range(3)}
    far = {("b", "none", "x", s): 0.7 + s / 500 for s in range(3)}
    near = {("b", "none", "x", s): (0.4, 0.5, 0.6)[s] for s in range(3)}
    for scores, beginning in ((far, "* is a difference beyond chance"), (near, "No difference is beyond chance")):
        (sentence,) = sentences(findings({**one, **scores}))
        assert sentence.startswith(beginning)


def test_a_thousand_results_are_compared_in_seconds() -> None:
    random = np.random.default_rng(0)
    freezes = ["none", "conv1", "conv1-2", "conv1-3", "conv1-4", "linear-probe"]
    keys = [(f"arm{i}", f, d, s) for i in range(40) for f in freezes for d in ("x", "y", "z") for s in (0, 1)]
    found = findings({key: random.random() for key in keys})
    assert len(found.results) == 1440
    started = time.process_time()
    assert sum(cell.method == T_TEST for cell in table_of(found, Path()).cells.values()) == 39 * 18
    # Of 4,500 results, scanning all of them for each of the cells took more than a minute.
    assert time.process_time() - started < 3


def test_one_seed_without_predictions_is_not_marked_either() -> None:
    found = findings({("scratch", "none", "x", 0): 0.5, ("b", "none", "x", 0): 0.6})
    (sentence,) = sentences(found)
    assert sentence.startswith("A difference of one seed is not marked")
