"""Arms that differ in fine-tuning: settings of their own, above all the formula that is mixed into training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from formulavision import Recipe, compare
from formulavision.comparison import ComparisonSettings
from formulavision.comparison.plan import Datasets, check_models, plan_stages
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError

PERLIN: dict[str, Any] = {
    "generator": {"name": "perlin"}, "categories": 4, "instances": 2, "canvas": {"size": 32, "padding": 0}
}  # fmt: skip


@pytest.fixture
def tuned(small: Any) -> dict[str, Any]:
    """Four arms from scratch that are fine-tuned differently."""
    arms: dict[str, Any] = {
        "plain": {},
        "perlin": {"finetune": {"mixing": {"recipe": PERLIN}}},
        "weak": {"finetune": {"mixing": {"recipe": PERLIN, "rounds": 1}}},
        "slow": {"finetune": {"learning_rate": 0.001}},
    }
    return {**small, "arms": arms, "against": "plain", "finetune": {**small["finetune"], "epochs": 1}}


def keys(settings: Any, tmp_path: Path) -> dict[str, str]:
    settings = parse(ComparisonSettings, settings)
    return {stage.arm: stage.key for stage in plan_stages(settings, tmp_path, Datasets(settings).digest)}


def test_arms_of_different_fine_tuning_have_different_stages(tuned: Any, tmp_path: Path) -> None:
    found = keys(tuned, tmp_path)
    assert len(set(found.values())) == 4
    # The stage of an arm without settings of its own is what it was.
    assert found["plain"] == keys({**tuned, "arms": {"plain": {}}}, tmp_path)["plain"]
    # A formula counts by its id: other words for one recipe, another target and defaults that are written out.
    same = {**PERLIN, "generator": {"name": "perlin", "octaves": 1}, "seed": 1}
    tuned["arms"]["perlin"]["finetune"]["mixing"] = {"recipe": same, "beta": 3.0, "severity": 3}
    assert keys(tuned, tmp_path) == found
    tuned["arms"]["perlin"]["finetune"]["mixing"]["recipe"] = {**same, "seed": 2}
    assert keys(tuned, tmp_path)["perlin"] != found["perlin"]


def test_an_arms_settings_lie_over_those_of_the_comparison(tuned: Any) -> None:
    tuned["finetune"]["mixing"] = {"recipe": PERLIN, "beta": 5, "rounds": 2}
    tuned["arms"]["plain"]["finetune"] = {"mixing": None}
    tuned["arms"]["weak"]["finetune"]["mixing"] = {"rounds": 1}
    settings = parse(ComparisonSettings, tuned)
    assert settings.finetune_settings("plain", 0).mixing is None
    weak, perlin = (settings.finetune_settings(name, 0).mixing for name in ("weak", "perlin"))
    assert weak is not None and perlin is not None
    assert (weak.rounds, weak.beta, perlin.rounds, perlin.beta) == (1, 5, 2, 5)
    assert settings.finetune_settings("slow", 0).learning_rate == 0.001
    again = parse(ComparisonSettings, yaml.safe_load(settings.to_yaml()))
    assert again.to_dict() == settings.to_dict()
    assert settings.to_dict()["finetune"]["mixing"]["recipe"]["generator"]["octaves"] == 1  # in full


def test_mixing_can_be_swept(tuned: Any) -> None:
    tuned["arms"], tuned["against"] = {"scratch": {}}, None
    tuned["finetune"]["mixing"] = {"recipe": PERLIN}
    tuned["sweep"] = {"finetune.mixing.recipe": ["bezier", "perlin"], "finetune.mixing.recipe.generator.octaves": [2]}
    tuned["sweep"]["finetune.mixing.beta"] = [2, 4]
    settings = parse(ComparisonSettings, tuned)
    found = {name: settings.finetune_settings(name, 0).mixing for name in settings.variants}
    assert {name: (each.recipe.generator_names, each.beta) for name, each in found.items() if each is not None} == {
        "scratch-recipe-bezier": ("bezier", 3), "scratch-recipe-perlin": ("perlin", 3),
        "scratch-octaves-2": ("perlin", 3), "scratch-beta-2": ("perlin", 2), "scratch-beta-4": ("perlin", 4),
    }  # fmt: skip
    assert "octaves=2" in repr(found["scratch-octaves-2"].recipe.generator)  # type: ignore[union-attr]


def test_paths_in_a_file_begin_at_the_file_and_a_recipe_can_be_changed_from_outside(
    tuned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "noise.yaml").write_text(yaml.safe_dump(PERLIN))
    tuned["arms"]["perlin"]["finetune"]["mixing"]["recipe"] = "noise.yaml"
    tuned["finetune"]["mixing"] = {"recipe": "perlin"}
    tuned["sizes"] = {"other": {"arms": {"weak": {"finetune": {"mixing": {"recipe": "noise.yaml"}}}}}}
    (folder / "comparison.yaml").write_text(yaml.safe_dump(tuned))
    monkeypatch.chdir(tmp_path)
    changes = ["arms.perlin.finetune.mixing.recipe.generator.grid=4", "finetune.mixing.recipe.canvas.size=48"]
    for size in ("full", "other"):
        settings = ComparisonSettings.load(folder / "comparison.yaml", changes, size=size)
        found = {name: settings.finetune_settings(name, 0).mixing for name in settings.variants}
        assert found["weak"].recipe.id == Recipe.from_dict(PERLIN).id  # type: ignore[union-attr]
        assert found["perlin"].recipe.id != Recipe.from_dict(PERLIN).id  # type: ignore[union-attr]
        assert found["slow"].recipe.canvas.size == 48  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("pretrain", {"mixing": {"recipe": PERLIN}}, "pretrain.mixing: is for fine-tuning alone: leave it out"),
        ("finetune", {"held_out": 2}, "finetune.held_out: is for pre-training alone: leave it out"),
        ("arms", {"plain": {"finetune": {"held_out": 2}}}, "arms.plain.finetune.held_out: is for pre-training alone"),
        ("arms.plain", {"recipe": PERLIN, "pretrain": {"mixing": {"recipe": PERLIN}}},
         "arms.plain.pretrain.mixing: is for fine-tuning alone: leave it out"),
        ("arms.weak.finetune", {"mixing": {"recipe": "perlinn"}},
         "arms.weak.finetune.mixing.recipe: perlinn: no such file, and no generator of this name (did you mean "),
        ("arms.weak.finetune", {"mixing": {"rounds": 2}}, "arms.weak.finetune.mixing.recipe: is missing"),
        ("arms.weak.finetune", {"mixing": {"recipe": PERLIN, "beta": -1}}, "arms.weak.finetune.mixing.beta: -1 is not"),
        ("arms.weak.finetune", {"learning_rat": 1}, "arms.weak.finetune.learning_rat: there is no such setting"),
        ("arms.weak.finetune", {"decoder": "fpn"}, "arms.weak.finetune.decoder: no downstream has masks: leave it out"),
        ("arms.weak.finetune", {"seed": 1}, "arms.weak.finetune.seed: is set for the whole comparison, by 'seeds'"),
        ("finetune", {"mixing": {"recipe": PERLIN, "round": 1}}, "finetune.mixing.round: there is no such setting"),
        ("sweep", {"finetune.mixing.rounds": [2]}, "sweep.finetune.mixing.rounds: plain at 2: finetune.mixing"),
    ],
)  # fmt: skip
def test_wrong_settings_of_an_arms_fine_tuning_are_one_line(tuned: Any, path: str, value: Any, named: str) -> None:
    *parents, last = path.split(".")
    node = tuned
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    with pytest.raises(ConfigError) as error:
        parse(ComparisonSettings, tuned)
    assert error.value.problems[0].startswith(named)


def test_pictures_smaller_than_the_models_input_are_refused_with_their_arm(tuned: Any) -> None:
    small = {**PERLIN, "canvas": {"size": 31, "padding": 0}}
    tuned["arms"]["weak"]["finetune"]["mixing"]["recipe"] = small
    with pytest.raises(
        ConfigError, match=r"^arms\.weak\.finetune\.mixing\.recipe: draws images of 31 x 31 .* crop, 32"
    ):
        check_models(parse(ComparisonSettings, tuned))
    tuned["finetune"]["mixing"] = {"recipe": small}
    del tuned["arms"]["weak"], tuned["arms"]["perlin"]
    with pytest.raises(ConfigError, match=r"^finetune\.mixing\.recipe: draws images of 31 x 31"):
        check_models(parse(ComparisonSettings, tuned))


def test_a_comparison_of_mixed_formulas_runs_and_says_what_was_mixed(tuned: Any, tmp_path: Path) -> None:
    del tuned["arms"]["weak"], tuned["arms"]["slow"]
    result = compare(tuned, out=tmp_path / "out", show_progress=False)
    assert all(row.score is not None for row in result.results)
    text = (tmp_path / "out" / "results.md").read_text()
    assert "Does pre-training" not in text and "No arm is the baseline" not in text
    facts = result.findings.arms["perlin"]
    assert facts.baseline == "plain"
    mixed = "mixing of perlin: 4 categories x 2 images of 32 x 32, gray"
    assert facts.origin == f"training from scratch; fine-tuned with {mixed}"
