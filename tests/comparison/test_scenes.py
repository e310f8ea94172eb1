"""Arms that are pre-trained on scenes, with several parts and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from striped_categories import Stripes

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


def test_the_target_that_is_the_default_is_the_same_arm(of_scenes: dict[str, Any]) -> None:
    named = plan(of_scenes)
    of_scenes["arms"]["semantic"] = {"recipe": scenes()}
    assert [stage.folder for stage in plan(of_scenes)] == [stage.folder for stage in named]


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
    for recipe in (scenes("labels"), {"parts": [{"generator": "ifs", "categories": 2, "instances": 3}] * 2}):
        arm = parse(Arm, {"recipe": recipe})
        again = parse(Arm, arm.to_dict(resolved=resolved))
        assert again.recipe is not None and arm.recipe is not None
        assert (again.recipe.id, again.recipe.target) == (arm.recipe.id, arm.recipe.target)
