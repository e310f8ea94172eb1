"""The summary says in sentences what the numbers allow, and not more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from formulavision.comparison.printing import print_table, to_markdown
from formulavision.comparison.results import ArmFacts, Findings, Result
from formulavision.comparison.summary import summary
from formulavision.comparison.tables import table_of

TOP_1 = "top-1 accuracy"
MAP = "mean average precision"
RECIPE = {"generator": {"name": "ifs"}, "categories": {"count": 48}, "instances": 50}
ORIGINS = {"real": "500 images of 10 classes of cifar10", "imagenet": "checkpoint timm:resnet18"}

Scores = Mapping[str, Sequence[float | None]]


def findings(
    scores: Scores,
    *,
    baseline: str | None = "scratch",
    downstream: str = "digits",
    freeze: str = "none",
    metric: str = TOP_1,
    curves: dict[str, list[float]] | None = None,
    facts: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> Findings:
    """Arms with a score a seed. Arms other than scratch, real and imagenet are pre-trained on formulas."""
    arms = {
        arm: ArmFacts(
            **{
                "content": arm,
                "origin": ORIGINS.get(arm, "a formula"),
                "scratch": arm.startswith("scratch"),
                "base": arm,
                "baseline": baseline if arm != baseline and baseline in scores else None,
                "recipe": None if arm in ORIGINS or arm.startswith("scratch") else RECIPE,
                **(facts or {}).get(arm, {}),
            }
        )
        for arm in scores
    }
    results = [
        Result(
            arm,
            downstream,
            freeze,
            seed,
            score=score,
            metric=None if score is None else metric,
            history=[
                {"epoch": i, "validation_accuracy": a} for i, a in enumerate((curves or {}).get(arm, []), start=1)
            ],
        )
        for arm, values in scores.items()
        for seed, score in enumerate(values)
    ]
    content = {"name": "a table", "size": "full", "model": "resnet18", "data": "on-demand", "arms": arms,
               "downstreams": {downstream: "0"}, "freezes": [freeze], "results": results}  # fmt: skip
    return Findings.model_validate({**content, **more})


def joined(first: Findings, *others: Findings) -> Findings:
    """Findings with further results, downstreams and frozen layers."""
    return first.model_copy(
        update={
            "results": [result for each in (first, *others) for result in each.results],
            "downstreams": {name: "0" for each in (first, *others) for name in each.downstreams},
            "freezes": list(dict.fromkeys(freeze for each in (first, *others) for freeze in each.freezes)),
        }
    )


def told(found: Findings) -> dict[str, list[str]]:
    return summary(table_of(found, Path("/nowhere")))


def result(found: Findings) -> str:
    return "\n".join(told(found)["Result"])


def certainty(found: Findings) -> str:
    return "\n".join(told(found).get("Certainty", []))


SCRATCH = [0.76, 0.78, 0.81]


# What came out -------------------------------------------------------------------------------------------------------


def test_a_gain_beyond_chance_is_told_with_its_size_and_its_test() -> None:
    assert result(findings({"scratch": SCRATCH, "ifs": [0.82, 0.83, 0.855]})) == (
        "Does pre-training on formulas help on digits? Yes. Pre-training on ifs raises top-1 accuracy on digits by 5.2 "
        "points (scratch 78.3 ± 2.5, ifs 83.5 ± 1.8; 3 seeds; paired t-test, p = 0.0072)."
    )


def test_a_loss_beyond_chance_is_told_likewise() -> None:
    text = result(findings({"scratch": SCRATCH, "ifs": [0.70, 0.72, 0.745]}))
    assert text.startswith(
        "Does pre-training on formulas help on digits? No. Pre-training on ifs lowers top-1 accuracy"
    )


def test_what_several_seeds_cannot_tell_apart_has_the_range_of_the_difference() -> None:
    text = result(findings({"scratch": SCRATCH, "ifs": [0.78, 0.77, 0.82]}))
    assert text == (
        "Does pre-training on formulas help on digits? No effect is shown with 3 seeds. ifs and scratch cannot be told "
        "apart by top-1 accuracy on digits (scratch 78.3 ± 2.5, ifs 79.0 ± 2.6): the difference of +0.7 points can be "
        "chance (3 seeds, p = 0.53; 95 % interval −3.1 to +4.5)."
    )


def test_a_large_difference_of_two_seeds_is_not_called_small() -> None:
    text = result(findings({"scratch": [0.5, 0.5], "ifs": [0.6, 0.8]}))
    assert text.endswith(
        "cannot be told apart by top-1 accuracy on digits (scratch 50.0 ± 0.0, ifs 70.0 ± 14.1): the "
        "difference of +20.0 points can be chance (2 seeds, p = 0.30)."
    )


def test_one_seed_is_told_without_a_verdict() -> None:
    found = findings({"scratch": [0.783], "ifs": [0.834], "perlin": [0.7]})
    assert result(found) == (
        "Does pre-training on formulas help on digits? One seed cannot tell. ifs has 5.1 points more top-1 accuracy on "
        "digits than scratch (scratch 78.3, ifs 83.4), with one seed. Of one seed, too: perlin (−8.3 points)."
    )
    assert certainty(found).startswith("With one seed it cannot be said how much other seeds differ")
    assert "ifs has 8.3 points less top-1" in result(findings({"scratch": [0.783], "ifs": [0.7]}))


def test_equal_scores_are_called_equal() -> None:
    assert "ifs and scratch have the same top-1 accuracy on digits" in result(
        findings({"scratch": [0.5], "ifs": [0.5]})
    )
    close = findings({"scratch": [0.5500], "ifs": [0.5503]})
    assert "ifs and scratch differ by less than 0.05 points of top-1 accuracy on digits" in result(close)
    same = result(findings({"scratch": [0.5, 0.6], "ifs": [0.52, 0.62]}))
    assert "the difference of +2.0 points is the same for both seeds, and no test applies to that" in same


def test_several_arms_are_told_by_what_their_tests_say() -> None:
    scores: Scores = {
        "scratch": [0.50, 0.51, 0.52, 0.50],
        "low": [0.40, 0.412, 0.42, 0.401],
        "best": [0.80, 0.81, 0.822, 0.80],
        "good": [0.70, 0.71, 0.72, 0.701],
        "same": [0.50, 0.53, 0.49, 0.52],
    }
    text = result(findings(scores))
    assert text.startswith(
        "Does pre-training on formulas help on digits? Yes, with best and good. Pre-training on best raises "
    )
    assert "Higher beyond chance: good (+20.0 points, p < 0.001)." in text
    assert "Lower beyond chance: low (−9.9 points, p < 0.001)." in text
    assert "Not beyond chance: same (+0.3 points, p = 0.85)." in text
    sure = certainty(findings(scores))
    assert "p < 0.05 in the paired t-test over seeds after Holm's correction for 4 tests" in sure
    assert "Arms are tested against their baseline, not against each other." in sure


def test_a_difference_that_only_holms_correction_rejects_is_told_so() -> None:
    scores: Scores = {
        "scratch": [0.50, 0.52, 0.51],
        "ifs": [0.53, 0.56, 0.535],
        **{f"arm{i}": [0.5, 0.53, 0.5] for i in range(4)},
    }
    text = result(findings(scores))
    assert "No effect is shown with 3 seeds. ifs and scratch cannot be told apart" in text
    assert "the difference of +3.2 points is not beyond chance after Holm's correction (p = 0.094)" in text


def test_the_best_mean_is_not_the_headline_if_another_gain_is_sure() -> None:
    text = result(findings({"scratch": [0.5, 0.51, 0.5], "wild": [0.5, 0.99, 0.6], "sure": [0.55, 0.56, 0.551]}))
    assert "Yes, with sure. Pre-training on sure raises" in text
    assert "Not beyond chance: wild (+19.3 points" in text


def test_losses_and_no_gain_are_answered_with_no() -> None:
    text = result(findings({"scratch": [0.5, 0.51, 0.5], "low": [0.4, 0.41, 0.401], "same": [0.5, 0.5, 0.51]}))
    assert "help on digits? No: no gain is shown." in text


def test_without_a_baseline_there_are_only_scores() -> None:
    assert result(findings({"ifs": [0.7, 0.8], "perlin": [0.9, 0.9]})) == (
        "Top-1 accuracy on digits: perlin 90.0 ± 0.0, ifs 75.0 ± 7.1. No arm is the baseline (training from scratch, "
        "or 'against'), so no difference is tested."
    )
    assert result(findings({"ifs": [0.7]})).endswith("There is no other arm to compare with.")


@pytest.mark.parametrize(("error", "count"), [("out of ink", "1 failed"), (None, "1 not computed yet")])
def test_a_baseline_without_a_result_is_told(error: str | None, count: str) -> None:
    found = findings({"scratch": [None], "ifs": [0.7]})
    found.results[0].error = error
    assert result(found).endswith("There is no result of scratch to compare with.")
    assert f"1 of 2 results are missing here ({count})." in certainty(found)


def test_arms_without_a_result_yet_are_told() -> None:
    found = findings({"scratch": [0.7], "ifs": [None], "perlin": [None]})
    assert result(found).endswith("There is no result of ifs and perlin yet.")


@pytest.mark.parametrize(
    ("accuracy", "little"), [(0.05, True), (0.0624, True), (0.0626, False), (0.5, False), (None, False)]
)
def test_pre_training_that_learned_little_is_told(accuracy: float | None, little: bool) -> None:
    found = findings({"scratch": [0.7, 0.6], "ifs": [0.7, 0.6]})
    for each in found.results:
        each.pretrain_accuracy = accuracy if each.arm == "ifs" else None
    assert ("it has learned little" in certainty(found)) is little  # chance of 48 categories: 2.1 %
    if accuracy == 0.05:
        assert "on ifs ended with 5.0 % of its training images classified, and chance is 2.1 %:" in certainty(found)


@pytest.mark.parametrize(
    ("categories", "accuracy", "little"),
    [(2, 1.0, False), (2, 0.74, True), (3, 0.7, False), (4, 0.6, True), (4, 0.7, False)],
)
def test_few_categories_are_learned_when_most_images_are_told_apart(
    categories: int, accuracy: float, little: bool
) -> None:
    recipe = {**RECIPE, "categories": {"count": categories}}
    found = findings({"scratch": [0.7, 0.6], "ifs": [0.7, 0.6]}, facts={"ifs": {"recipe": recipe}})
    for each in found.results:
        each.pretrain_accuracy = accuracy if each.arm == "ifs" else None
    assert ("it has learned little" in certainty(found)) is little


def test_chance_of_clusters_is_that_of_a_cluster() -> None:
    found = findings({"scratch": [0.7, 0.6], "ifs": [0.7, 0.6]}, facts={"ifs": {"clusters": 480}})
    for accuracy, little in ((0.005, True), (0.05, False)):
        for each in found.results:
            each.pretrain_accuracy = accuracy if each.arm == "ifs" else None
        assert ("and chance is 0.2 %: it has learned little" in certainty(found)) is little


def test_arms_that_learned_little_share_a_sentence() -> None:
    found = findings({arm: [0.7, 0.6] for arm in ("scratch", "low", "high", "other")})
    for each in found.results:
        if each.arm != "scratch":
            each.pretrain_accuracy = 0.04 if each.arm == "other" else 0.05
    assert (
        "Pre-training ended with 5.0 % (low, high) and 4.0 % (other) of its training images classified, and chance is "
        "2.1 %: it has learned little, and longer"
    ) in certainty(found)
    for each in found.results:
        each.pretrain_accuracy = 0.05 if each.arm in ("low", "high") else None
    assert "Pre-training on low and high ended with 5.0 % of its training images" in certainty(found)


def test_each_chance_has_its_sentence() -> None:
    recipe = {**RECIPE, "categories": {"count": 4}}
    found = findings({"scratch": [0.7], "many": [0.7], "four": [0.7]}, facts={"four": {"recipe": recipe}})
    for each in found.results:
        each.pretrain_accuracy = {"many": 0.05, "four": 0.3}.get(each.arm)
    told = certainty(found)
    assert "Pre-training on many ended with 5.0 % of its training images classified, and chance is 2.1 %:" in told
    assert "Pre-training on four ended with 30.0 % of its training images classified, and chance is 25.0 %:" in told


def test_nothing_yet_is_told() -> None:
    found = findings({"scratch": [None], "ifs": [None]})
    assert result(found) == "There is no result on digits yet."
    assert "Cost" not in told(found)


def test_another_baseline_is_named() -> None:
    text = result(
        findings({"scratch": SCRATCH, "real": [0.86, 0.88, 0.91], "ifs": [0.82, 0.83, 0.855]}, baseline="real")
    )
    assert "Does pre-training" not in text
    assert "ifs in place of real lowers top-1 accuracy on digits by 4.8 points" in text
    assert "Lower beyond chance: scratch (−10.0 points" in text or "Not beyond chance: scratch" in text


def test_a_checkpoint_is_started_from() -> None:
    found = findings({"scratch": SCRATCH, "imagenet": [0.86, 0.88, 0.905]})
    assert result(found).startswith("Starting from imagenet raises top-1 accuracy")
    assert "The pre-training of checkpoints is not counted." not in certainty(found)
    assert told(found)["Cost"] == ["The pre-training of checkpoints is not counted."]


def test_each_downstream_has_a_paragraph() -> None:
    scores: Scores = {"scratch": SCRATCH, "ifs": [0.82, 0.83, 0.855]}
    several = joined(findings(scores), findings(scores, downstream="voc", metric=MAP))
    first, second = told(several)["Result"]
    assert "help on digits? Yes." in first
    assert "raises mean average precision on voc by 5.2 points" in second


def test_mean_average_precision_of_one_seed_is_told() -> None:
    text = result(
        findings({"scratch": [0.5], "ifs": [0.6]}, metric=MAP, curves={"scratch": [0.1, 0.5], "ifs": [0.5, 0.6]})
    )
    assert "ifs has 10.0 points more mean average precision on digits than scratch" in text
    assert "final accuracy" not in text


def test_probes_alone_are_told() -> None:
    found = findings({"scratch": SCRATCH, "ifs": [0.82, 0.83, 0.855]}, freeze="linear-probe")
    assert "Pre-training on ifs raises top-1 accuracy of a linear probe on digits by 5.2 points" in result(found)
    assert told(found)["Compared"][0] == (
        "resnet18 was evaluated with frozen features by a linear probe on digits, starting from random weights "
        "(scratch) and weights pre-trained on images that formulas draw (ifs); 3 seeds."
    )


def test_fine_tuning_comes_first_then_probes_and_other_layers_are_in_the_table() -> None:
    scores: Scores = {"scratch": SCRATCH, "ifs": [0.82, 0.83, 0.855]}
    found = joined(*(findings(scores, freeze=freeze) for freeze in ("knn-probe", "conv1-3", "none")))
    tuned, probed, rest = told(found)["Result"]
    assert "raises top-1 accuracy on digits" in tuned and "raises top-1 accuracy of nearest neighbours" in probed
    assert (tuned.count("Does pre-training"), probed.count("Does pre-training")) == (1, 0)
    assert "conv1-3" not in tuned + probed
    assert rest == "The table has the results with other frozen layers, too."
    assert "fine-tuned and evaluated with frozen features by nearest neighbours on digits" in told(found)["Compared"][0]


def test_a_downstream_of_which_only_frozen_layers_have_results_is_told() -> None:
    scores: Scores = {"scratch": SCRATCH, "ifs": [0.82, 0.83, 0.855]}
    pending: Scores = {"scratch": [None] * 3, "ifs": [None] * 3}
    birds = [findings(s, freeze=f, downstream="birds") for s, f in ((pending, "none"), (scores, "conv1-3"))]
    tuned, frozen, _ = told(joined(findings(scores), *birds))["Result"]
    assert "on digits" in tuned and "only frozen layers" not in tuned
    assert frozen.startswith("On birds only frozen layers have results; these are of conv1-3. Does pre-training")
    nothing = told(joined(findings(scores), birds[0], findings(pending, freeze="conv1-3", downstream="birds")))
    assert nothing["Result"][1] == "There is no result on birds yet."


def test_seeds_that_both_have_are_counted() -> None:
    text = result(findings({"scratch": [0.76, 0.78, 0.81, None], "ifs": [0.82, 0.83, 0.855, 0.9]}))
    assert "3 seeds; paired t-test" in text
    # The fourth score of ifs is no part of the difference, nor of these means.
    assert "(scratch 78.3 ± 2.5, ifs 83.5 ± 1.8;" in text


def test_one_seed_beside_several_is_told() -> None:
    sure = certainty(findings({"scratch": SCRATCH, "ifs": [0.82, 0.83, 0.855], "late": [0.8]}))
    assert "Differences of one seed are not tested" in sure and "give more" not in sure


def test_a_setting_that_changes_nothing_has_no_best_value() -> None:
    facts = {f"ifs-{v}": {"base": "ifs", "path": "finetune.epochs", "value": v} for v in (5, 9)}
    assert "highest mean" not in result(findings({"ifs-5": [0.7], "ifs-9": [0.7]}, facts=facts))
    assert "highest mean at 9 (71.0), its lowest at 5 (70.0)" in result(
        findings({"ifs-5": [0.7], "ifs-9": [0.71]}, facts=facts)
    )


def test_a_sweep_tells_its_best_value_and_does_not_list_thirty_arms() -> None:
    values = range(1, 31)
    scores: Scores = {"scratch": [0.5], **{f"ifs-grid-{v}": [0.5 + v / 100] for v in values}}
    facts = {f"ifs-grid-{v}": {"base": "ifs", "path": "generator.grid", "value": v} for v in values}
    found = findings(scores, facts=facts)
    text = result(found)
    assert "By generator.grid, ifs has its highest mean at 30 (80.0), its lowest at 1 (51.0)." in text
    assert "and 23 more" in text and "ifs-grid-7 " not in text
    assert (
        "weights pre-trained on images that formulas draw (ifs at 30 values of generator.grid)"
        in told(found)["Compared"][0]
    )


# Convergence ---------------------------------------------------------------------------------------------------------


def test_faster_convergence_is_told_with_the_epochs_of_both() -> None:
    curves = {"scratch": [0.1, 0.3, 0.5, 0.7], "ifs": [0.5, 0.7, 0.71, 0.72], "perlin": [0.1, 0.2, 0.6, 0.7]}
    text = result(findings({"scratch": [0.7], "ifs": [0.72], "perlin": [0.7]}, curves=curves))
    assert text.endswith("ifs reaches the final accuracy of scratch after 2 of 4 epochs; scratch needs 4.")


def test_faster_convergence_of_runs_of_steps_is_told_in_steps() -> None:
    found = findings({"scratch": [0.7], "ifs": [0.72]}, curves={"scratch": [0.1, 0.3, 0.7], "ifs": [0.7, 0.71, 0.72]})
    for each in found.results:
        each.history = [{"step": 500 * (row.pop("epoch") or 0), **row} for row in each.history]
    assert result(found).endswith(
        "ifs reaches the final accuracy of scratch after 500 of 1,500 steps; scratch needs 1,500."
    )


def test_several_fast_arms_are_told_in_one_sentence() -> None:
    curves = {"scratch": [0.1, 0.3, 0.5, 0.7], "ifs": [0.5, 0.7, 0.71, 0.72], "bezier": [0.8, 0.7, 0.7, 0.7]}
    text = result(findings({"scratch": [0.7] * 2, "ifs": [0.72] * 2, "bezier": [0.7] * 2}, curves=curves))
    assert "On average, bezier reaches the final accuracy of scratch after 1 of 4 epochs, ifs after 2; scratch" in text


@pytest.mark.parametrize(
    "curves",
    [
        {"scratch": [0.1, 0.7, 0.7, 0.7], "ifs": [0.3, 0.7, 0.71, 0.72]},
        {"scratch": [0.1, 0.3, 0.5, 0.7], "ifs": [0.1, 0.3, 0.5, 0.6]},
        {"scratch": [0.1, 0.3], "ifs": [0.5]},
        {"scratch": [], "ifs": []},
    ],
    ids=["scratch is as fast", "never", "other lengths", "no curves"],
)
def test_no_faster_convergence_is_not_told(curves: dict[str, list[float]]) -> None:
    assert "final accuracy" not in result(findings({"scratch": [0.7], "ifs": [0.72]}, curves=curves))


# Cost ----------------------------------------------------------------------------------------------------------------


def test_the_cost_counts_each_pre_training_once() -> None:
    scores: Scores = {"scratch": [0.5, 0.5], "ifs": [0.6, 0.6]}
    found = joined(findings(scores), findings(scores, downstream="other"))
    for each in found.results:
        each.finetune_seconds, each.evaluate_seconds = 10.0, 1.0
        if each.arm == "ifs":
            each.start, each.pretrain_seconds = f"runs/ifs/pretrain-{each.seed}", 100.0 + 20 * each.seed
    history: list[dict[str, float | None]] = [{"epoch": number} for number in (1, 2, 3)]
    found.pretrainings = {f"runs/ifs/pretrain-{seed}": history for seed in (0, 1)}
    assert told(found)["Cost"] == [
        "Pre-training took 1 min 50 s for ifs (2,400 drawn images an epoch, 3 epochs). It used no photograph. "
        "Fine-tuning took 10 s a model. In all: 5 min 8 s."
    ]


def test_the_cost_counts_each_store_once() -> None:
    found = findings(
        {"ifs": [0.6, 0.7], "the same": [0.6, 0.6], "other": [0.6, 0.6]},
        facts={"the same": {"recipe": {**RECIPE, "target": "labels"}}, "other": {"recipe": {**RECIPE, "seed": 1}}},
    )
    for each in found.results:
        each.start, each.pretrain_seconds, each.generate_seconds = f"runs/{each.arm}/{each.seed}", 60.0, 3600.0
    assert told(found)["Cost"][0].endswith("Drawing and storing its images took 2 h. In all: 2 h 6 min.")


def test_the_cost_counts_each_fine_tuning_once() -> None:
    found = findings({"scratch": [0.5, 0.5], "ifs": [0.6, 0.6], "without noise": [0.6, 0.6]})
    for each in found.results:
        each.finetune_seconds, each.evaluate_seconds = 100.0, 1.0
        each.folder = f"runs/{'scratch' if each.arm == 'scratch' else 'ifs'}/digits-{each.seed}"
    assert told(found)["Cost"] == ["Fine-tuning took 1 min 40 s a model. In all: 6 min 44 s."]


def test_what_all_pre_trainings_have_in_common_is_told_once() -> None:
    found = findings({"ifs": [0.6], "perlin": [0.5]})
    for each in found.results:
        each.start, each.pretrain_seconds = f"runs/{each.arm}/pretrain", 60.0
    assert told(found)["Cost"][0].startswith(
        "Pre-training took 1 min for ifs, 1 min for perlin (2,400 drawn images an epoch)."
    )


def test_pre_training_on_photographs_is_not_said_to_use_none() -> None:
    found = findings({"scratch": [0.5], "real": [0.6]})
    found.results[1].start, found.results[1].pretrain_seconds = "runs/real/pretrain", 60.0
    assert told(found)["Cost"] == ["Pre-training took 1 min for real. In all: 1 min."]


# Where it stands -----------------------------------------------------------------------------------------------------


def test_what_was_compared_names_the_sources_and_the_images() -> None:
    found = findings(
        {"scratch": [0.5], "ifs": [0.6], "real": [0.6], "imagenet": [0.9]}, described={"digits": "50 images"}
    )
    assert told(found)["Compared"] == [
        "resnet18 was fine-tuned on digits (50 images), starting from random weights (scratch), weights pre-trained on "
        "images that formulas draw (ifs), weights pre-trained on real images (real) and checkpoints (imagenet); 1 seed."
    ]


def test_it_stands_first_in_markdown_and_last_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(findings({"scratch": [0.5], "i*f": [0.6]}), tmp_path)
    text = to_markdown(table)
    assert text.index("- Result: Does pre-training on formulas help") < text.index("| arm |")
    assert "i\\*f has 10.0 points more" in text
    print_table(table, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[-3:]] == ["Compared", "Result", "Certainty"]
    assert any(line.startswith("report: ") for line in lines[:-3])
