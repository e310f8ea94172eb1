"""Arms that are pre-trained on several recipes and stores as one dataset."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from striped_categories import Stripes

from formulavision import ConfigError, Run, compare, generate
from formulavision.comparison import ComparisonSettings
from formulavision.comparison.facts import first_findings
from formulavision.comparison.plan import Datasets, Generation, Pretraining, ResultStage, Stage, plan_stages
from formulavision.util.config import dump_yaml, parse

CANVAS = {"size": 32, "padding": 0}
MOIRE = {"generator": "moire", "categories": 2, "instances": 8, "canvas": CANVAS}
STRIPES = {"generator": {"name": Stripes.name}, "categories": 4, "instances": 16, "canvas": CANVAS}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(MOIRE, tmp_path_factory.mktemp("arms") / "store").path


@pytest.fixture
def mixed(small: dict[str, Any], store: Path) -> dict[str, Any]:
    parts = [{"recipe": STRIPES, "share": 0.75}, {"store": str(store), "share": 0.25}]
    return {**small, "arms": {"scratch": {}, "stripes": {"recipe": STRIPES}, "mixed": {"recipe": parts}}}


def plan(data: dict[str, Any]) -> list[Stage]:
    return plan_stages(parse(ComparisonSettings, data), Path("runs"), lambda dataset, train_only=False: "images")


def pretraining(data: dict[str, Any]) -> Pretraining:
    (found,) = [stage for stage in plan(data) if isinstance(stage, Pretraining) and stage.arm == "mixed"]
    return found


def test_a_list_of_recipes_is_a_mixture_and_comes_back_from_its_yaml(mixed: dict[str, Any], tmp_path: Path) -> None:
    settings = parse(ComparisonSettings, mixed)
    (tmp_path / "comparison.yaml").write_text(settings.to_yaml())
    again = ComparisonSettings.load(tmp_path / "comparison.yaml")
    assert again == settings and again.arms["mixed"].target == "class"
    named = {**mixed, "arms": {**mixed["arms"], "mixed": {"mixture": mixed["arms"]["mixed"]["recipe"]}}}
    assert pretraining(named).key == pretraining(mixed).key


def test_a_stage_is_named_after_the_images_of_its_parts_and_their_shares(
    mixed: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    whole = pretraining(mixed)
    moved = tmp_path / "elsewhere"
    shutil.copytree(store, moved)
    first, second = mixed["arms"]["mixed"]["recipe"]

    def key(parts: list[Any]) -> str:
        mixed["arms"]["mixed"] = {"recipe": parts}
        return pretraining(mixed).key

    assert key([first, {**second, "store": str(moved)}]) == whole.key
    others = [[first, {"recipe": MOIRE, "share": 0.25}], [second, first], [STRIPES, store],
              [{**first, "share": 0.5}, {**second, "share": 0.5}],
              [{"recipe": {**STRIPES, "seed": 9}, "share": 0.75}, second]]  # fmt: skip
    assert len({whole.key, *map(key, others)}) == 6


def test_the_recipes_of_a_mixture_are_stored_once_for_all_arms(mixed: dict[str, Any]) -> None:
    stages = plan({**mixed, "data": "stored"})
    assert len([stage for stage in stages if isinstance(stage, Generation)]) == 1
    assert {len(stage.stores) for stage in stages if isinstance(stage, Pretraining)} == {1}


def test_facts_name_the_parts(mixed: dict[str, Any]) -> None:
    settings = parse(ComparisonSettings, mixed)
    datasets = Datasets(settings)
    stages = [stage for stage in plan_stages(settings, Path("runs"), datasets.digest) if isinstance(stage, ResultStage)]
    facts = first_findings(settings, stages, datasets).arms["mixed"]
    assert facts.origin.startswith(
        f"mixture of 75 % {Stripes.name}: 4 categories x 16 images of 32 x 32, gray and 25 %"
    )
    assert (facts.source, facts.images, facts.chance, facts.target) == ("formula", 80, 1 / 6, "class")


def test_paths_of_a_mixture_start_at_the_file(mixed: dict[str, Any], store: Path) -> None:
    mixed["arms"]["mixed"] = {"recipe": [{"store": store.name}, store.name, "moire.yaml", STRIPES]}
    (store.parent / "moire.yaml").write_text(dump_yaml(MOIRE))
    file = store.parent / "comparison.yaml"
    file.write_text(dump_yaml(mixed))
    mixture = ComparisonSettings.load(file).arms["mixed"].mixture
    assert mixture is not None and [part.store for part in mixture.parts[:2]] == [store, store]


@pytest.mark.parametrize(
    ("arm", "problem"),
    [
        ({"recipe": []}, "arms.mixed.mixture: is an empty list"),
        ({"recipe": [MOIRE, "nowhere/store"]}, "arms.mixed.mixture.1.store: .*nowhere/store"),
        ({"recipe": [{"recipe": MOIRE, "share": 0}, MOIRE]}, "arms.mixed.mixture.0.share: 0 is not allowed"),
        ({"recipe": [MOIRE, {**STRIPES, "canvas": {"size": 64}}]}, "arms.mixed.mixture.1: its images have the size 64"),
        ({"recipe": [MOIRE], "images": {"kind": "digits"}}, "arms.mixed.images: an arm has one source of weights"),
        (
            {"recipe": [{"recipe": MOIRE, "share": 0.5}, STRIPES], "labels": {"clusters": 3}},
            "arms.mixed.labels.clusters: must be unset for a mixture with shares",
        ),
    ],
)
def test_bad_arms_are_told_in_a_line(mixed: dict[str, Any], arm: Any, problem: str) -> None:
    mixed["arms"]["mixed"] = arm
    with pytest.raises(ConfigError, match=problem):
        parse(ComparisonSettings, mixed)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["on-demand", "stored"])
def test_a_comparison_pre_trains_on_a_mixture(mixed: dict[str, Any], data: str, tmp_path: Path) -> None:
    found = compare({**mixed, "data": data}, out=tmp_path / "out", show_progress=False)
    assert not found.failures
    (folder,) = (tmp_path / "out" / "runs" / "mixed").glob("pretrain-*")
    parts = Run.load(folder).settings["data"]["mixture"]
    assert ["store" in part for part in parts] == [data == "stored", True]
    assert [part["share"] for part in parts] == [0.75, 0.25]
