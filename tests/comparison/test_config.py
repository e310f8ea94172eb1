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
from formulavision.comparison.plan import plan_stages
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError

RECIPE = {"generator": "comparison-test-stripes"}


def test_importing_it_costs_neither_torch_nor_matplotlib() -> None:
    code = "import sys, formulavision.comparison; print({'torch', 'timm', 'matplotlib', 'jinja2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_every_field_is_described() -> None:
    assert all(field.description for field in ComparisonSettings.model_fields.values())


def test_yaml_gives_the_same_comparison_back(small: dict[str, Any]) -> None:
    settings = parse(ComparisonSettings, small)
    assert parse(ComparisonSettings, yaml.safe_load(settings.to_yaml())) == settings


def test_a_note_is_one_line_and_no_part_of_what_is_computed(small: dict[str, Any], tmp_path: Path) -> None:
    del small["note"]
    noted = parse(ComparisonSettings, {**small, "note": " a demonstration:\n  it ranks no formula "})
    assert noted.note == "a demonstration: it ranks no formula"
    assert yaml.safe_load(noted.to_yaml())["note"] == noted.note
    assert "note" not in parse(ComparisonSettings, small).to_dict()
    keys = [
        [s.key for s in plan_stages(c, tmp_path, lambda *_, **__: "")]
        for c in (noted, parse(ComparisonSettings, small))
    ]
    assert keys[0] == keys[1]


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
        ("seeds", [], "seeds: is empty"),
        ("seeds", [1, 1], "seeds: 1 is listed twice"),
        ("seeds", [0, -1], "seeds.1: -1 is not allowed: must be greater than or equal to 0"),
        ("arms", {"a/b": {}}, "arms.a/b: a name must be"),
        ("arms", {"mine": {"pretrain": {"epochs": 1}}}, "arms.mine.pretrain: an arm without a recipe"),
        ("arms", {}, "arms: is empty"),
        ("arms", {"a": {"recipe": RECIPE, "checkpoint": "x.pth"}}, "arms.a.checkpoint: an arm has one source"),
        ("arms", {"a": {"checkpoint": "x.pth", "labels": {"noise": 0.5}}}, "arms.a.labels: an arm without a recipe"),
        ("arms", {"a": {"images": {"kind": "folder"}}}, "arms.a.images"),
        ("arms", {"a": {"recipe": RECIPE, "labels": {"noise": 2}}}, "arms.a.labels.noise: 2 is not allowed"),
        ("probes", ["linear", "linear"], "probes: 'linear' is listed twice"),
        ("finetuning", False, "finetuning: is off, and there are no probes"),
        ("against", "scratsh", "against: there is no arm 'scratsh' (did you mean 'scratch'?)"),
        ("reach", [50], "reach.0: 50 is not allowed: must be less than or equal to 1"),
        ("paper", {"digit": {"scratch": 1}}, "paper.digit: there is no such downstream (did you mean 'digits'?)"),
        ("paper", {"digits": {"stripe": 1}}, "paper.digits.stripe: there is no such arm (did you mean 'stripes'?)"),
        ("paper", {"digits": {"stripes/conv1": 1}}, "paper.digits.stripes/conv1: no frozen layers and no probe"),
        (
            "paper",
            {"digits": {"stripes": 934}},
            "paper.digits.stripes: 934 is not allowed: must be less than or equal to 100",
        ),
        ("pictures", ["filter"], "pictures.0: 'filter' is not allowed"),
        ("sweep", {"generator.contrst": [1]}, "sweep.generator.contrst: stripes at 1: recipe.generator.contrst"),
        ("sweep", {"generator.contrast": []}, "sweep.generator.contrast: is empty"),
        ("sweep", {"fill_rate": [1]}, "sweep.fill_rate: cannot be swept"),
        ("sweep", {"labels.noise": [0.5, 3]}, "sweep.labels.noise: stripes at 3: labels.noise: 3 is not allowed"),
        ("sweep", {"finetune.epochs": [0]}, "sweep.finetune.epochs: scratch at 0: finetune.epochs: 0 is not allowed"),
        ("sweep", {"generator": {"contrast": 5}}, "sweep.generator.contrast: 5 is not allowed: must be a valid list"),
        (
            "arms",
            {"a": {"images": {"kind": "digits", "train_perclass": 5}}},
            "arms.a.images.train_perclass: there is no",
        ),
        ("arms", {"a": {"recipe": {**RECIPE, "instance": 5}}}, "arms.a.recipe.instance: there is no such setting (did"),
        ("arms", {"a": {"recipe": RECIPE, "labels": {"nois": 1}}}, "arms.a.labels.nois: there is no such setting (did"),
        ("arms", {"a": 5}, "arms.a: 5 is not allowed: must be"),
        ("downstreams", {"d": {"kind": "digit"}}, "downstreams.d.kind: 'digit' is not allowed: must be one of"),
        (
            "downstreams",
            {"d": {"kind": "digits", "downlod": 1}},
            "downstreams.d.downlod: there is no such setting (did",
        ),
        ("downstreams", {"d e": "digits"}, "downstreams.d e: a name must be"),
        ("reach", [0.5, 0.5], "reach: 0.5 is listed twice"),
        ("name", " ", "name: is empty"),
        ("pretrain", {"seed": 1}, "pretrain.seed: is set for the whole comparison, by 'seeds'"),
        ("data", "elsewhere", "data: 'elsewhere' is not allowed"),
    ],
)
def test_a_wrong_setting_is_named(small: dict[str, Any], key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(ComparisonSettings, {**small, key: value})
    assert any(problem.startswith(message) for problem in caught.value.problems), caught.value.problems


def test_settings_of_an_arm_and_of_a_sweep_are_checked_together_with_those_of_the_comparison(
    small: dict[str, Any],
) -> None:
    small["arms"]["stripes"]["pretrain"] = {"resize": 40}
    swept = parse(
        ComparisonSettings, {**small, "sweep": {"finetune.resize": [36], "arms.broken.pretrain.resize": [36]}}
    )
    assert swept.pretrain_settings("stripes-resize-36", 0).resize == 40
    small["arms"]["stripes"]["pretrain"] = {"resize": 20}
    with pytest.raises(ConfigError) as caught:
        parse(ComparisonSettings, {**small, "sweep": {"arms.broken.pretrain.resize": [30]}})
    assert [problem.partition(" is larger")[0] for problem in caught.value.problems] == [
        "arms.stripes.pretrain: crop 32",
        "sweep.arms.broken.pretrain.resize: broken at 30: pretrain: crop 32",
    ]


def test_a_length_in_steps_replaces_one_in_epochs_and_the_other_way_round(small: dict[str, Any]) -> None:
    def lengths(data: dict[str, Any], arm: str = "stripes") -> tuple[Any, ...]:
        found = parse(ComparisonSettings, data).pretrain_settings(arm, 0)
        return found.epochs, found.steps, found.interval, found.milestones

    assert lengths(small) == (2, None, None, (1,))
    small["arms"]["stripes"]["pretrain"] = {"steps": 30}
    assert lengths(small) == (None, 30, 1, (10, 20))
    assert lengths(small, "broken") == (2, None, None, (1,))
    small["arms"]["stripes"]["pretrain"] = {"epochs": None, "steps": 30, "milestones": [7]}
    assert lengths(small) == (None, 30, 1, (7,))
    # A preset gives steps, a comparison epochs, an arm steps again; each with a warm-up.
    small["pretrain"] = {**small["pretrain"], "preset": "ofdb", "warmup_epochs": 0.5}
    small["arms"]["stripes"]["pretrain"] = {"steps": 30, "warmup_steps": 3}
    assert lengths(small, "broken")[:2] == (2, None)
    settings = parse(ComparisonSettings, small).pretrain_settings("stripes", 0)
    assert (settings.epochs, settings.steps, settings.warmup_epochs, settings.warmup_steps) == (None, 30, 0, 3)
    # Points of a sweep over an arm, and epochs over steps.
    swept = {**small, "sweep": {"arms.stripes.pretrain.epochs": [3]}}
    assert lengths(swept, "stripes-epochs-3")[:3] == (3, None, None)
    tuned = parse(ComparisonSettings, {**small, "sweep": {"finetune.steps": [8]}})
    assert (tuned.finetune_settings("scratch-steps-8", 0).steps, tuned.finetune["epochs"]) == (8, 2)


def test_a_length_of_the_command_line_or_of_a_size_replaces_that_of_the_file(
    small: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "comparison.yaml"
    small["arms"]["stripes"]["pretrain"] = {"steps": 40, "interval": 20}
    file.write_text(yaml.safe_dump({**small, "sizes": {"smoke": {"finetune": {"steps": 5}}}}))

    def read(*settings: str, size: str | None = None) -> tuple[Any, ...]:
        found = ComparisonSettings.load(file, settings, size=size)
        each = found.pretrain_settings("stripes", 0), found.finetune_settings("stripes", 0)
        return tuple((settings.epochs, settings.steps) for settings in each)

    assert read() == ((None, 40), (2, None))
    assert read(size="smoke") == ((None, 40), (None, 5))
    assert read("finetune.epochs=3", size="smoke") == ((None, 40), (3, None))
    assert read("finetune.steps=9", "arms.stripes.pretrain.epochs=1") == ((1, None), (None, 9))
    assert read("finetune.epochs=null", "finetune.steps=9") == ((None, 40), (None, 9))
    with pytest.raises(ConfigError, match=r"finetune: epochs and steps are both given"):
        read("finetune.epochs=3", "finetune.steps=9")


def test_a_size_is_no_setting(small: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "comparison.yaml"
    sizes = {"sizes": {"smoke": {"finetune": {"steps": 5}}}}
    file.write_text(yaml.safe_dump({**small, **sizes}))
    with pytest.raises(ConfigError, match="size: is no setting: a size is chosen by --size"):
        ComparisonSettings.load(file, ["size=smoke"])
    file.write_text(yaml.safe_dump({**small, **sizes, "size": "smoke"}))
    with pytest.raises(ConfigError, match="size: is not allowed beside sizes"):
        ComparisonSettings.load(file)


def test_steps_and_epochs_in_one_place_are_one_problem(small: dict[str, Any]) -> None:
    small["arms"]["stripes"]["pretrain"] = {"steps": 30, "epochs": 2}
    with pytest.raises(ConfigError) as caught:
        parse(ComparisonSettings, small)
    assert list(caught.value.problems) == ["arms.stripes.pretrain: epochs and steps are both given: give one of them"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "resnet10x", "model: timm has no model 'resnet10x' (did you mean"),
        ("freeze", ["none", "conv1-9"], "freeze: 'conv1-9' is not allowed"),
        ("arms", {"mine": {"checkpoint": "/missing.pth"}}, "arms.mine.checkpoint: /missing.pth"),
        (
            "arms",
            {"mine": {"checkpoint": "timm:resnet18x"}},
            "arms.mine.checkpoint: timm:resnet18x: timm has no such model (did you mean",
        ),
        ("arms", {"mine": {"checkpoint": "torchvision:resnet19"}}, "arms.mine.checkpoint: torchvision:resnet19"),
        (
            "finetune",
            {"precision": "16-mixed", "device": "cpu"},
            "finetune.precision: '16-mixed' is not supported",
        ),
        ("pretrain", {"precision": "16-mixed", "device": "cpu"}, "arms.stripes.pretrain.precision: '16-mixed' is not"),
        ("pretrain", {"model_": 1}, "pretrain.model_: there is no such setting"),
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
    assert settings.arms["mine"].checkpoint == str(tmp_path / "weights/mine.pth")
    assert settings.downstreams["photographs"].root == tmp_path / "photographs"


def test_a_broken_recipe_file_is_named(small: dict[str, Any], tmp_path: Path) -> None:
    small["arms"]["stripes"]["recipe"] = "nowhere.yaml"
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(small))
    with pytest.raises(ConfigError, match="nowhere\\.yaml: No such file"):
        ComparisonSettings.load(tmp_path / "comparison.yaml")


def test_the_example_in_the_documentation_is_a_comparison_at_both_its_sizes(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "comparisons.md").read_text()
    file = tmp_path / "example.yaml"
    file.write_text(text.split("```yaml\n")[1].split("```")[0])
    full, smoke = (ComparisonSettings.load(file, size=size) for size in ("full", "smoke"))
    assert list(full.variants) == [
        "scratch",
        "fractaldb-fill_rate-0.05",
        "fractaldb-fill_rate-0.1",
        "fractaldb-fill_rate-0.2",
        "noisy",
        "mixed",
        "real",
        "imagenet",
        "published",
    ]
    assert list(smoke.arms) == ["scratch", "fractaldb", "noisy"]


def test_a_folders_path_beside_the_file_is_a_downstream(tmp_path: Path, small: dict[str, Any]) -> None:
    (tmp_path / "birds").mkdir()
    small["downstreams"] = {"birds": "birds", "digits": "digits"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(small))
    downstreams = ComparisonSettings.load(tmp_path / "c.yaml").downstreams
    assert (downstreams["birds"].kind, downstreams["birds"].root) == ("folder", tmp_path / "birds")
    assert downstreams["digits"].kind == "digits"
