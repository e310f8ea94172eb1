"""What an arm starts from, what is done with it, and what a sweep makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from formulavision import compare, sweep
from formulavision.comparison import Comparison, ComparisonSettings
from formulavision.comparison.plan import Datasets
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, DownstreamError


def read(data: dict[str, Any]) -> ComparisonSettings:
    return parse(ComparisonSettings, data)


@pytest.fixture
def quick(small: dict[str, Any]) -> dict[str, Any]:
    """One epoch, one arm."""
    training = {**small["pretrain"], "epochs": 1, "milestones": []}
    return {**small, "arms": {"stripes": small["arms"]["stripes"]}, "pretrain": training, "finetune": training}


# Sources of weights


def test_real_images_are_pre_trained_on_and_labels_replaced(quick: dict[str, Any], tmp_path: Path) -> None:
    real = {"images": {"kind": "digits", "train_per_class": 5}}
    quick["arms"] = {"digits": real, "noisy": {**real, "labels": {"noise": 0.5}}}
    quick |= {"finetuning": False, "probes": ["knn"]}
    result = compare(quick, out=tmp_path / "out", show_progress=False)
    assert not result.failures
    digits, noisy = result.findings.arms.values()
    assert digits.origin == "50 images of 10 classes of digits"
    assert noisy.origin == "50 images of 10 classes of digits, 50 % of the labels replaced"
    assert len({entry.start for entry in result.findings.results}) == 2


def test_a_pre_training_that_fails_fails_once_for_all_its_rows(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import formulavision.training

    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(formulavision.training, "pretrain", fail)
    quick["freeze"] = ["none", "conv1"]
    result = compare(quick, out=tmp_path / "out", show_progress=False)
    errors = {row.error for row in result.results}
    assert len(result.results) == 2 and len(errors) == 1
    assert str(errors.pop()).startswith("RuntimeError: out of memory (traceback: logs/stripes-pretrain-")
    assert calls == [1]


def test_images_that_are_not_there_are_refused_by_the_path_of_their_setting(
    quick: dict[str, Any], tmp_path: Path
) -> None:
    quick["arms"] = {"real": {"images": {"kind": "folder", "root": str(tmp_path / "nowhere")}}}
    with pytest.raises(DownstreamError, match=r"arms\.real\.images: .*nowhere: no such folder"):
        compare(quick, out=tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_known_by_its_images_wherever_it_lies(tmp_path: Path, small: dict[str, Any]) -> None:
    import numpy as np
    from PIL import Image

    def folder(name: str, images: int) -> dict[str, str]:
        for side in ("train", "test"):
            for label in ("a", "b"):
                (tmp_path / name / side / label).mkdir(parents=True)
                for i in range(images):
                    pixels = np.full((8, 8, 3), i, np.uint8)
                    Image.fromarray(pixels).save(tmp_path / name / side / label / f"{i}.png")
        return {"kind": "folder", "root": str(tmp_path / name)}

    small["downstreams"] = {"one": folder("one", 3), "copy": folder("copy", 3), "other": folder("other", 4)}
    settings = read(small)
    datasets = Datasets(settings)
    one, copy, other = (datasets.digest(dataset) for dataset in settings.downstreams.values())
    assert one == copy != other


# What is done with them


def test_probes_have_their_rows(quick: dict[str, Any], tmp_path: Path) -> None:
    quick |= {"finetuning": False, "probes": ["linear", "knn"]}
    quick["arms"]["scratch"] = {}
    result = compare(quick, out=tmp_path / "out", show_progress=False)
    assert not result.failures
    assert [(row.arm, row.freeze) for row in result.results] == [
        (arm, probe) for arm in ("stripes", "scratch") for probe in ("linear-probe", "knn-probe")
    ]
    assert all(row.score is not None and row.finetune_seconds is None for row in result.results)
    assert all(row.evaluate_seconds is not None for row in result.results)
    assert len({entry.folder for entry in result.findings.results}) == 4
    text = (tmp_path / "out/results.md").read_text()
    assert "| stripes | all (linear probe) |" in text
    assert "| stripes | all (nearest neighbours) |" in text


# Sweeps


def test_each_value_of_a_sweep_is_an_arm_and_an_added_one_runs_alone(quick: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = sweep(quick, {"generator.contrast": [20]}, out=out, show_progress=False)
    assert [row.arm for row in first.results] == ["stripes-contrast-20"]
    assert not first.failures
    facts = first.findings.arms["stripes-contrast-20"]
    assert (facts.base, facts.path, facts.value) == ("stripes", "generator.contrast", 20)
    before = {folder.name for folder in (out / "runs").iterdir()}
    more = sweep(quick, {"generator": {"contrast": (20, 60)}}, out=out, show_progress=False)
    assert {folder.name for folder in (out / "runs").iterdir()} - before == {"stripes-contrast-60"}
    assert more.findings.to_csv().splitlines()[:2] == first.findings.to_csv().splitlines()


def test_a_sweep_touches_the_arms_that_have_the_setting(small: dict[str, Any]) -> None:
    del small["arms"]["broken"]
    small["sweep"] = {"instances": [8, 16], "finetune.learning_rate": [0.1]}
    settings = read(small)
    assert list(settings.variants) == [
        "scratch-learning_rate-0.1",
        "stripes-instances-8",
        "stripes-instances-16",
        "stripes-learning_rate-0.1",
    ]
    recipe = settings.variants["stripes-instances-8"].arm.recipe
    assert recipe is not None
    assert recipe.num_instances == 8
    assert settings.finetune_settings("stripes-learning_rate-0.1", 0).learning_rate == 0.1
    assert settings.baseline("stripes-learning_rate-0.1") == "scratch-learning_rate-0.1"
    assert settings.baseline("stripes-instances-8") is None, "no arm from scratch is fine-tuned as this one is"


def test_swept_values_may_be_numpys(small: dict[str, Any]) -> None:
    del small["arms"]["broken"]
    swept = read(small).with_sweep(
        {"instances": list(np.arange(8, 24, 8)), "finetune.learning_rate": [np.float32(0.5)]}
    )
    assert swept.sweep == {"instances": [8, 16], "finetune.learning_rate": [0.5]}
    assert read(yaml.safe_load(swept.to_yaml())) == swept


def test_a_sweep_can_touch_one_arm_alone(small: dict[str, Any]) -> None:
    small["sweep"] = {"arms.stripes.pretrain.epochs": [1, 2], "arms.stripes.labels.noise": [0.5]}
    assert list(read(small).variants) == [
        "scratch",
        "stripes-epochs-1",
        "stripes-epochs-2",
        "stripes-noise-0.5",
        "broken",
    ]


def test_settings_of_the_same_name_are_told_apart_by_their_parents(small: dict[str, Any]) -> None:
    del small["arms"]["broken"]
    small["sweep"] = {"pretrain.learning_rate": [0.1], "finetune.learning_rate": [0.1], "instances": [8]}
    assert list(read(small).variants) == [
        "scratch-finetune.learning_rate-0.1",
        "stripes-pretrain.learning_rate-0.1",
        "stripes-finetune.learning_rate-0.1",
        "stripes-instances-8",
    ]
    small["arms"]["stripes"]["labels"] = {"noise": 0.5}
    small["arms"]["other"] = small["arms"]["stripes"]
    small["sweep"] = {"seed": [1], "labels.seed": [1], "arms.other.pretrain.epochs": [1], "finetune.epochs": [1]}
    assert list(read(small).variants)[:4] == [
        "scratch-epochs-1",
        "stripes-seed-1",
        "stripes-labels.seed-1",
        "stripes-epochs-1",
    ]


def test_another_sweep_leaves_out_what_was_said_of_the_points_of_the_files_own(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick |= {
        "sweep": {"generator.contrast": [20, 60]},
        "against": "stripes-contrast-20",
        "paper": {"digits": {"stripes-contrast-60": 90.0, "stripes": 80.0}},
    }
    kept: list[ComparisonSettings] = []
    monkeypatch.setattr("formulavision.comparison.run.compare", lambda settings, **_: kept.append(settings))
    sweep(quick, {"generator.contrast": [20, 30]}, out=tmp_path / "out")
    sweep(read(quick), {"generator.contrast": [30]}, out=tmp_path / "out")
    assert [settings.against for settings in kept] == ["stripes-contrast-20", None]
    assert [settings.paper for settings in kept] == [{"digits": {"stripes": 80.0}}] * 2
    assert list(kept[1].variants) == ["stripes-contrast-30"]


def test_what_follows_from_a_swept_setting_follows_it(small: dict[str, Any]) -> None:
    # The number of a Bezier grid's categories is the square of its side.
    small["arms"] = {"curves": {"recipe": {"generator": {"name": "bezier"}, "instances": 2}}}
    swept = read(read({**small, "sweep": {"generator.grid": [4, 5]}}).to_dict())
    counts = [variant.arm.recipe.num_categories for variant in swept.variants.values() if variant.arm.recipe]
    assert counts == [16, 25]


def test_a_sweep_of_what_no_arm_has_is_refused(quick: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.generator\.contrst: stripes at 1: .*did you mean 'contrast'"):
        sweep(quick, {"generator.contrst": [1]}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"sweep\.arms\.strips\.pretrain\.epochs: there is no such arm"):
        sweep(quick, {"arms.strips.pretrain.epochs": [1]}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"sweep\.instances: 8 is not allowed: must be a list of values"):
        sweep(quick, {"instances": 8}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Sharing


def test_another_comparison_takes_its_arms_from_the_shared_stages(
    first: Comparison, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import formulavision.training

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    for name in ("pretrain", "finetune"):
        monkeypatch.setattr(formulavision.training, name, refuse)
    settings["arms"] = {"renamed": settings["arms"]["stripes"]}
    result = compare(settings, out=tmp_path / "deep/out", runs=first.folder / "runs", show_progress=False)
    assert not result.failures
    (entry,) = result.findings.results
    assert entry.folder is not None
    assert (result.folder / entry.folder / "model.safetensors").is_file()
    assert entry.history == first.findings.results[1].history
    assert result.findings.arms["renamed"].content == first.findings.arms["stripes"].content
