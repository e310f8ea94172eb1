"""A comparison for images of one's own: arms, sizes and lengths follow from the images and from the machine."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from formulavision.comparison.estimates import shortest, time_training
from formulavision.comparison.settings import ComparisonSettings
from formulavision.data.downstream import Downstream, DownstreamSettings, open_downstream
from formulavision.data.downstream.folder import OF_FILES, check_outside
from formulavision.data.downstream.images import LabelledImages, spread_evenly
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, DownstreamError
from formulavision.util.folders import OwnedFolder, State
from formulavision.util.machine import cores
from formulavision.util.text import byte_size, counted, duration

__all__ = ["CONFIGURATION", "Choice", "choose", "choose_or_continue", "name_of"]

CONFIGURATION = "comparison.yaml"
"""File in a comparison's folder with its configuration."""
MINUTES = 20.0
"""Time that a comparison is chosen for where none is given."""

_CROPS = (224, 160, 128, 96, 64, 48, 32)
_LEAST_CROP = 48
"""Smaller images are enlarged to it, if there is time."""
_REFERENCE = 64
"""Size of the images that are timed, pixels. The time of a step is taken to grow with the number of pixels."""
_CANVAS, _MIXTURE_CANVAS = 128, 96
"""Fractals, or the mixture, are drawn at this size at least, and made smaller for the model, as in half-hour.yaml."""
_COARSE = 24
"""For smaller images, which are enlarged, fractals are as coarse: drawn at the model's size, without patches."""
_MIXTURE, _LONG = ("ifs", "dead-leaves", "moire"), 110_000
"""What comes before fractals alone where pre-training sees so many images: with fewer than half it was behind them,
with more than twice as many ahead, unless there are a few hundred photographs only (docs/results/half-hour)."""
_PASSES_OF_DRAWN, _BATCH = 5, 64
"""How often pre-training sees an image, and of how many images a step is."""
_ENOUGH, _MOST = 50, 100_000
"""Drawn images an arm from which on pre-training is worth trying, for each pixel of the crop's side, and at most."""
_TRAINED = 10
"""Training images for each pixel of the crop's side, or all: with fewer, smaller crops of more images say more."""
_PASSES = 8_000
"""Training images that fine-tuning sees in all its epochs, as far as their number allows it."""
_FINETUNING = (15, 60)
"""Fewest and most epochs: with fewer, training from scratch would have hardly begun."""
_STAGE, _REPORT = 4.0, 15.0
"""Seconds that a stage takes besides its training, and the report."""
_STAGE_BYTES = 165_000_000
"""A stage's folder: weights and last checkpoint of a ResNet-18; of fine-tuning also the best weights."""
_SAMPLE, _SAMPLE_SECONDS = 16, 3.0


@dataclass(frozen=True)
class Choice:
    """A comparison that was chosen for a dataset and this machine.

    Attributes:
        sentences: the images, the choices, and the time, in words.
        seconds: estimated time of the comparison.
    """

    settings: ComparisonSettings
    sentences: list[str]
    seconds: float


@dataclass(frozen=True)
class _Speed:
    """Seconds for one image (of 64 x 64 pixels) in training, for a step besides its images, to read an image, and to
    draw one (of 128 x 128 pixels)."""

    image: float
    step: float
    read: float
    draw: float


@dataclass(frozen=True)
class _Plan:
    """Sizes of a comparison, and its number of arms besides scratch; ``None`` images a class are all images."""

    crop: int
    formulas: int
    seeds: int
    train_per_class: int | None
    test_per_class: int | None
    train: int
    test: int
    epochs: int
    batch: int
    drawn: int
    seconds: float


def name_of(downstream: Any) -> str:
    """Name of a dataset in the table and of its folder in ``runs/``: that of its own folder, or its kind.

    Raises:
        ConfigError: there is no such dataset.
    """
    settings = _settings_of(downstream)
    name = settings.root.resolve().name if settings.kind in OF_FILES and settings.root else settings.kind
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("-._")[:60] or "images"


def _settings_of(downstream: Any) -> DownstreamSettings:
    return parse(DownstreamSettings, str(downstream) if isinstance(downstream, PathLike) else downstream, "downstream")


