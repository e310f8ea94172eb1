"""Fine-tuning with pictures that a recipe draws: exact resuming, and what is refused in one line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparing_runs import comparable, same, stopped_and_resumed
from pair import Pair

from formulavision import ConfigError, FormulaDataModule, Recipe, evaluate, finetune, pretrain
from formulavision.training import Run, TrainSettings
from formulavision.training.tasks import for_target
from formulavision.util.config import parse

PICTURES: dict[str, Any] = {
    "generator": "perlin", "categories": 4, "instances": 3, "canvas": {"size": 40, "padding": 0}
}  # fmt: skip
DIGITS = {"kind": "digits", "train_per_class": 6, "test_per_class": 4}
AUGMENTED: dict[str, Any] = {
    "rand_augment": "rand-m9-mstd0.5-inc1", "random_resized_crop": [0.5, 1.0], "color_jitter": 0.4,
    "random_erasing": 0.25, "repeated_augmentation": 2, "vertical_flip": True, "mixup": 0.8, "cutmix": 1.0,
}  # fmt: skip


def tune(settings: dict[str, Any], out: Path, **more: Any) -> Run:
    return finetune(None, DIGITS, out=out, settings=settings, show_progress=False, **more)


@pytest.fixture(scope="module")
def mixed(small: Any) -> dict[str, Any]:
    """Every augmentation, with mixing behind it."""
    return {**small, **AUGMENTED, "mixing": {"recipe": PICTURES, "rounds": 3}, "checkpoint_minutes": 0}


@pytest.fixture(scope="module")
def whole(mixed: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tune(mixed, tmp_path_factory.mktemp("mixed") / "whole")


@pytest.mark.parametrize(("workers", "steps"), [(2, [3]), pytest.param(0, [1, 3], marks=pytest.mark.slow)])
def test_a_run_with_every_augmentation_and_mixing_resumes_exactly(
    mixed: Any, whole: Run, tmp_path: Path, workers: int, steps: list[int]
) -> None:
    run = stopped_and_resumed(DIGITS, tmp_path / "run", {**mixed, "workers": workers}, steps, partial(finetune, None))
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


@pytest.mark.slow
def test_two_processes_mix_the_pictures_of_one(pair: Pair, small: Any, tmp_path: Path) -> None:
    settings = {**small, "mixing": {"recipe": PICTURES}, "learning_rate": 0.005, "channels_last": False}
    one = tune(settings, tmp_path / "one")
    two = pair(finetune, None, DIGITS, out=tmp_path / "two", settings=settings, show_progress=False)
    unlike = tune({**settings, "mixing": None}, tmp_path / "unlike")
    losses = [[row["train_loss"] for row in run.history] for run in (one, two, unlike)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) != losses[2]


def test_mixing_changes_what_is_trained(mixed: Any, whole: Run, tmp_path: Path) -> None:
    plain = tune({**mixed, "mixing": None}, tmp_path / "plain")
    assert not same(plain.folder, whole.folder)


def test_mixing_is_recorded_in_full(whole: Run) -> None:
    recorded = yaml.safe_load((whole.folder / "settings.yaml").read_text())["settings"]["mixing"]
    assert Recipe.from_dict(recorded.pop("recipe")).id == Recipe.from_dict(PICTURES).id
    assert recorded == {"rounds": 3, "beta": 3.0, "severity": 3.0}
    assert evaluate(whole.folder, DIGITS, show_progress=False).images == 40


def test_a_run_is_resumed_with_its_own_mixing_and_no_other(mixed: Any, whole: Run, small: Any) -> None:
    file = whole.folder.parent / "recipe.yaml"
    file.write_text(yaml.safe_dump(PICTURES))
    for given in ({}, mixed, TrainSettings(**mixed), {"mixing": {"rounds": 3}}, {"mixing": {"recipe": file}}):
        run = finetune(out=whole.folder, settings=given, resume=True, show_progress=False)
        assert run.weights_sha256 == whole.weights_sha256
    for other in ({"rounds": 4}, {"recipe": {**PICTURES, "seed": 2}}, None):
        with pytest.raises(ConfigError, match=r"^resume: settings\.mixing is .* and was .*'rounds': 3") as error:
            finetune(out=whole.folder, settings={"mixing": other}, resume=True, show_progress=False)
        assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("mixing", "named"),
    [
        ({"recipe": {**PICTURES, "canvas": {"size": 31}}}, r"^mixing\.recipe: draws images of 31 x 31 pixels, smaller"),
        ({"recipe": "perlinn"}, r"^mixing\.recipe: perlinn: no such file, and no generator .* mean 'perlin'"),
        ({"recipe": "quickstart"}, r"^mixing\.recipe: .*quickstart\.yaml: is a comparison, not a recipe"),
        ({"recipe": {**PICTURES, "canvas": {"siz": 31}}}, r"^mixing\.recipe\.canvas\.siz: there is no such setting"),
        ({"recipe": 7}, r"^mixing\.recipe: a int is not allowed: must be a Recipe, the path of its file"),
        ({"recipe": PICTURES, "round": 2}, r"^mixing\.round: there is no such setting \(did you mean 'rounds'\?\)"),
        ({"recipe": PICTURES, "rounds": 0}, r"^mixing\.rounds: 0 is not allowed"),
        ({"recipe": PICTURES, "rounds": 1.5}, r"^mixing\.rounds: 1.5 is not allowed"),
        ({"recipe": PICTURES, "beta": 0}, r"^mixing\.beta: 0 is not allowed"),
        ({"recipe": PICTURES, "severity": 11}, r"^mixing\.severity: 11 is not allowed"),
        ({"rounds": 2}, r"^mixing\.recipe: is missing"),
        ("perlin", r"^mixing: 'perlin' is not allowed: must be settings \(recipe, rounds, beta, severity\)"),
    ],
)
def test_wrong_mixing_is_one_line_before_the_run(small: Any, tmp_path: Path, mixing: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        tune({**small, "mixing": mixing}, tmp_path / "run")
    assert len(error.value.problems) == 1 and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_checkpoints_crop_counts_too(pretrained: Run, tmp_path: Path) -> None:
    tiny = {"mixing": {"recipe": {**PICTURES, "canvas": {"size": 31}}}, "epochs": 1}
    with pytest.raises(ConfigError, match="smaller than crop, 32"):
        finetune(pretrained.folder, DIGITS, out=tmp_path / "run", settings=tiny, show_progress=False)
    # Its crop of 32 is the checkpoint's, not the 224 of a setting that is not given.
    settings = {"mixing": {"recipe": PICTURES}, "epochs": 1, "batch_size": 16}
    finetune(pretrained.folder, DIGITS, out=tmp_path / "run", settings=settings, show_progress=False)


def test_pre_training_takes_no_mixing(mixed: Any, stripes: Any, tmp_path: Path) -> None:
    for data in (stripes(), PICTURES):
        with pytest.raises(ConfigError, match=r"^mixing: is for fine-tuning alone"):
            pretrain(data, out=tmp_path / "run", settings=mixed, show_progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"^mixing: is for fine-tuning alone"):
        FormulaDataModule(PICTURES, mixed)


def test_masks_take_no_mixing_and_several_labels_do(small: Any) -> None:
    settings = parse(TrainSettings, {**small, "mixing": {"recipe": PICTURES}})
    with pytest.raises(ConfigError, match=r"^mixing: must be unset"):
        for_target(settings, "semantic")
    assert for_target(settings, "labels").mixing == settings.mixing
