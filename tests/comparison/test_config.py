"""A comparison's configuration is checked before anything slow starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from formulavision import compare
from formulavision.comparison import ComparisonSettings
from formulavision.config import parse
from formulavision.errors import ConfigError, StoreError


def test_importing_it_costs_neither_torch_nor_matplotlib() -> None:
    code = "import sys, formulavision.comparison; print({'torch', 'timm', 'matplotlib', 'jinja2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_every_field_is_described() -> None:
    assert all(field.description for field in ComparisonSettings.model_fields.values())


def test_yaml_gives_the_same_comparison_back(small: dict[str, Any]) -> None:
    settings = parse(ComparisonSettings, small)
    assert parse(ComparisonSettings, yaml.safe_load(settings.to_yaml())) == settings


def test_all_problems_are_listed_with_their_paths(small: dict[str, Any]) -> None:
    small["arms"]["stripes"]["recipe"]["generator"]["contrast"] = 500
    small["arms"]["broken"]["recipe"]["generator"]["name"] = "comparison-test-stripe"
    small["arms"]["extra"] = {"recip": {}}
    small["downstreams"]["cifar10"] = {"kind": "folder", "root": None}
    with pytest.raises(ConfigError) as caught:
        parse(ComparisonSettings, small)
    problems = "\n".join(caught.value.problems)
    assert "arms.stripes.recipe.generator.contrast: 500 is not allowed" in problems
    assert "did you mean 'comparison-test-stripes'?" in problems
    assert "arms.extra.recip: there is no such setting (did you mean 'recipe'?)" in problems
    assert "downstreams.cifar10.root: is missing; say --set downstreams.cifar10.root=/path" in problems


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pretrain", {"epoch": 3}, "pretrain.epoch: there is no such setting (did you mean 'epochs'?)"),
        ("finetune", {"epochs": 0}, "finetune.epochs: 0 is not allowed"),
        ("finetune", {"model": "resnet18"}, "finetune.model: is set for the whole comparison, by 'model'"),
        ("seeds", [], "seeds"),
        ("seeds", [1, 1], "seeds: 1 stands there twice"),
        ("arms", {"a/b": {}}, "arms.a/b: a name must be"),
        ("arms", {"mine": {"pretrain": {"epochs": 1}}}, "arms.mine.pretrain: an arm without a recipe"),
        ("arms", {}, "arms"),
        ("data", "elsewhere", "data: 'elsewhere' is not allowed"),
    ],
)
def test_a_wrong_setting_is_named(small: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(ComparisonSettings, {**small, key: value})
    assert any(problem.startswith(message) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "resnet10x", "model: timm has no model 'resnet10x' (did you mean"),
        ("freeze", ["none", "conv1-9"], "freeze: 'conv1-9' is not allowed"),
        ("arms", {"mine": {"checkpoint": "missing.pth"}}, "arms.mine.checkpoint: missing.pth"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_anything_is_written(
    small: dict[str, Any], tmp_path: Path, key: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        compare({**small, key: value}, out=tmp_path / "out", show_progress=False)
    assert any(problem.startswith(message) for problem in caught.value.problems), caught.value.problems
    assert not (tmp_path / "out").exists()


def test_paths_in_a_file_start_at_the_file(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small["arms"]["stripes"]["recipe"]))
    small["arms"] = {"ours": {"recipe": "recipe.yaml"}, "mine": {"checkpoint": "weights/mine.pth"}}
    small["downstreams"] = {"photographs": {"kind": "folder", "root": "photographs"}}
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(small))
    settings = ComparisonSettings.load(tmp_path / "comparison.yaml", ["arms.ours.recipe.instances=8"])
    assert settings.arms["ours"].recipe is not None
    assert settings.arms["ours"].recipe.num_instances == 8
    assert settings.arms["mine"].checkpoint == tmp_path / "weights/mine.pth"
    assert settings.downstreams["photographs"].root == tmp_path / "photographs"


def test_a_broken_recipe_file_is_named(small: dict[str, Any], tmp_path: Path) -> None:
    small["arms"]["stripes"]["recipe"] = "nowhere.yaml"
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(small))
    with pytest.raises(ConfigError, match="nowhere\\.yaml: No such file"):
        ComparisonSettings.load(tmp_path / "comparison.yaml")


def test_a_folder_of_something_else_is_left_alone(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="--overwrite"):
        compare(small, out=tmp_path, show_progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
