"""A comparison that is chosen for a dataset fits the images, the machine and the time, and is chosen once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cases import slow
from masked_shapes import write_shapes
from PIL import Image

from formulavision import compare, finetune
from formulavision.comparison import ComparisonSettings, choosing, estimates
from formulavision.comparison.choosing import Choice, choose, name_of
from formulavision.data.downstream import Downstream, DownstreamSettings
from formulavision.data.downstream.folder import check_outside
from formulavision.data.downstream.images import LabelledImages
from formulavision.training import fit
from formulavision.training.on_cpu import MatrixConv2d
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, DownstreamError, FormulaVisionError
from formulavision.util.text import duration

LAPTOP = (0.0075, 0.03)
"""Seconds a training image and a step on two idle cores."""
ACCELERATOR = (0.0001, 0.005)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    is_a(monkeypatch, LAPTOP)
    monkeypatch.setattr(choosing, "_time_drawing", lambda: 0.001)


def is_a(patch: pytest.MonkeyPatch, speed: tuple[float, float]) -> None:
    patch.setattr(choosing, "_time_training", lambda: speed)


def photos(folder: Path, classes: dict[str, int], size: tuple[int, int] = (60, 50), mode: str = "RGB") -> Path:
    """A folder of noise, with so many images of each class."""
    noise = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 256, (size[1], size[0], 4), np.uint8)
            Image.fromarray(pixels, "RGBA").convert(mode).save(folder / name / f"{i}.png")
    return folder


def chosen(path: Path, minutes: float = 20) -> Choice:
    return choose(DownstreamSettings.from_text(str(path)), minutes)


class Many:
    """Images of one colour, which count how many are looked at."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, index: int) -> np.ndarray[Any, Any]:
        self.read += 1
        return np.full((300, 400, 3), (index % 200, 0, 0), np.uint8)

    def content(self, indices: Any) -> bytes:
        return b""


def many(train: list[int], test: list[int]) -> tuple[Many, Downstream]:
    """A dataset with so many images of each class."""
    source = Many()
    names = [f"c{label}" for label in range(len(train))]
    sides = [
        LabelledImages(source, np.arange(sum(counts)), np.repeat(np.arange(len(counts)), counts), names)
        for counts in (train, test)
    ]
    return source, Downstream("many", DownstreamSettings(kind="cifar10"), sides[0], sides[1])


def plan(opened: Downstream, minutes: float, monkeypatch: pytest.MonkeyPatch) -> Choice:
    monkeypatch.setattr(choosing, "open_downstream", lambda settings: opened)
    return choose(opened.settings, minutes)


# The choice ----------------------------------------------------------------------------------------------------------


def test_twenty_images_are_enough(tmp_path: Path) -> None:
    choice = chosen(photos(tmp_path / "pets", {"cat": 10, "dog": 10}))
    settings = choice.settings
    assert settings.name == "Does pre-training on formulas help on pets?"
    assert list(settings.arms)[:2] == ["scratch", "ifs"]
    assert len(settings.seeds) >= 3
    assert settings.downstreams["pets"].train_per_class is None
    assert settings.finetune_settings("ifs", 0).epochs == 60
    assert settings.finetune_settings("ifs", 0).horizontal_flip
    assert choice.seconds <= 20 * 60 * 1.01
    assert settings.note.endswith("One of the 4 test images is 25.0 points.")
    assert "16 training and 4 test images of 2 classes" in choice.sentences[0]
    assert "about " in choice.sentences[-1] and "min" in choice.sentences[-1]
    recipe = settings.arms["ifs"].recipe
    assert recipe is not None and recipe.to_dict()["canvas"]["size"] == 128