def choose_or_continue(
    downstream: Any, folder: Path, minutes: float | None, *, overwrite: bool, tell: Callable[[str], None]
) -> ComparisonSettings:
    """The comparison that ``folder`` holds already, as it is; or a new choice, which is told before it runs.

    Args:
        downstream: a folder or the name of a dataset, or its settings.
        folder: of the comparison.
        minutes: time to choose for; None: 20.
        overwrite: choose anew.
        tell: called with each line.

    Raises:
        ConfigError: ``minutes`` is not above 0; ``folder`` holds a comparison on other images, or lies among the
            images; or as :func:`choose`.
        DownstreamError: as :func:`choose`.
        FolderError: ``folder`` holds something else.
    """
    _check_minutes(minutes)  # in a folder that is continued, too
    settings = _settings_of(downstream)
    check_outside(folder, settings)
    state = OwnedFolder(folder, "comparison", last="report.html").state()  # refused before the work
    file = folder / CONFIGURATION
    if state is not State.NEW and file.is_file() and not overwrite:
        known = ComparisonSettings.load(file)
        if _images(settings) not in [_images(each) for each in known.downstreams.values()]:
            raise ConfigError(f"out: {folder} holds a comparison on other images: give another folder")
        instead = "" if minutes is None else f", which were chosen before: {minutes:g} minutes change nothing"
        tell(f"{file}: goes on with these settings{instead}; --overwrite chooses anew")
        return known
    tell("looking at the images, and timing a few training steps")
    choice = choose(settings, MINUTES if minutes is None else minutes)
    for sentence in choice.sentences:
        tell(sentence)
    tell("Ctrl-C stops it, and the same command continues")
    again = shlex.join(["formulavision", "compare", str(file), "--out", str(folder)])
    tell(f"settings: {file}; changed, they run by: {again}")
    return choice.settings


def _check_minutes(minutes: float | None) -> None:
    if minutes is not None and not 0 < minutes < float("inf"):
        raise ConfigError(f"minutes: {minutes:g} is not allowed: must be above 0")


def _images(settings: DownstreamSettings) -> dict[str, Any]:
    """Settings of a dataset without those that are chosen."""
    root = settings.root and settings.root.absolute()
    return {**settings.model_dump(exclude={"train_per_class", "test_per_class", "subset_seed"}), "root": root}


def choose(downstream: DownstreamSettings, minutes: float = MINUTES) -> Choice:
    """Choose a comparison of training from scratch and formulas that takes about ``minutes`` on this machine.

    Some images are read and some training steps are timed, which takes a few seconds.

    Raises:
        ConfigError: ``minutes`` is not above 0.
        DownstreamError: the dataset cannot be used, has masks, or a class has fewer than two training images.
    """
    if downstream.target == "semantic":
        raise DownstreamError(
            f"{downstream.kind}: a comparison is chosen for images with classes; for masks, change a file such as "
            "segmentation-camvid: formulavision compare FILE --out FOLDER"
        )
    _check_minutes(minutes)
    opened = open_downstream(downstream)
    for name, number in zip(opened.classes, _per_class(opened.train), strict=True):
        if number < 2:
            images = counted(int(number), "training image")
            raise DownstreamError(f"{opened.name}: class '{name}' has {images}: give at least two, and one to test on")
    side, gray, read = _look_at(opened.train)
    speed = _Speed(*_time_training(), read=read, draw=_time_drawing())
    plan = _best_plan(opened, speed, side, minutes * 60)
    return _choice(opened, plan, side, gray, minutes)


# The images and the machine ------------------------------------------------------------------------------------------


def _per_class(images: LabelledImages) -> list[int]:
    """Number of images of each class."""
    if images.multi_label:
        return list((images.labels == 1).sum(axis=0))
    return list(np.bincount(images.labels, minlength=images.num_classes))


def _look_at(images: LabelledImages) -> tuple[int, bool, float]:
    """The shorter side in pixels and the seconds to read one, as medians of a few images; and whether all are gray."""
    sides, gray, seconds = [], [], []
    images[0]  # imports the decoder, which takes seconds
    started = time.monotonic()
    for index in spread_evenly(np.arange(len(images)), _SAMPLE):
        before = time.monotonic()
        pixels, _ = images[int(index)]
        seconds.append(time.monotonic() - before)
        sides.append(min(pixels.shape[1:]))
        gray.append(bool((pixels == pixels[:1]).all()))
        if time.monotonic() - started > _SAMPLE_SECONDS:
            break
    return int(median(sides)), all(gray), median(seconds)


def _time_training() -> tuple[float, float]:
    """Seconds that an image takes in training, and a step besides its images."""
    from formulavision.training.settings import TrainSettings

    return time_training(TrainSettings(model="resnet18", crop=_REFERENCE))


