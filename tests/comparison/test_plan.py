"""A stage is named after all that determines it, and after nothing else."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import Field

from formulavision import ConfigError
from formulavision.comparison import Arm, ComparisonSettings
from formulavision.comparison.plan import (
    Datasets,
    Finetuning,
    Generation,
    Pretraining,
    Probing,
    ResultStage,
    Stage,
    key_of,
    plan_stages,
)
from formulavision.data.labels import LabelSettings
from formulavision.training.settings import TrainSettings
from formulavision.util.config import parse
from formulavision.util.errors import DownstreamError

RUNS = Path("runs")


def plan(data: dict[str, Any], runs: Path = RUNS) -> list[Stage]:
    return plan_stages(parse(ComparisonSettings, data), runs, digest)


def stages(data: dict[str, Any], runs: Path = RUNS) -> list[ResultStage]:
    """The stages that end in a result."""
    return [stage for stage in plan(data, runs) if isinstance(stage, ResultStage)]


def digest(dataset: Any, *, train_only: bool = False) -> str:
    return f"{dataset.kind} {dataset.train_per_class}" + ("" if train_only else f" {dataset.test_per_class}")


def probes(data: dict[str, Any], arm: str, **changes: Any) -> list[Probing]:
    """Linear probes of an arm, where settings of fine-tuning are changed."""
    probed = {**data, "probes": ["linear"], "finetune": {**data["finetune"], **changes}}
    return [row for row in stages(probed) if isinstance(row, Probing) and row.arm == arm]


def finetunings(data: dict[str, Any], arm: str, **changes: Any) -> list[Path]:
    changed = {**data, "finetune": {**data["finetune"], **changes}}
    return [row.folder for row in stages(changed) if isinstance(row, Finetuning) and row.arm == arm]


@pytest.fixture
def published(small: dict[str, Any]) -> dict[str, Any]:
    """With an arm that is trained elsewhere."""
    return {**small, "arms": {**small["arms"], "published": {"checkpoint": "timm:test_resnet"}}}


def folders(data: dict[str, Any]) -> set[Path]:
    """Of all stages but those that generate stores, which are known by their recipe."""
    return {stage.folder for stage in plan(data) if not isinstance(stage, Generation)}


def keys(found: set[Path]) -> set[str]:
    return {key_of(folder) for folder in found}


# The plan


def test_finished_runs_of_earlier_versions_are_found_again(small: dict[str, Any]) -> None:
    small |= {"model": "resnet10t", "probes": ["linear"], "freeze": ["none", "conv1"]}
    small["arms"] = {"scratch": None, "stripes": {**small["arms"]["stripes"], "labels": {"noise": 0.5}}}
    small["arms"]["real"] = {"images": {"kind": "digits", "train_per_class": 5}, "pretrain": {"epochs": 3}}
    assert [str(stage.folder) for stage in plan(small)] == [
        "runs/scratch/digits-d46f9983eefee47e",
        "runs/scratch/digits-0ac61a54c54a2a26",
        "runs/scratch/digits-linear-253841b4336333a9",
        "runs/stripes/pretrain-d0f12a02eb87f4f3",
        "runs/stripes/digits-f7681d0edef02b48",
        "runs/stripes/digits-6267483ad4bcd2cf",
        "runs/stripes/digits-linear-6baa4219d8ad5d33",
        "runs/real/pretrain-1c9cb2c61bd583ac",
        "runs/real/digits-f05dbf23b51458e3",
        "runs/real/digits-0ae66f405b4ac8af",
        "runs/real/digits-linear-56a2113d60276f06",
    ]


def test_the_plan_is_a_list_in_which_each_stage_stands_behind_those_that_it_needs(small: dict[str, Any]) -> None:
    small |= {"data": "stored", "seeds": [0, 1], "probes": ["knn"]}
    del small["arms"]["broken"]
    stages = plan(small)
    assert [str(stage) for stage in stages] == [
        "scratch on digits, frozen: none, seed 0",
        "scratch on digits, knn probe, seed 0",
        "scratch on digits, frozen: none, seed 1",
        "scratch on digits, knn probe, seed 1",
        "store of stripes",
        "pre-training of stripes, seed 0",
        "stripes on digits, frozen: none, seed 0",
        "stripes on digits, knn probe, seed 0",
        "pre-training of stripes, seed 1",
        "stripes on digits, frozen: none, seed 1",
        "stripes on digits, knn probe, seed 1",
    ]
    done: set[str] = set()
    for stage in stages:
        assert {before.key for before in stage.needs} <= done
        done.add(stage.key)
    assert len(done) == len(stages)


def test_a_stage_can_be_computed_by_another_process(small: dict[str, Any]) -> None:
    stages = plan({**small, "data": "stored", "probes": ["knn"]})
    assert pickle.loads(pickle.dumps(stages)) == stages


# What is in a key


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"paper": {"digits": {"scratch": 1}}},
        {"reach": [0.5]},
        {"pictures": False},
        {"against": "stripes"},
        {"size": "smoke"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_the_report_says_changes_no_stage(small: dict[str, Any], change: dict[str, Any]) -> None:
    assert folders(small | change) == folders(small)


def test_where_how_fast_and_by_how_many_processes_it_is_computed_changes_no_stage(small: dict[str, Any]) -> None:
    elsewhere = {"device": "auto", "workers": 3, "devices": 2, "draw_on": "cpu", "compile": True}
    elsewhere |= {"channels_last": True}
    small["probes"] = ["linear"]
    changed = {key: {**small[key], **elsewhere, "checkpoint_minutes": 1} for key in ("pretrain", "finetune")}
    assert folders(small | changed) == folders(small)


def test_what_pre_training_is_validated_on_changes_no_stage(small: dict[str, Any]) -> None:
    assert folders({**small, "pretrain": {**small["pretrain"], "held_out": 4}}) == folders(small)
    real = {"kind": "digits", "train_per_class": 5}

    def start(**more: int) -> Any:
        (row,) = stages({**small, "arms": {"real": {"images": {**real, **more}}}})
        return row.start

    assert start(test_per_class=3).folder == start().folder != start(train_per_class=4).folder


def test_normalisation_that_is_not_set_is_the_checkpoints_and_not_the_default(published: dict[str, Any]) -> None:
    default = TrainSettings()
    for arm in ("published", "stripes"):
        for same in ({"mean": default.mean}, {"std": default.std}):
            assert finetunings(published, arm, **same) != finetunings(published, arm)
            assert probes(published, arm, **same)[0].key != probes(published, arm)[0].key
    both = {"mean": default.mean, "std": default.std}
    assert finetunings(published, "scratch", **both) == finetunings(published, "scratch")
    assert probes(published, "scratch", **both) == probes(published, "scratch")


def test_a_runs_folder_and_the_weights_in_it_tell_how_images_were_prepared_and_another_file_does_not(
    small: dict[str, Any], tmp_path: Path
) -> None:
    for name, mean in (("one", 0.2), ("other", 0.3), ("copy", 0.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "settings.yaml").write_text(f"settings: {{mean: [{mean}], std: [1]}}")
    sources = {name: str(tmp_path / name) for name in ("one", "other", "copy")}
    sources["inside"] = f"{sources['one']}/model.safetensors"
    sources["file"] = f"{tmp_path}/w.safetensors"
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    small["arms"] = {name: {"checkpoint": source} for name, source in sources.items()}
    key = {row.arm: row.key for row in stages(small)}
    assert key["one"] == key["copy"] == key["inside"]
    assert len({key["one"], key["other"], key["file"]}) == 3


def test_resizing_of_other_weights_is_in_the_key_and_the_default_is_not(small: dict[str, Any], tmp_path: Path) -> None:
    def key(more: str) -> str:
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        (tmp_path / "settings.yaml").write_text(f"settings: {{mean: [0.2], std: [1]{more}}}")
        (row,) = stages({**small, "arms": {"run": {"checkpoint": str(tmp_path)}}})
        return row.key

    assert key("") == key(", resize_mode: squash, interpolation: bilinear")
    assert len({key(""), key(", resize_mode: center"), key(", interpolation: bicubic")}) == 3


def test_resizing_changes_a_stage_where_it_is_not_the_default(published: dict[str, Any]) -> None:
    for arm in ("scratch", "stripes", "published"):
        for change in ({"resize_mode": "center"}, {"interpolation": "bicubic"}):
            assert finetunings(published, arm, **change) != finetunings(published, arm)
            assert probes(published, arm, **change)[0].folder != probes(published, arm)[0].folder
        same = {"resize_mode": "squash", "interpolation": "bilinear"}
        assert arm == "published" or finetunings(published, arm, **same) == finetunings(published, arm)


def test_images_have_one_size_in_all_arms_that_of_pre_training_where_it_is_not_set(published: dict[str, Any]) -> None:
    def sizes(pretrain: dict[str, int], finetune: dict[str, int]) -> set[tuple[int, int]]:
        data = {
            **published,
            "pretrain": {k: v for k, v in published["pretrain"].items() if k not in ("resize", "crop")} | pretrain,
            "finetune": {k: v for k, v in published["finetune"].items() if k not in ("resize", "crop")} | finetune,
        }
        rows = stages({**data, "probes": ["knn"]})
        # Set, so that no checkpoint fills in its own.
        assert all({"resize", "crop"} <= row.settings.model_fields_set for row in rows)
        return {(row.settings.resize, row.settings.crop) for row in rows}

    assert sizes({}, {}) == {(256, 224)}
    assert sizes({"crop": 32}, {}) == {(37, 32)}
    assert sizes({"crop": 32, "resize": 40}, {}) == {(40, 32)}
    assert sizes({"crop": 32}, {"crop": 64}) == {(73, 64)}


@pytest.mark.parametrize("change", [{"precision": "bf16-mixed"}, {"crop": 24}, {"resize": 40}, {"std": (1, 1, 1)}])
def test_another_way_to_see_images_is_another_probe(published: dict[str, Any], change: dict[str, Any]) -> None:
    for arm in ("scratch", "stripes", "published"):
        assert probes(published, arm, **change)[0].folder != probes(published, arm)[0].folder
        assert probes(published, arm, epochs=7)[0].folder == probes(published, arm)[0].folder


def test_a_probe_sees_images_as_fine_tuning_does(published: dict[str, Any]) -> None:
    (seen,) = probes(published, "published", resize=40, mean=(0.1, 0.1, 0.1))
    assert (seen.settings.resize, seen.settings.crop, seen.settings.mean) == (40, 32, (0.1, 0.1, 0.1))
    assert {"model", "resize", "crop", "mean", "precision"} < seen.settings.model_fields_set
    assert "std" not in seen.settings.model_fields_set


def test_probes_of_a_checkpoint_have_one_row_whatever_the_seeds(published: dict[str, Any]) -> None:
    seeds = {seed: probes(published | {"seeds": [seed, 9]}, "published") for seed in (0, 1)}
    assert [[row.seed for row in rows] for rows in seeds.values()] == [[0], [1]]
    assert seeds[0][0].folder == seeds[1][0].folder
    for arm in ("scratch", "stripes"):
        first, second = probes(published | {"seeds": [0, 1]}, arm)
        assert first.folder != second.folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", [0, 1]),
        ("freeze", ["none", "conv1"]),
        ("probes", ["knn"]),
        ("sweep", {"generator.contrast": [100, 50]}),
    ],
)
def test_what_is_added_leaves_the_rest_as_it_is(small: dict[str, Any], key: str, value: Any) -> None:
    del small["arms"]["broken"]
    assert keys(folders(small)) < keys(folders({**small, key: value}))


def test_another_image_of_a_dataset_is_another_stage_and_another_place_is_not(small: dict[str, Any]) -> None:
    moved = {**small, "downstreams": {"renamed": {**small["downstreams"]["digits"], "root": "/elsewhere"}}}
    assert keys(folders(moved)) == keys(folders(small))
    other = {**small, "downstreams": {"digits": {"kind": "digits", "train_per_class": 5}}}
    assert len(folders(other) & folders(small)) == 2  # the pre-trainings


def test_arms_with_the_same_content_share_their_stages(small: dict[str, Any]) -> None:
    small["arms"]["again"] = small["arms"]["stripes"]
    rows = {row.arm: row for row in stages(small)}
    assert rows["again"].folder == rows["stripes"].folder
    assert rows["again"].content == rows["stripes"].content != rows["broken"].content


def test_content_is_the_same_for_every_seed_downstream_and_frozen_layers(small: dict[str, Any]) -> None:
    small |= {"seeds": [0, 1], "freeze": ["none", "conv1"], "probes": ["linear"]}
    small["downstreams"]["more"] = {"kind": "digits"}
    small["arms"]["noisy"] = {**small["arms"]["stripes"], "labels": {"noise": 0.5}}
    rows = stages(small)
    assert len(rows) == 4 * 2 * 2 * 3
    assert len({(row.arm, row.content) for row in rows}) == 4


def test_stored_images_are_those_of_one_epoch_drawn_again_and_again(small: dict[str, Any]) -> None:
    same = {**small, "pretrain": {**small["pretrain"], "fresh": False}}
    assert folders({**same, "data": "stored"}) == folders(same)
    assert folders({**small, "data": "stored"}) == folders(same)
    assert folders(small) != folders(same)


def test_labels_are_a_part_of_pre_training(small: dict[str, Any]) -> None:
    small["sweep"] = {"labels.noise": [0.0, 0.5]}
    starts = {row.start.folder for row in stages(small) if isinstance(row.start, Pretraining)}
    assert len(starts) == 2 * 2


def test_labels_drawn_by_another_seed_are_another_arm(small: dict[str, Any]) -> None:
    plain = small["arms"]["stripes"]
    small["arms"] = {f"noisy-{seed}": {**plain, "labels": {"noise": 0.5, "seed": seed}} for seed in (0, 1)}
    first, second = stages(small)
    assert first.content != second.content


def test_random_weights_are_probed_too(small: dict[str, Any]) -> None:
    small |= {"finetuning": False, "probes": ["linear", "knn"]}
    assert {(row.arm, row.freeze) for row in stages(small)} == {
        (arm, probe) for arm in ("scratch", "stripes", "broken") for probe in ("linear-probe", "knn-probe")
    }


def test_a_stage_that_another_arm_was_made_for_is_found(small: dict[str, Any], tmp_path: Path) -> None:
    (before,) = [row.folder for row in stages(small, tmp_path) if row.arm == "stripes"]
    before.mkdir(parents=True)
    small["arms"] = {"renamed": small["arms"]["stripes"]}
    assert [row.folder for row in stages(small, tmp_path)] == [before]


def test_no_noise_is_the_arm_without_it(small: dict[str, Any]) -> None:
    plain = small["arms"]["stripes"]
    arms = {"plain": plain, "quiet": {**plain, "labels": {"noise": 0.0}}, "noisy": {**plain, "labels": {"noise": 0.5}}}
    starts = {row.arm: row.start for row in stages({**small, "arms": arms}) if isinstance(row.start, Pretraining)}
    assert starts["quiet"].folder == starts["plain"].folder != starts["noisy"].folder
    assert starts["quiet"].labels is None


def test_a_training_setting_that_is_added_changes_no_stage_while_it_is_neutral(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class LaterSettings(TrainSettings):
        sharpness: float = Field(0.0, description="sharpness", json_schema_extra={"neutral": 0.0})

    small["probes"] = ["linear"]
    before = folders(small)
    for module in ("settings", "plan"):
        monkeypatch.setattr(f"formulavision.comparison.{module}.TrainSettings", LaterSettings)
    assert folders(small) == before
    small["pretrain"] = {**small["pretrain"], "sharpness": 0.0}
    assert folders(small) == before
    small["pretrain"] = {**small["pretrain"], "sharpness": 0.5}
    assert folders(small) != before


def test_a_setting_of_labels_that_is_added_changes_no_stage_while_it_is_neutral(small: dict[str, Any]) -> None:
    class LaterLabels(LabelSettings):
        side: str = Field("left", description="side", json_schema_extra={"neutral": "left"})

    def noisy(labels: LabelSettings) -> set[Path]:
        stripes = parse(ComparisonSettings, small).arms["stripes"]
        return folders({**small, "arms": {"noisy": Arm(recipe=stripes.recipe, labels=labels)}})

    before = noisy(LabelSettings(noise=0.5))
    assert noisy(LaterLabels(noise=0.5)) == before
    assert noisy(LaterLabels(noise=0.5, side="right")) != before


def test_the_precision_of_a_stage_is_the_one_that_auto_stands_for(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_precision(precision: str, device: str) -> set[str]:
        changed = {**small, "probes": ["linear"]}
        for key in ("pretrain", "finetune"):
            changed[key] = {**small[key], "precision": precision, "device": device}
        return keys(folders(changed))

    on_cpu = with_precision("auto", "cpu")
    assert on_cpu == with_precision("32-true", "cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert with_precision("auto", "cpu") == with_precision("bf16-mixed", "cpu")
    assert with_precision("32-true", "cpu") == on_cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    on_gpu = with_precision("auto", "cuda")
    assert on_gpu == with_precision("bf16-mixed", "cuda") == with_precision("auto", "auto")
    assert not on_gpu & on_cpu
    assert with_precision("32-true", "cuda") == on_cpu


def test_a_device_that_is_not_there_is_told_before_anything_is_computed(small: dict[str, Any]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    small["finetune"] = {**small["finetune"], "device": "cuda"}
    with pytest.raises(ConfigError, match="device: 'cuda' is not available"):
        stages(small)


# Images that arms are pre-trained on ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes that is not divided."""
    for name in ("ant", "bee"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / "all" / name / f"{i}.png")
    return tmp_path / "all"


