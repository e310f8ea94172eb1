"""Arms that are pre-trained on scenes, with several parts and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from masked_shapes import write_shapes
from striped_categories import Stripes

from formulavision import ConfigError, compare
from formulavision.comparison import ComparisonSettings
from formulavision.comparison.arms import Arm
from formulavision.comparison.facts import first_findings
from formulavision.comparison.plan import Datasets, Generation, Pretraining, ResultStage, Stage, plan_stages
from formulavision.util.config import dump_yaml, parse


def scenes(target: str | None = None, **changes: Any) -> dict[str, Any]:
    recipe = {
        "parts": [
            {"generator": {"name": Stripes.name}, "categories": 4},
            {"generator": {"name": "perlin"}, "categories": 3, "share": 0.25, "object": "fill"},
        ],
        "scene": {"objects": [1, 3], "background": {"generator": {"name": "bezier"}, "categories": 2}},
        "images": 12,
        "canvas": {"size": 64, "padding": 0},
    }
    return recipe | ({"target": target} if target else {}) | changes


@pytest.fixture
def of_scenes(small: dict[str, Any]) -> dict[str, Any]:
    arms = {target: {"recipe": scenes(target)} for target in ("labels", "semantic")}
    return {**small, "arms": {"scratch": {}, **arms}, "data": "stored"}


def plan(data: dict[str, Any]) -> list[Stage]:
    return plan_stages(parse(ComparisonSettings, data), Path("runs"), lambda dataset, train_only=False: "images")


def test_arms_of_one_recipe_and_two_targets_share_the_store_and_nothing_else(of_scenes: dict[str, Any]) -> None:
    stages = plan(of_scenes)
    assert len([stage for stage in stages if isinstance(stage, Generation)]) == 1
    assert len({stage.key for stage in stages if isinstance(stage, Pretraining)}) == 2
    assert len({stage.content for stage in stages if isinstance(stage, ResultStage)}) == 3


def test_an_arm_of_scenes_names_its_target_also_where_it_is_one_class(of_scenes: dict[str, Any]) -> None:
    """The store of two arms has the target of the arm that was first."""
    single = {"scene": {"objects": 1}}
    of_scenes["arms"] = {target: {"recipe": scenes(target, **single)} for target in ("semantic", "class")}
    stages = [stage for stage in plan(of_scenes) if isinstance(stage, Pretraining)]
    assert [stage.settings.target for stage in stages] == ["semantic", "class"]


def test_the_target_that_is_the_default_is_the_same_arm(of_scenes: dict[str, Any]) -> None:
    named = plan(of_scenes)
    of_scenes["arms"]["semantic"] = {"recipe": scenes()}
    assert [stage.folder for stage in plan(of_scenes)] == [stage.folder for stage in named]


def test_the_decoder_that_is_the_default_is_the_same_arm(of_scenes: dict[str, Any]) -> None:
    unnamed, keys = plan(of_scenes), {}
    for decoder in ("fpn", "unet"):
        of_scenes["pretrain"] = {**of_scenes.get("pretrain", {}), "decoder": decoder}
        of_scenes["arms"].pop("labels", None)  # it has no decoder
        keys[decoder] = {stage.key for stage in plan(of_scenes) if isinstance(stage, Pretraining)}
    assert keys["fpn"] < {stage.key for stage in unnamed if isinstance(stage, Pretraining)}
    assert keys["unet"] != keys["fpn"]


def test_facts_of_scenes_name_their_objects_parts_and_all_generators(of_scenes: dict[str, Any]) -> None:
    of_scenes["arms"]["both"] = {
        "recipe": {
            "parts": [{**part, "instances": 5} for part in ({"generator": Stripes.name, "categories": 4},
                                                           {"generator": "perlin", "categories": 3})],
        }
    }  # fmt: skip
    settings = parse(ComparisonSettings, of_scenes)
    datasets = Datasets(settings)
    stages = [stage for stage in plan_stages(settings, Path("runs"), datasets.digest) if isinstance(stage, ResultStage)]
    facts = first_findings(settings, stages, datasets).arms
    assert facts["labels"].origin.startswith(
        f"12 scenes of 64 x 64, gray, with 1 to 3 objects of 4 {Stripes.name} and 3 perlin categories, target labels, "
        f"drawn by {Stripes.name} of "
    )
    assert " and perlin of " in facts["labels"].origin and " and bezier of " in facts["labels"].origin
    assert (facts["labels"].images, facts["labels"].chance) == (12, None)
    assert f"{Stripes.name}: 4 categories x 5 images; perlin: 3 categories x 5 images" in facts["both"].origin
    assert (facts["both"].images, facts["both"].chance) == (35, 1 / 7)


def test_targets_and_settings_of_scenes_can_be_swept(of_scenes: dict[str, Any]) -> None:
    one = {**of_scenes, "arms": {"scratch": {}, "own": {"recipe": scenes()}}}
    swept = parse(
        ComparisonSettings, {**one, "sweep": {"target": ["labels", "semantic"], "scene.min_visible": [1, 20]}}
    )
    variants = swept.variants
    recipes = {name: variant.arm.recipe for name, variant in variants.items()}
    assert recipes["own-target-labels"].target == "labels"  # type: ignore[union-attr]
    assert recipes["own-min_visible-20"].min_visible == 20  # type: ignore[union-attr]


def test_folders_of_categories_in_parts_are_looked_for_beside_the_file(tmp_path: Path, small: dict[str, Any]) -> None:
    folder = tmp_path / "categories"
    folder.mkdir()
    for name in ("00000", "00001"):
        (folder / f"{name}.csv").write_text("0.5,0,0,0.5,0,0,0.5\n0.5,0,0,0.5,0.5,0.5,0.5\n")
    own = {"generator": {"name": "ifs"}, "categories": {"folder": "categories"}}
    recipe = scenes(parts=[own, {"generator": {"name": "bezier"}, "categories": 2}])
    (tmp_path / "one.yaml").write_text(dump_yaml({**small, "arms": {"own": {"recipe": recipe}}}))
    found = ComparisonSettings.load(tmp_path / "one.yaml").arms["own"].recipe
    assert found is not None and found.all_parts[0].categories.folder == folder


@pytest.mark.parametrize("resolved", [True, False])
def test_an_arm_of_parts_is_the_same_after_it_was_written(resolved: bool) -> None:
    for written in (scenes("labels"), {"parts": [{"generator": "ifs", "categories": 2, "instances": 3}] * 2}):
        arm = parse(Arm, {"recipe": written})
        again = parse(Arm, arm.to_dict(resolved=resolved))
        assert again.recipe is not None and arm.recipe is not None
        assert (again.recipe.id, again.recipe.target) == (arm.recipe.id, arm.recipe.target)


@pytest.fixture
def mixed(small: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Arms of classes, labels and masks, on a downstream of classes and one of masks."""
    training = {
        **{"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "milestones": [1], "resize": 32, "crop": 32},
        **{"device": "cpu"},
    }
    of_scenes = {
        "generator": {"name": Stripes.name},
        "categories": 4,
        "scene": {"objects": [1, 3], "size": [0.5, 0.9]},
        "images": 16,
        "canvas": {"size": 48, "padding": 0},
    }
    return {
        **small,
        "arms": {
            "scratch": {},
            "classes": {"recipe": {"generator": Stripes.name, "categories": 4, "instances": 4, "canvas": {"size": 32}}},
            "labels": {"recipe": {**of_scenes, "target": "labels"}},
            "semantic": {"recipe": {**of_scenes, "target": "semantic"}},
        },
        "downstreams": {
            "digits": {"kind": "digits", "train_per_class": 2, "test_per_class": 1},
            "shapes": {"kind": "masks", "root": str(write_shapes(tmp_path / "shapes", train=8, test=4))},
        },
        "model": "resnet10t",
        "pretrain": training,
        "finetune": {**training, "decoder": "fpn"},
        "probes": ["knn"],
        "pictures": ["predictions", "grad-cam", "classes"],
    }


@pytest.mark.slow
def test_classes_labels_and_masks_mix_in_one_comparison(mixed: dict[str, Any], tmp_path: Path) -> None:
    done = compare({**mixed, "data": "stored"}, out=tmp_path / "out", show_progress=False)
    assert done.failures == {} and len(done.results) == 4 * (1 + 1 + 1)
    metrics = {(result.downstream, result.freeze): result.metric for result in done.results}
    assert metrics == {
        ("digits", "none"): "top-1 accuracy",
        ("digits", "knn-probe"): "top-1 accuracy",
        ("shapes", "none"): "mIoU",
    }
    assert all("validation_miou" in r.history[-1] for r in done.results if r.downstream == "shapes")
    assert len(list((tmp_path / "out" / "runs" / "_stores").glob("*/manifest.json"))) == 2
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| arm | frozen | digits (top-1) | to scratch | shapes (mIoU) | to scratch |" in table
    assert "Top-1 accuracy on digits; mIoU on shapes in per cent" in table
    report = done.report.read_text()
    assert "Predicted masks on test images of shapes: scratch, classes, labels, semantic" in report
    assert "Grad-CAM on test images of digits" in report and "Grad-CAM on test images of shapes" not in report
    assert "The same images as labels" in report
    pictures = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "out" / "pictures").iterdir())
    assert {"grad-cam-digits", "predictions-shapes"} <= set(pictures)
    classes = (tmp_path / "out" / "plots" / "classes.csv").read_text()
    assert "labels,scratch,shapes,none,stripe," in classes
    again = compare({**mixed, "data": "stored"}, out=tmp_path / "out", show_progress=False)
    assert [r.score for r in again.results] == [r.score for r in done.results]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune": {"mixup": 0.5}}, "finetune.mixup: must be 0 for masks"),
        ({"finetune": {"crop": 40, "resize": 40}}, "finetune.crop: 40 is not a multiple of 32"),
        ({"finetune": {"decoder": "dpt"}}, "finetune.decoder: 'dpt' is for plain vision transformers"),
        (
            {"downstreams": {"digits": "digits"}, "finetune": {"decoder": "fpn"}},
            "no downstream has masks: leave it out",
        ),
        (
            {"arms": {"scratch": {}, "classes": {"recipe": "ifs"}}, "pretrain": {"decoder": "unet"}},
            "pretrain.decoder: no arm is pre-trained on masks",
        ),
        (
            {"arms": {"scratch": {}, "a": {"recipe": "ifs", "pretrain": {"decoder": "unet"}}}},
            "arms.a.pretrain.decoder: the arm is not pre-trained on masks",
        ),
        ({"only": "shapes", "probes": ["linear"]}, "probes: all downstreams have masks"),
        ({"arms": {"scratch": {}, "a": {"recipe": scenes("objects")}}}, "objects.* is not allowed"),
    ],
)
def test_what_tasks_do_not_share_is_refused_before_the_work(
    mixed: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if only := changes.pop("only", None):
        changes["downstreams"] = {only: mixed["downstreams"][only]}
    merged = {**mixed, **changes, "finetune": {**mixed["finetune"], **changes.get("finetune", {})}}
    if "finetune" not in changes or changes["finetune"] != {"decoder": "fpn"}:
        merged["finetune"] = {k: v for k, v in merged["finetune"].items() if k != "decoder" or v != "fpn"}
    with pytest.raises(ConfigError, match=message) as caught:
        compare(merged, out=tmp_path / "out", show_progress=False)
    assert len(caught.value.problems) == 1 or len(set(caught.value.problems)) == len(caught.value.problems)
    assert not (tmp_path / "out").exists()