@pytest.mark.parametrize("machine", [LAPTOP, ACCELERATOR], ids=["laptop", "accelerator"])
@pytest.mark.parametrize(
    ("train", "minutes"),
    [
        *(([8, 8], 5), ([8, 8], 600), ([60] * 10, 20), ([500] * 10, 20), ([1_300] * 100, 5), ([1_300] * 100, 600)),
        *slow(*(([8, 8], 20), ([1_300] * 100, 20)), *((n * 10, m) for n in ([60], [500]) for m in (5, 600))),
    ],
    ids=lambda value: f"{sum(value)}" if isinstance(value, list) else f"{value}",
)
def test_it_takes_about_the_time_that_is_given(
    train: list[int], machine: tuple[float, float], minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_a(monkeypatch, machine)
    source, opened = many(train, [max(n // 5, 1) for n in train])
    choice = plan(opened, minutes, monkeypatch)
    assert source.read <= 17, "a million images are not read to choose"
    told = max(60 * minutes, choice.seconds)
    assert str(choice.settings.note).startswith(f"Sizes were chosen for about {duration(told)} on one machine")
    if "more than was asked for" not in choice.sentences[-1]:
        assert choice.seconds <= 1.5 * 60 * minutes
    else:
        assert minutes < 20 or (machine is LAPTOP and sum(train) > 100_000)
    first = list(choice.settings.arms)[1]
    assert all(s.batch_size >= 2 and s.schedule == "cosine" and (s.epochs or 0) > 1 for s in (
        choice.settings.finetune_settings(first, 0), choice.settings.pretrain_settings(first, 0)))  # fmt: skip


def test_a_first_image_that_takes_long_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder is imported."""
    source, opened = many([8, 8], [2, 2])
    usual = Many.__call__
    clock = [0.0]
    monkeypatch.setattr(choosing.time, "monotonic", lambda: clock[0])

    def slow_at_first(self: Many, index: int) -> np.ndarray[Any, Any]:
        clock[0] += 4.0 if self.read == 0 else 0.0
        return usual(self, index)

    monkeypatch.setattr(Many, "__call__", slow_at_first)
    _, _, seconds = choosing._look_at(opened.train)
    assert seconds == 0 and source.read == 17


def test_more_time_gives_larger_images_more_seeds_and_more_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    _, opened = many([60] * 10, [20] * 10)
    short, long = (plan(opened, minutes, monkeypatch).settings for minutes in (10, 3_000))
    assert long.pretrain["crop"] > short.pretrain["crop"]
    assert len(long.seeds) >= len(short.seeds)
    assert list(long.arms) == ["scratch", "ifs-dead-leaves-moire", "ifs"]


def test_fractals_are_mixed_where_pre_training_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in half-hour.yaml, whose pre-training sees 268,800 images; after 48,000 fractals alone were ahead."""
    monkeypatch.setattr(choosing, "_look_at", lambda images: (32, False, 0.0001))
    opened = many([60] * 10, [20] * 10)[1]
    seen = {}
    for minutes in (10, 40, 80, 160, 320):
        settings = plan(opened, minutes, monkeypatch).settings
        arm, recipe = list(settings.arms)[1], list(settings.arms.values())[1].recipe
        assert recipe is not None
        seen[5 * len(recipe)] = arm
    assert {arm for images, arm in seen.items() if images < 100_000} == {"ifs"}
    assert {arm for images, arm in seen.items() if images > 120_000} == {"ifs-dead-leaves-moire"}
    assert recipe is not None
    parts = recipe.to_dict()["parts"]
    assert [part["generator"]["name"] for part in parts] == ["ifs", "dead-leaves", "moire"]
    assert len({(part["categories"]["count"], part["instances"]) for part in parts}) == 1
    assert recipe.canvas.channels == 3 and recipe.canvas.size >= 96
    # Images of a few pixels are enlarged: fractals are coarse points there, however long pre-training is.
    monkeypatch.setattr(choosing, "_look_at", lambda images: (8, False, 0.0001))
    assert list(plan(opened, 320, monkeypatch).settings.arms)[1] == "ifs"


def test_of_many_images_some_are_taken_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = plan(many([5_000] * 10, [1_000] * 10)[1], 20, monkeypatch)
    (dataset,) = choice.settings.downstreams.values()
    assert dataset.train_per_class is not None and 5 <= dataset.train_per_class < 500
    assert dataset.test_per_class is not None
    assert f"{10 * dataset.train_per_class:,} of 50,000 training images" in choice.settings.note
    assert f"{dataset.train_per_class} a class" in " ".join(choice.sentences)


def test_one_small_class_does_not_leave_three_images_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    (dataset,) = plan(many([800, 700, 3], [200, 180, 1])[1], 20, monkeypatch).settings.downstreams.values()
    assert dataset.train_per_class is None


@pytest.mark.parametrize(("mode", "flips"), [("L", False), ("RGBA", True), ("RGB", True)])
def test_gray_images_are_not_mirrored(tmp_path: Path, mode: str, flips: bool) -> None:
    choice = chosen(photos(tmp_path / "pets", {"a": 6, "b": 6}, mode=mode))
    assert choice.settings.finetune["horizontal_flip"] is flips
    assert ("not mirrored" in " ".join(choice.sentences)) is not flips


def test_huge_and_tiny_images_are_scaled(tmp_path: Path) -> None:
    huge = chosen(photos(tmp_path / "huge", {"a": 3, "b": 3}, size=(2_000, 1_500), mode="L"), 10_000)
    assert huge.settings.pretrain["crop"] == 224
    tiny = chosen(photos(tmp_path / "tiny", {"a": 5, "b": 5}, size=(7, 9)))
    assert tiny.settings.pretrain["crop"] == 48
    drawn = [list(choice.settings.arms.values())[1].recipe for choice in (huge, tiny)]
    parts = [(r.canvas.size, r.all_parts[0].generator.params.model_dump()["patch"]) for r in drawn if r]
    assert parts == [(252, "random"), (54, "point")]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": 2, "b": 2}, "class 'a' has 1 training image: give at least two"),
        ({"a": 40, "b": 2}, "class 'b' has 1 training image: give at least two"),
        ({"a": 5}, "holds the one class 'a'"),
        ({"a": 5, "b": 0}, "holds the one class 'a' \\(b: no images\\)"),
        ({"a": 5, "b": 1}, "class 'b' has one image"),
        ({}, "holds no classes"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path, classes: dict[str, int], message: str) -> None:
    (tmp_path / "pets").mkdir()
    with pytest.raises(DownstreamError, match=message) as caught:
        compare(downstream=photos(tmp_path / "pets", classes), out=tmp_path / "out", show_progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_a_number_above_zero(minutes: float) -> None:
    with pytest.raises(ConfigError, match=r"minutes: .* is not allowed"):
        choose(DownstreamSettings(kind="digits"), minutes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"downstream": "/nowhere/at/all"}, "no such folder"),
        ({"downstream": "cifr10"}, "did you mean 'cifar10'"),
        ({"downstream": object()}, "downstream: a object is not allowed here"),
        ({"downstream": "digits", "config": {}}, "give a comparison, or a downstream"),
        ({}, "give a comparison, or a downstream"),
        ({"downstream": "digits", "size": "smoke"}, "size: is for a comparison with sizes"),
        ({"config": {}}, "out: is missing"),
        ({"config": {}, "out": "x", "minutes": 3.0}, "minutes: is for a downstream"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FormulaVisionError, match=message):
        compare(**arguments)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("digits", "digits"),
        ("cifar10:/data/elsewhere", "cifar10"),
        ({"kind": "folder", "root": "/data/My photos (2024)"}, "My-photos-2024-"),
        ({"kind": "folder", "root": "/data/.hidden"}, "hidden"),
        ({"kind": "folder", "root": "/"}, "images"),
        ({"kind": "folder", "root": "/data/" + 200 * "x"}, 60 * "x"),
    ],
)
def test_its_name_is_that_of_the_folder(settings: Any, name: str) -> None:
    assert name_of(settings) == name
    tiny = {"arms": {"scratch": {}}, "downstreams": {name: {"kind": "digits"}}}
    assert list(parse(ComparisonSettings, tiny).downstreams) == [name]


def test_the_machine_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    image, step = choosing._time_training()
    assert 0 < image < 5 and 0 < step < 10
    assert 0 < choosing._time_drawing() < 1


@pytest.mark.parametrize("fast", [False, *slow(True)])
def test_training_is_timed_as_it_is_done(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """In bfloat16 where it is fast, in channels-last memory."""
    monkeypatch.undo()
    seen = set()
    forward = MatrixConv2d.forward

    def noted(self: MatrixConv2d, images: torch.Tensor) -> torch.Tensor:
        layout = images.is_contiguous(memory_format=torch.channels_last)
        seen.add((torch.is_autocast_enabled("cpu"), layout))
        return forward(self, images)

    monkeypatch.setattr(MatrixConv2d, "forward", noted)
    monkeypatch.setattr(fit, "has_fast_bfloat16", lambda: fast)
    monkeypatch.setattr(fit, "find_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(estimates, "shortest", lambda run: run() or 1.0)
    choosing._time_training()
    assert seen == {(fast, True)}


# Running it ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Choices are tiny; the minutes of each."""
    made: list[float] = []

    def choose(downstream: DownstreamSettings, minutes: float) -> Choice:
        made.append(minutes)
        dataset = downstream.model_dump(mode="json", exclude_defaults=True)
        del small["arms"]["broken"]
        return Choice(parse(ComparisonSettings, {**small, "downstreams": {"pets": dataset}}), ["a choice"], 1.0)

    monkeypatch.setattr(choosing, "choose", choose)
    return made


def test_it_runs_is_chosen_once_and_can_be_changed(
    tiny: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pets = photos(tmp_path / "pets", {"cat": 5, "dog": 5})
    first = compare(downstream=pets)
    assert first.folder == Path("runs/pets") and tiny == [20]
    told = capsys.readouterr()
    assert told.err.index("a choice") < told.err.index("[1/")
    assert "the same command continues" in told.err
    assert "Does pre-training on formulas help on pets?" in told.out.splitlines()[-3] + told.out.splitlines()[-2]
    assert len(first.results) == 2 and not first.failures

    file = tmp_path / "runs/pets/comparison.yaml"
    changed = {**yaml.safe_load(file.read_text()), "seeds": [0, 1]}
    file.write_text(yaml.safe_dump(changed))
    again = compare(downstream="pets", minutes=5)
    assert tiny == [20], "the choice stands"
    assert [result.seed for result in again.results] == [0, 1, 0, 1]
    told = capsys.readouterr()
    assert "goes on with these settings, which were chosen before: 5 minutes change nothing; --overwrite" in told.err
    with pytest.raises(ConfigError, match="minutes: 0 is not allowed: must be above 0"):
        compare(downstream="pets", minutes=0)

    others = photos(tmp_path / "others" / "pets", {"cat": 5, "dog": 5})
    with pytest.raises(ConfigError, match="out: runs/pets holds a comparison on other images: give another folder"):
        compare(downstream=others)


def test_results_among_the_images_are_refused(
    tiny: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos(tmp_path / "my pets", {"cat": 5, "dog": 5}))
    with pytest.raises(ConfigError, match="out: runs/my-pets lies in the folder of the images"):
        compare(downstream=".")
    assert tiny == [] and not Path("runs").exists()


def test_no_run_is_written_among_the_images(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures would become a class of the next run. Beside the parts of a divided dataset there is room."""
    pets = photos(tmp_path / "pets", {"cat": 5, "dog": 5})
    monkeypatch.chdir(pets)
    del small["arms"]["broken"]
    refused = "out: .* lies in the folder of the images, and would become one of their classes"
    of_a_downstream = {**small, "downstreams": {"pets": {"kind": "folder", "root": "."}}}
    of_an_arm = {**small, "arms": {"pets": {"images": {"kind": "folder", "root": "."}}}}
    for comparison in (of_a_downstream, of_an_arm):
        with pytest.raises(ConfigError, match=refused):
            compare(comparison, out="runs/pets", show_progress=False)
    with pytest.raises(ConfigError, match=refused):
        compare(of_a_downstream, out=tmp_path / "out", runs="models", show_progress=False)
    with pytest.raises(ConfigError, match=refused):
        finetune(None, ".", out="cat/tuned", model="resnet10t", show_progress=False)
    assert sorted(path.name for path in pets.iterdir()) == ["cat", "dog"] and not (tmp_path / "out").exists()

    divided = tmp_path / "divided"
    for part in ("train", "val"):
        photos(divided / part, {"cat": 2, "dog": 2})
    dataset = DownstreamSettings.from_text(str(divided))
    check_outside(divided / "runs" / "one", dataset)
    for inside in (divided / "train" / "runs", divided / "val", divided / "runs" / ".." / "train"):
        with pytest.raises(ConfigError, match=refused):
            check_outside(inside, dataset)


def test_a_folder_of_something_else_is_refused_before_anything_is_timed(tiny: list[float], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.yaml").write_text("mine")
    with pytest.raises(FormulaVisionError, match="out"):
        compare(downstream="digits", out=tmp_path / "out")
    assert tiny == []


def test_for_masks_no_comparison_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(
        DownstreamError, match="a comparison is chosen for images with classes; for masks, change a file"
    ):
        compare(downstream=write_shapes(tmp_path / "shapes"), out=tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out").exists()