@pytest.mark.parametrize(
    ("images", "tested", "seen"),
    [
        ({}, {}, 0),
        ({"test_seed": 1}, {"test_seed": 1}, 0),
        ({"train_per_class": 10, "subset_seed": 3}, {}, 0),
        ({"test_seed": 1}, {}, 6),
        ({"test_share": 0.1}, {}, 4),
        ({}, {"test_share": 0.5}, 12),
    ],
)
def test_test_images_are_not_pre_trained_on(
    small: dict[str, Any], folder: Path, images: dict[str, Any], tested: dict[str, Any], seen: int
) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    small["arms"] = {"scratch": {}, "photographs": {"images": {"kind": "folder", "root": str(link), **images}}}
    small["downstreams"] = {"own": {"kind": "folder", "root": str(folder), **tested}}
    settings = ComparisonSettings.of(small, None)
    if not seen:
        Datasets(settings)
        return
    with pytest.raises(DownstreamError, match=rf"photographs\.images: {seen} of the .* downstreams\.own would be"):
        Datasets(settings)


def test_a_part_of_a_divided_folder_may_be_pre_trained_on_if_it_is_not_tested(
    small: dict[str, Any], folder: Path
) -> None:
    whole = folder.with_name("whole")
    for part in ("train", "test"):
        shutil.copytree(folder, whole / part)
    small["downstreams"] = {"own": {"kind": "folder", "root": str(whole)}}
    small["arms"] = {"scratch": {}, "photographs": {"images": {"kind": "folder", "root": str(whole / "train")}}}
    Datasets(ComparisonSettings.of(small, None))
    small["arms"]["photographs"]["images"]["root"] = str(whole / "test")
    with pytest.raises(DownstreamError, match="32 of the 40 test images"):
        Datasets(ComparisonSettings.of(small, None))
