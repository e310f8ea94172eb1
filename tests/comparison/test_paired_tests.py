"""A difference is more than chance where independent results say so, and each result is counted once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from formulavision.comparison.differences import Difference, between_arms, from_baseline, right_images, star
from formulavision.comparison.results import TOP_1, ArmFacts, Entry, Findings, Row, table

Key = tuple[str, str, str, int]
"""Arm, frozen layers, downstream and seed."""


def findings(scores: Mapping[Key, float], mean_average_precision: Iterable[str] = ()) -> Findings:
    """Arms that are measured against the first of them."""
    arms, freezes, downstreams = (list(dict.fromkeys(key[i] for key in scores)) for i in range(3))
    entries = []
    for (arm, freeze, downstream, seed), score in scores.items():
        metric = "mean average precision" if downstream in mean_average_precision else TOP_1
        folder = f"{arm}-{freeze}-{downstream}-{seed}"
        entries.append(Entry(row=Row(arm, downstream, freeze, seed, score=score, metric=metric), folder=folder))
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
        entries=entries,
    )


def predict(folder: Path, right: Mapping[str, list[bool]]) -> None:
    """Leave which images the model of each folder gets right."""
    for name, images in right.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        np.savez(folder / name / "predictions.npz", label=np.zeros(len(images)), predicted=~np.array(images))


def only(differences: list[Difference]) -> Difference:
    (difference,) = differences
    return difference


# Several seeds -------------------------------------------------------------------------------------------------------


def test_a_seed_is_one_pair_however_many_places_it_has() -> None:
    places = [(freeze, downstream) for freeze in ("none", "conv1", "conv1-2") for downstream in ("x", "y")]
    gains = {0: 0.10, 1: 0.01}
    found = findings(
        {
            (arm, *place, seed): 0.5 + i / 100 + (gains[seed] if arm == "b" else 0)
            for arm in ("a", "b")
            for i, place in enumerate(places)
            for seed in gains
        }
    )
    difference = only(between_arms(found, Path()))
    assert (difference.pairs, difference.method) == (2, "paired t-test")
    assert difference.difference == pytest.approx(-0.055)
    assert difference.p == pytest.approx(ttest_rel([0.0, 0.0], [0.10, 0.01]).pvalue)


def test_a_pretraining_that_all_places_share_is_not_taken_for_a_difference_of_arms() -> None:
    random = np.random.default_rng(0)
    tests, alarms = 300, 0
    for _ in range(tests):
        scores = {}
        for arm in ("a", "b"):
            for seed in (0, 1):
                pretraining = random.normal(0, 0.02)
                for freeze in ("none", "conv1", "conv1-2", "conv1-3", "conv1-4", "conv1-5"):
                    for downstream in ("x", "y"):
                        scores[arm, freeze, downstream, seed] = 0.5 + pretraining + random.normal(0, 0.005)
        alarms += only(between_arms(findings(scores), Path())).significant
    assert alarms / tests < 0.09


def test_places_that_lack_one_of_the_seeds_are_left_out() -> None:
    scores = {(arm, "none", "x", seed): 0.5 + seed / 10 for arm in ("a", "b") for seed in (0, 1, 2)}
    scores |= {("a", "none", "y", 0): 0.1, ("b", "none", "y", 0): 0.9}
    difference = only(between_arms(findings(scores), Path()))
    assert (difference.pairs, difference.difference) == (3, 0.0)


def test_probes_are_left_out_where_models_are_fine_tuned() -> None:
    tuned = {(arm, "none", "x", seed): 0.5 for arm in ("a", "b") for seed in (0, 1)}
    probed = {(arm, "linear-probe", "x", seed): 0.2 if arm == "a" else 0.4 for arm in ("a", "b") for seed in (0, 1)}
    assert only(between_arms(findings({**tuned, **probed}), Path())).difference == 0
    assert only(between_arms(findings(probed), Path())).difference == pytest.approx(-0.2)


# One seed ------------------------------------------------------------------------------------------------------------


def test_each_image_counts_once_whichever_layers_were_frozen(tmp_path: Path) -> None:
    found = findings({(arm, f, "x", 0): 0.5 for f in ("conv1-3", "none", "conv1") for arm in ("a", "b")})
    for freeze in found.freezes:
        predict(tmp_path, {f"a-{freeze}-x-0": [True] * 9 + [False], f"b-{freeze}-x-0": [False] * 9 + [True]})
    difference = only(between_arms(found, tmp_path))
    assert (difference.freeze, difference.pairs) == ("none", 10)
    assert difference.p == pytest.approx(binomtest(9, 10).pvalue)


def test_one_shared_seed_among_several_is_one_seed(tmp_path: Path) -> None:
    scores = {("a", f, "x", s): 0.5 for f in ("none", "conv1") for s in (0, 1)}
    found = findings({**scores, **{("b", f, "x", s): 0.5 for f in ("none", "conv1") for s in (1, 2)}})
    predict(tmp_path, {f"{arm}-none-x-1": [True] * 5 for arm in ("a", "b")})
    difference = only(between_arms(found, tmp_path))
    assert (difference.method, difference.pairs) == ("McNemar's exact test", 5)


def test_each_downstream_has_a_difference_and_a_test_of_its_own(tmp_path: Path) -> None:
    # Few images where a is far better, many where b is a little better.
    found = findings(
        {("a", "none", "x", 0): 1.0, ("b", "none", "x", 0): 0.0}
        | {("a", "none", "y", 0): 0.5, ("b", "none", "y", 0): 0.6}
    )
    predict(tmp_path, {"a-none-x-0": [True] * 4, "b-none-x-0": [False] * 4})
    predict(tmp_path, {"a-none-y-0": [True] * 50 + [False] * 50, "b-none-y-0": [True] * 60 + [False] * 40})
    x, y = between_arms(found, tmp_path)
    assert (x.downstream, x.difference, x.pairs) == ("x", 1.0, 4)
    assert (y.downstream, y.difference, y.pairs) == ("y", pytest.approx(-0.1), 100)
    assert y.p is not None and x.p is not None and y.p < 0.05 < x.p


def test_a_downstream_of_several_labels_does_not_keep_the_others_from_their_test(tmp_path: Path) -> None:
    found = findings({(arm, "none", d, 0): 0.5 for d in ("scenes", "x") for arm in ("a", "b")}, ["scenes"])
    predict(tmp_path, {"a-none-x-0": [True] * 9, "b-none-x-0": [False] * 9})
    scenes, x = between_arms(found, tmp_path)
    assert (scenes.method, x.method) == (None, "McNemar's exact test")
    assert any(sentence.startswith("scenes cannot be tested with one seed") for sentence in star(found, [scenes, x]))


def test_predictions_that_were_written_anew_are_read_anew(tmp_path: Path) -> None:
    predict(tmp_path, {"a": [True, False]})
    assert right_images(tmp_path / "a").tolist() == [True, False]  # type: ignore[union-attr]
    predict(tmp_path, {"a": [True, False, True]})
    assert right_images(tmp_path / "a").tolist() == [True, False, True]  # type: ignore[union-attr]


# The table -----------------------------------------------------------------------------------------------------------


def test_the_tables_difference_is_of_the_seeds_that_its_test_is_of() -> None:
    scores = {("scratch", "none", "x", 0): 0.5, ("scratch", "none", "x", 1): 0.6, ("scratch", "none", "x", 2): 0.1}
    found = findings({**scores, ("b", "none", "x", 0): 0.6, ("b", "none", "x", 1): 0.75})
    cell = table(found)[1].cells["x"]
    test = from_baseline(found, Path())["b", "none", "x"]
    assert (cell.difference, cell.pairs) == (pytest.approx(0.125), 2)
    assert (test.difference, test.pairs) == (pytest.approx(0.125), 2)


def test_without_a_shared_seed_there_is_no_difference() -> None:
    found = findings({("scratch", "none", "x", 0): 0.5, ("b", "none", "x", 1): 0.6})
    assert table(found)[1].cells["x"].difference is None
    assert from_baseline(found, Path()) == {}


def test_one_seed_marks_nothing_and_says_what_its_test_is_of(tmp_path: Path) -> None:
    scores = {(arm, "none", "x", 0): 0.5 for arm in ("scratch", "far", "near")}
    found = findings(scores)
    predict(tmp_path, {"scratch-none-x-0": [False] * 40, "far-none-x-0": [True] * 40})
    predict(tmp_path, {"near-none-x-0": [False] * 39 + [True]})
    tests = list(from_baseline(found, tmp_path).values())
    assert [(test.method, test.significant) for test in tests] == [("McNemar's exact test", False)] * 2
    assert [test.beyond_chance for test in tests] == [True, False]
    for differences in (tests, between_arms(found, tmp_path)):
        assert not any(difference.significant for difference in differences)
        first, second = star(found, differences)
        assert first.startswith("A difference of one seed is not marked")
        assert "far (x)" in second or "far and scratch (x)" in second
    (_, second) = star(found, [test for test in tests if test.arm == "near"])
    assert second.startswith("On these test images, no two of the single trained models differ (McNemar")


def test_only_what_has_several_seeds_is_marked_where_others_have_one(tmp_path: Path) -> None:
    scores = {("scratch", "none", "x", s): 0.5 + s / 1000 for s in range(3)}
    scores |= {("many", "none", "x", s): 0.7 + s / 500 for s in range(3)} | {("one", "none", "x", 0): 0.9}
    found = findings(scores)
    predict(tmp_path, {"scratch-none-x-0": [False] * 40, "one-none-x-0": [True] * 40})
    tests = {test.arm: test for test in from_baseline(found, tmp_path).values()}
    assert (tests["many"].significant, tests["one"].significant) == (True, False)
    sentences = star(found, list(tests.values()))
    assert sentences[0].startswith("* is a difference beyond chance: paired t-test over seeds")
    assert "one and scratch (x)" in sentences[2]


def test_a_star_is_explained_where_there_is_one() -> None:
    one = {("scratch", "none", "x", s): 0.5 + s / 1000 for s in range(3)}
    far = {("b", "none", "x", s): 0.7 + s / 500 for s in range(3)}
    near = {("b", "none", "x", s): (0.4, 0.5, 0.6)[s] for s in range(3)}
    for scores, beginning in ((far, "* is a difference beyond chance"), (near, "No difference is beyond chance")):
        found = findings({**one, **scores})
        (sentence,) = star(found, list(from_baseline(found, Path()).values()))
        assert sentence.startswith(beginning)


def test_thousands_of_rows_are_compared_in_about_a_second() -> None:
    random = np.random.default_rng(0)
    freezes = ["none", "conv1", "conv1-2", "conv1-3", "conv1-4", "linear-probe"]
    keys = [(f"arm{i}", f, d, s) for i in range(125) for f in freezes for d in ("x", "y", "z") for s in (0, 1)]
    found = findings({key: random.random() for key in keys})
    assert len(found.entries) == 4500
    started = time.process_time()
    assert len(between_arms(found, Path())) == 125 * 124 / 2
    assert len(from_baseline(found, Path())) == 124 * 18
    # It takes one; scanning all rows for each of the cells took more than a minute.
    assert time.process_time() - started < 6
