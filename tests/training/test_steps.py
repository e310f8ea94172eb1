"""Runs whose length is a number of steps, not of passes over the images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from comparing_runs import comparable, same, stopped_and_resumed

from formulavision.data.downstream import DownstreamSettings
from formulavision.data.loading import EpochBatches
from formulavision.training import Run, TrainSettings, finetune, pretrain
from formulavision.training.optimization import learning_rate_factor
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError


def in_steps(small: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The small run of two epochs of three steps, as six steps in intervals of four."""
    return {name: value for name, value in small.items() if name != "epochs"} | {
        "steps": 6, "interval": 4, "milestones": [3], "checkpoint_minutes": 0, **more,
    }  # fmt: skip


def quiet(data: Any, out: Path, settings: dict[str, Any], **more: Any) -> Run:
    return pretrain(data, out=out, settings=settings, show_progress=False, **more)


@pytest.fixture(scope="module")
def stepped(stripes: Any, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return quiet(stripes(), tmp_path_factory.mktemp("steps") / "run", in_steps(small))


def test_steps_train_what_as_many_epochs_train(stepped: Run, pretrained: Run) -> None:
    assert same(stepped.folder, pretrained.folder)


def test_there_is_a_row_of_metrics_an_interval(stepped: Run) -> None:
    with (stepped.folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], "epoch" in row) for row in rows] == [("4", False), ("6", False)]
    assert "6 steps" in repr(stepped)
    assert "| steps | 6 |" in (stepped.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("stops", "workers"),
    [
        ([1, 4], 2),
        *(pytest.param([n], n % 3, marks=pytest.mark.slow) for n in range(1, 6)),
        pytest.param([1, 1, 1, 1, 1], 0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_of_steps_resumes_exactly(
    stepped: Run, stripes: Any, small: Any, tmp_path: Path, stops: list[int], workers: int
) -> None:
    settings = in_steps(small, workers=workers)
    run = stopped_and_resumed(stripes(), tmp_path / "run", settings, stops)
    assert same(run.folder, stepped.folder)
    assert comparable(run) == comparable(stepped)


def test_every_interval_is_validated_the_shorter_last_one_too(small: Any, tmp_path: Path) -> None:
    digits = DownstreamSettings.model_validate({"kind": "digits", "train_per_class": 3, "test_per_class": 2})
    run = finetune(None, digits, out=tmp_path / "run", settings=in_steps(small, workers=0), show_progress=False)
    assert [row["validation_accuracy"] is not None for row in run.history] == [True, True]
    assert run.best_epoch in (1, 2)


@pytest.mark.slow
def test_the_interval_changes_nothing_that_is_trained(stepped: Run, stripes: Any, small: Any, tmp_path: Path) -> None:
    for interval in (1, 2, 3, 6, 100):
        run = quiet(stripes(), tmp_path / str(interval), in_steps(small, interval=interval))
        assert same(run.folder, stepped.folder)


@pytest.mark.slow
def test_accumulated_batches_go_on_through_the_end_of_a_pass(stripes: Any, small: Any, tmp_path: Path) -> None:
    settings = in_steps(small, steps=3, interval=2, milestones=[2], grad_accum_steps=2)
    whole = quiet(stripes(), tmp_path / "whole", settings)
    run = stopped_and_resumed(stripes(), tmp_path / "run", settings, [3])
    assert same(run.folder, whole.folder)


def test_a_longer_run_goes_on(stripes: Any, small: Any, stepped: Run, tmp_path: Path) -> None:
    settings = in_steps(small, steps=2, interval=2)
    quiet(stripes(), tmp_path / "run", settings)
    run = quiet(stripes(), tmp_path / "run", {"steps": 6}, resume=True)
    assert same(run.folder, stepped.folder) and [row["step"] for row in run.history] == [2, 4, 6]
    with pytest.raises(ConfigError, match="can be raised, not lowered"):
        quiet(stripes(), tmp_path / "run", {"steps": 5}, resume=True)


def test_only_whole_intervals_can_be_gone_on_from(stripes: Any, stepped: Run) -> None:
    with pytest.raises(ConfigError, match="only where it is a multiple of interval, 4"):
        quiet(stripes(), stepped.folder, {"steps": 8}, resume=True)


def test_two_processes_share_the_batches_of_steps() -> None:
    shares = [EpochBatches(48, 16, seed=1, shuffle=True, rank=r, ranks=2, stretch=4, total=6) for r in (0, 1)]
    alone = EpochBatches(48, 16, seed=1, shuffle=True, stretch=4, total=6)
    for epoch in (0, 1):
        for batches in (alone, *shares):
            batches.set_epoch(epoch)
        both = [[*a, *b] for a, b in zip(*shares, strict=True)]
        assert [sorted(batch) for batch in both] == [sorted(batch) for batch in alone]


def test_batches_go_on_through_epochs() -> None:
    passes = EpochBatches(10, 4, seed=1, shuffle=True)
    expected = []
    for epoch in range(3):
        passes.set_epoch(epoch)
        expected += list(passes)
    batches = EpochBatches(10, 4, seed=1, shuffle=True, stretch=5, total=9)
    found = []
    for number, length in ((0, 5), (1, 4)):
        batches.set_epoch(number)
        assert len(batches) == length
        found += list(batches)
    assert found == expected
    batches.epoch, batches.start = 1, 2
    assert list(batches) == expected[7:]


def test_the_cosine_schedule_falls_to_its_floor_at_the_last_step() -> None:
    settings = parse(
        TrainSettings,
        {"steps": 100, "warmup_steps": 9, "schedule": "cosine", "learning_rate": 0.1, "min_learning_rate": 0.01},
    )
    factor = learning_rate_factor(settings, steps_per_epoch=7, total=100)
    assert [factor(0), factor(8), factor(9)] == pytest.approx([0.1, 0.9, 1.0])
    assert factor(100) == pytest.approx(0.1)
    assert factor(50) < factor(49)


def test_80_000_passes_of_4_steps_have_100_rows() -> None:
    settings = TrainSettings(steps=320_000)
    assert (settings.interval, settings.epochs) == (3_200, None)
    assert settings.milestones == (106_667, 213_334)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epochs": 3, "steps": 12}, "epochs and steps are both given: give one of them"),
        ({"warmup_epochs": 1, "warmup_steps": 4}, "warmup_epochs and warmup_steps are both given"),
        ({"steps": 12, "warmup_epochs": 1}, "warmup_epochs 1.0 must be 0 with steps: give warmup_steps"),
        ({"steps": 12, "warmup_steps": 12}, "warmup_steps 12 must be below steps 12"),
        ({"steps": 12, "preset": "vit"}, "give warmup_steps"),
        ({"interval": 4}, "interval 4 needs steps"),
        ({"steps": 0}, "steps: 0 is not allowed"),
        ({"min_learning_rate": 0.5}, "min_learning_rate 0.5 must be at most learning_rate 0.01"),
    ],
)
def test_a_wrong_length_is_one_line(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        parse(TrainSettings, settings)
    assert "\n" not in str(error.value)


def test_a_warm_up_longer_than_the_epochs_is_refused_before_the_work(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="warmup_steps: is 6: must be below the 6 steps of the run"):
        quiet(stripes(), tmp_path / "run", {**small, "warmup_steps": 6})
    assert not (tmp_path / "run").exists()


def test_clusters_need_epochs(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"steps: must be unset with labels.clusters"):
        quiet(stripes(), tmp_path / "run", in_steps(small), labels={"clusters": 2})


def test_given_steps_replace_a_presets_epochs() -> None:
    settings = TrainSettings(preset="vit", steps=1000, warmup_steps=50)
    assert (settings.epochs, settings.warmup_epochs, settings.interval) == (None, 0.0, 10)