def _time_drawing() -> float:
    """Seconds to draw one fractal on the smallest canvas."""
    from formulavision.recipes.drawing import Drawer
    from formulavision.recipes.recipe import Recipe

    drawer = Drawer(Recipe.from_dict(_recipe(("ifs",), 80, _LEAST_CROP, _CANVAS, gray=False)))
    return shortest(lambda: [drawer.draw(index) for index in range(10)]) / 10


# The sizes -----------------------------------------------------------------------------------------------------------


def _best_plan(opened: Downstream, speed: _Speed, side: int, seconds: float) -> _Plan:
    """The largest crops for which there is time to train on enough images; then more seeds, then more formulas."""
    crops = [crop for crop in _CROPS if crop <= max(side, _LEAST_CROP)]
    plans = [_plan(opened, speed, crop, 1, 3, seconds) for crop in crops]
    enough = (p for p in plans if p.drawn >= _ENOUGH * p.crop and p.train >= min(len(opened.train), _TRAINED * p.crop))
    best = next(enough, plans[-1])
    for formulas, seeds in ((1, 5), (2, 5)):
        more = _plan(opened, speed, best.crop, formulas, seeds, seconds)
        if more.drawn >= _ENOUGH * best.crop and (more.train, more.epochs) >= (best.train, best.epochs):
            best = more
    return best


def _plan(opened: Downstream, speed: _Speed, crop: int, formulas: int, seeds: int, seconds: float) -> _Plan:
    """Divide the time of a seed between fine-tuning (two fifths) and pre-training."""
    image = speed.image * (crop / _REFERENCE) ** 2
    overhead = _STAGE * (2 * formulas + 1)
    a_seed = (seconds - _REPORT) / seeds - overhead
    models = formulas + 1
    tuning = max(0.4 * a_seed / models, 1.0)
    passes = max(0.7 * tuning / (image + speed.step / 16), 1_000)
    train_per_class, train = _limited(opened.train, round(passes / _FINETUNING[0]))
    epochs = int(np.clip(round(min(passes, _PASSES) / train), *_FINETUNING))
    test_per_class, test = _limited(opened.test, max(round(0.3 * tuning / (epochs * image / 3 + speed.read)), 100))
    batch = next(size for size, fewer in ((8, 100), (16, 500), (32, 2_000), (64, np.inf)) if train < fewer)
    tuned = epochs * (train * image + ceil(train / batch) * speed.step + test * image / 3) + (train + test) * speed.read
    drawing = speed.draw * (max(_CANVAS, _resize(crop)) / _CANVAS) ** 2
    drawing += _PASSES_OF_DRAWN * (image + speed.step / _BATCH)
    drawn = int(np.clip((a_seed - models * tuned) / formulas / drawing, 480, _MOST))
    needed = seeds * (overhead + models * tuned + formulas * drawn * drawing) + _REPORT
    return _Plan(crop, formulas, seeds, train_per_class, test_per_class, train, test, epochs, batch, drawn, needed)


