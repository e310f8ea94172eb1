"""Arms whose weights lie in a file that does not say how its images were normalised."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from formulavision import ConfigError, Run, compare
from formulavision.comparison import ComparisonSettings
from formulavision.comparison.plan import Finetuning, Probing, check_models, plan_stages
from formulavision.util.config import dump_yaml, parse

AS_TRAINED = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "FractalDB-1000_epoch90.pth"
    torch.save({"model": timm.create_model("test_resnet", num_classes=1000).state_dict()}, path)
    return path


@pytest.fixture
def published(small: dict[str, Any], file: Path) -> dict[str, Any]:
    arms = {"scratch": {}, "bare": {"checkpoint": str(file)},
            "published": {"checkpoint": str(file), "preprocessing": AS_TRAINED}}  # fmt: skip
    return {**small, "arms": arms, "probes": ["linear"]}


def keys(data: dict[str, Any], arm: str) -> list[str]:
    stages = plan_stages(parse(ComparisonSettings, data), Path("runs"), lambda dataset, train_only=False: "images")
    return [stage.key for stage in stages if isinstance(stage, Finetuning | Probing) and stage.arm == arm]


def test_preprocessing_is_the_arms_alone(published: dict[str, Any]) -> None:
    settings = parse(ComparisonSettings, published)
    tuned = {name: settings.finetune_settings(name, 0) for name in settings.arms}
    assert tuned["published"].mean == (0.5, 0.5, 0.5) and tuned["published"].interpolation == "bicubic"
    assert tuned["bare"] == tuned["scratch"] and tuned["bare"].mean == (0.2, 0.2, 0.2)
    assert parse(ComparisonSettings, settings.to_dict()) == settings
    swept = parse(ComparisonSettings, {**published, "sweep": {"finetune.interpolation": ["bilinear"]}})
    assert swept.finetune_settings("published-interpolation-bilinear", 0).interpolation == "bilinear"


def test_a_stage_is_named_after_the_files_content_and_the_preprocessing(
    published: dict[str, Any], file: Path, tmp_path: Path
) -> None:
    own, bare = keys(published, "published"), keys(published, "bare")
    assert len(own) == len(bare) == 2 and not {*own} & {*bare}
    moved = tmp_path / "elsewhere.pth"
    shutil.copy(file, moved)
    published["arms"]["published"] = {"checkpoint": str(moved), "preprocessing": AS_TRAINED}
    assert keys(published, "published") == own
    published["arms"]["published"]["preprocessing"] = {**AS_TRAINED, "interpolation": "bilinear"}
    assert not {*keys(published, "published")} & {*own, *bare}
    published["arms"]["published"]["preprocessing"] = {}
    assert keys(published, "published") == bare


@pytest.mark.parametrize(
    ("arm", "problem"),
    [
        ({"preprocessing": AS_TRAINED}, "arms.x.preprocessing: is for an arm with a checkpoint"),
        (
            {"images": {"kind": "digits"}, "preprocessing": AS_TRAINED},
            "arms.x.preprocessing: is for an arm with a check",
        ),
        ({"checkpoint": "a.pth", "preprocessing": {"mean": [0.5] * 3}}, "arms.x.preprocessing.std: is missing"),
        ({"checkpoint": "a.pth", "preprocessing": {"crop": 64}}, "preprocessing.crop: is that of the comparison"),
        ({"checkpoint": "a.pth", "preprocessing": {"means": [0]}}, "preprocessing.means: there is no such setting"),
        ({"checkpoint": "a.pth", "preprocessing": {"epochs": 3}}, "preprocessing.epochs: there is no such setting"),
        ({"checkpoint": "a.pth", "preprocessing": {"mean": [0.5], "std": [0.5]}}, "arms.x.preprocessing.mean"),
        ({"checkpoint": "a.pth", "preprocessing": {"mean": [0.5] * 3, "std": [0, 1, 1]}}, "must be above 0 in every"),
        ({"checkpoint": "a.pth", "preprocessing": {"interpolation": "nearest"}}, "arms.x.preprocessing.interpolation"),
    ],
)
def test_bad_preprocessing_is_told_in_a_line(small: dict[str, Any], arm: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(ComparisonSettings, {**small, "arms": {"x": arm}})


def test_a_file_of_another_architecture_is_told_before_the_work(published: dict[str, Any], file: Path) -> None:
    torch.save({"state_dict": timm.create_model("test_vit", num_classes=1000).state_dict()}, file)
    with pytest.raises(
        ConfigError, match=r"arms.bare.checkpoint: .*does not fit the model, a ResNet: has 0 of its \d+"
    ):
        check_models(parse(ComparisonSettings, published))


def test_a_relative_path_starts_at_the_file(published: dict[str, Any], file: Path) -> None:
    published["arms"]["published"]["checkpoint"] = file.name
    (file.parent / "comparison.yaml").write_text(dump_yaml(published))
    settings = ComparisonSettings.load(file.parent / "comparison.yaml")
    assert settings.arms["published"].checkpoint == str(file)


@pytest.mark.slow
def test_published_weights_are_fine_tuned_with_their_preprocessing(published: dict[str, Any], tmp_path: Path) -> None:
    found = compare(published, out=tmp_path / "out", show_progress=False)
    assert not found.failures
    for arm, mean in {"published": 0.5, "bare": 0.2}.items():
        (folder,) = (tmp_path / "out" / "runs" / arm).glob("digits-[0-9a-f]*")
        assert Run.load(folder).settings["settings"]["mean"] == [mean] * 3