def _limited(images: LabelledImages, limit: int) -> tuple[int | None, int]:
    """Images a class, at least five, that make about ``limit`` in all, and their number; None where all are taken.

    No class can give more than the smallest has. If that would leave too few, and all are not far too many, all are
    taken.
    """
    if len(images) <= 1.25 * limit:
        return None, len(images)
    wanted, smallest = max(limit // images.num_classes, 5), min(_per_class(images))
    if 2 * smallest < wanted and len(images) <= 4 * limit:
        return None, len(images)
    chosen = int(max(min(wanted, smallest), 1))
    return chosen, min(chosen * images.num_classes, len(images))


# The comparison ------------------------------------------------------------------------------------------------------


def _choice(opened: Downstream, plan: _Plan, side: int, gray: bool, minutes: float) -> Choice:
    name = name_of(opened.settings)
    dataset = opened.settings.model_dump(mode="json", exclude_defaults=True)
    limits = {"train_per_class": plan.train_per_class, "test_per_class": plan.test_per_class}
    dataset |= {key: value for key, value in limits.items() if value is not None}
    used = f"{plan.train:,} of {len(opened.train):,} training images" if plan.train < len(opened.train) else ""
    few = f"; pre-training helps most with few images, and only {used} are used" if used else ""
    caveat = f"Sizes were chosen for about {duration(max(60 * minutes, plan.seconds))} on one machine"
    coarse = f" One of the {plan.test} test images is {100 / plan.test:.1f} points." if plan.test < 200 else ""
    training = {"batch_size": _BATCH, "learning_rate": 0.05, "schedule": "cosine"}
    training |= {"crop": plan.crop, "horizontal_flip": not gray}
    settings = parse(
        ComparisonSettings,
        {
            "name": f"Does pre-training on formulas help on {name}?",
            "note": f"{caveat}{few}. Longer training or another model may give other results.{coarse}",
            "arms": {"scratch": {}, **_arms(plan, side, gray)},
            "downstreams": {name: dataset},
            "model": "resnet18",
            "seeds": list(range(plan.seeds)),
            "pretrain": {**training, "epochs": _PASSES_OF_DRAWN, "fresh": False, "resize": _resize(plan.crop)},
            "finetune": {
                **training,
                "epochs": plan.epochs,
                "batch_size": plan.batch,
                "learning_rate": 0.01 if plan.batch < 32 else 0.02,
            },
        },
    )
    per_class = f", {plan.train_per_class} a class" if plan.train_per_class else ""
    room = byte_size(plan.seeds * (2 * plan.formulas + 1) * _STAGE_BYTES)
    sentences = [
        f"{opened.describe()}, about {side} pixels wide or high",
        f"arms: {', '.join(settings.arms)}; resnet18, {plan.crop} x {plan.crop} pixels; {counted(plan.seeds, 'seed')}",
        f"pre-training: {_drawn(settings):,} drawn images an arm, {_PASSES_OF_DRAWN} epochs",
        f"fine-tuning: {used or 'all training images'}{per_class}, {plan.epochs} epochs"
        + ("; images are gray, and are not mirrored" if gray else ""),
        f"about {duration(plan.seconds)} on this machine ({counted(cores(), 'core')}), and {room} of the disk"
        + (", more than was asked for: no shorter comparison would tell much" if plan.seconds > 90 * minutes else ""),
    ]
    return Choice(settings, sentences, plan.seconds)


def _drawn(settings: ComparisonSettings) -> int:
    """Number of images that an arm is pre-trained on."""
    return max(len(arm.recipe) for arm in settings.arms.values() if arm.recipe is not None)


def _resize(crop: int) -> int:
    """Size to which drawn images are made, of which crops are taken, pixels."""
    return round(crop * 1.125)


def _arms(plan: _Plan, side: int, gray: bool) -> dict[str, Any]:
    """The arms that are pre-trained: fractals, then Perlin noise; or the mixture, then fractals, where there is time.

    On photographs of 32 pixels, fractals with patches, and the mixture, were better than coarse points
    (docs/results/half-hour); on digits of 8 pixels points were (docs/results/quickstart, one seed).
    """
    mixed = side >= _COARSE and plan.drawn * _PASSES_OF_DRAWN >= _LONG
    best: list[tuple[str, ...]] = [_MIXTURE, ("ifs",)] if mixed else [("ifs",), ("perlin",)]
    arms = best[: plan.formulas]
    return {"-".join(arm): {"recipe": _recipe(arm, plan.drawn, plan.crop, side, gray)} for arm in arms}


def _recipe(formulas: tuple[str, ...], images: int, crop: int, side: int, gray: bool) -> dict[str, Any]:
    """A recipe with about as many images, of somewhat more categories than instances; a Perlin grid has at most 144."""
    size, padding, channels = _resize(crop), 0, 1
    options: dict[str, Any] = {}
    if formulas == ("perlin",):
        options["grid"] = 12
    elif side < _COARSE:
        options |= {"dots": round(5_000 * (size / 40) ** 2), "patch": "point"}
        padding = 1
    else:
        least = _CANVAS if len(formulas) == 1 else _MIXTURE_CANVAS
        size, padding, channels = max(least, size), 2, 1 if gray else 3
        options["dots"] = min(round(25_000 * (size / least) ** 2), 200_000)
    images //= len(formulas)
    categories = min(max(round((1.28 * images) ** 0.5), 10), 144 if formulas == ("perlin",) else 1_000)
    parts = [
        {
            "generator": {"name": formula, **(options if formula in ("ifs", "perlin") else {})},
            "categories": categories,
            "instances": max(images // categories, 1),
        }
        for formula in formulas
    ]
    canvas = {"size": size, "padding": padding, "channels": channels}
    return {**parts[0], "canvas": canvas} if len(parts) == 1 else {"parts": parts, "canvas": canvas}
