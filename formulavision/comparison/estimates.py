"""Estimates of a comparison before it runs: the images, seconds and bytes of its stages, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from formulavision.comparison.plan import Datasets, Generation, Pretraining, Probing, ResultStage, Stage
from formulavision.comparison.settings import ComparisonSettings
from formulavision.data.bench import bench
from formulavision.storage.store import Store
from formulavision.training.settings import TrainSettings
from formulavision.util.console import STDERR, say

__all__ = ["Estimate", "estimate", "shortest", "time_training"]

_EVALUATED = 3
"""Images that a model evaluates in the time in which it trains on one."""


@dataclass(frozen=True)
class Estimate:
    """What a stage takes.

    Attributes:
        stage: the stage.
        images: images that its model is trained on, each as often as it is; three that are evaluated count as one. Of
            a store, the images that are drawn.
        seconds: on this machine alone, without the images that are drawn while a model trains.
        bytes: of its files.
    """

    stage: Stage
    images: int
    seconds: float
    bytes: int


def estimate(stages: list[Stage], settings: ComparisonSettings, datasets: Datasets) -> list[Estimate]:
    """What stages take. Some steps of each model are timed, and some images of each store are drawn."""
    from formulavision.training.tasks import for_target

    speeds: dict[tuple[object, ...], tuple[float, float, int]] = {}
    result = []
    for stage in stages:
        if isinstance(stage, Generation):
            cost = bench(stage.recipe, seconds=0.5)
            seconds = cost.search_seconds(1) + cost.store_seconds(1)
            result.append(Estimate(stage, len(stage.recipe), seconds, round(cost.image_bytes * len(stage.recipe))))
            continue
        assert isinstance(stage, Pretraining | ResultStage)
        source = stage.source if isinstance(stage, Pretraining) else settings.downstreams[stage.downstream]
        training = for_target(stage.settings, source.target or "class")
        model = training.model, training.crop, training.target, training.precision, training.device
        if model not in speeds:
            say(f"timing {training.model} at {training.crop} pixels", STDERR)
            speeds[model] = (*time_training(training, few=8 if training.crop <= 64 else 2), _parameters(training))
        image, step, parameters = speeds[model]
        trained, evaluated, steps = _lengths(stage, settings, datasets)
        passes = trained + evaluated / _EVALUATED
        kept = 0 if isinstance(stage, Probing) else _copies(training, best=isinstance(stage, ResultStage))
        result.append(Estimate(stage, round(passes), passes * image + steps * step, 4 * parameters * kept))
    return result


def _lengths(
    stage: Pretraining | ResultStage, settings: ComparisonSettings, datasets: Datasets
) -> tuple[int, int, int]:
    """Images that a stage trains on and that it evaluates, each as often as it does, and its steps."""
    training = stage.settings
    if isinstance(stage, Pretraining):
        images, tested = _drawn(stage, datasets), training.held_out * _drawers(stage)
    else:
        opened = datasets[settings.downstreams[stage.downstream]]
        images, tested = len(opened.train), len(opened.test)
        if isinstance(stage, Probing):
            return 0, images + tested, 0
    batch = training.batch_size * training.grad_accum_steps
    if training.steps is not None:
        validations = ceil(training.steps / (training.interval or training.steps))
        return training.steps * batch, tested * validations, training.steps
    epochs = training.epochs or 0
    return epochs * images, epochs * tested, epochs * ceil(images / batch)


def _drawn(stage: Pretraining, datasets: Datasets) -> int:
    """Number of images in an epoch of pre-training."""
    source = stage.source
    if source.images is not None:
        return len(datasets[source.images].train)
    if source.mixture is not None:
        return sum(len(Store(part.store)) if part.store else len(part.recipe or ()) for part in source.mixture.parts)
    assert source.recipe is not None
    return len(source.recipe)


def _drawers(stage: Pretraining) -> int:
    """Number of categories that draw ``held_out`` instances each; a recipe of scenes counts once."""
    source = stage.source
    recipes = [source.recipe]
    if source.mixture is not None:
        recipes = [Store(part.store).recipe if part.store else part.recipe for part in source.mixture.parts]
    return sum(1 if recipe.is_scene else recipe.num_categories for recipe in recipes if recipe is not None)


def _parameters(settings: TrainSettings) -> int:
    """Number of a model's parameters, which take no memory here."""
    import torch

    from formulavision.training.models import build_model

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(settings, num_classes=1000).parameters())


def _copies(settings: TrainSettings, *, best: bool) -> int:
    """How many times a run's folder holds as many numbers as its model has parameters."""
    checkpoint = (2 if settings.optimizer == "sgd" else 3) + (settings.ema > 0)
    return 1 + best + checkpoint  # of a finished run


def time_training(settings: TrainSettings, few: int = 8) -> tuple[float, float]:
    """Seconds that an image takes in training on this machine, and a step besides its images.

    Args:
        settings: the model, the size of its images, precision and device.
        few: images of the smaller one of the two batches that are timed; the other has four times as many.
    """
    import torch

    from formulavision.training.fit import arrange, resolve_device, resolve_precision
    from formulavision.training.models import build_model
    from formulavision.training.optimization import make_optimizer

    device, size = resolve_device(settings.device), settings.crop
    faster = resolve_precision(settings.precision, device) != "32-true"
    model = build_model(settings, num_classes=10).to(device)
    layout = torch.channels_last if arrange(model, settings, device).channels_last else torch.contiguous_format
    optimizer = make_optimizer(model, settings)

    def step(batch: int) -> None:
        images = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=layout)
        with torch.autocast(device.type, torch.bfloat16, enabled=faster):
            loss = model(images).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device

    one, other = shortest(partial(step, few)), shortest(partial(step, 4 * few))
    image = max(other - one, other / (8 * few)) / (3 * few)
    return image, max(one - few * image, 0) + 0.01


def shortest(run: Callable[[], Any]) -> float:
    """Seconds of the shortest of as many runs as fit into a second, after one that does not count."""
    run()
    times: list[float] = []
    while sum(times) < 1 and len(times) < 10:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return min(times)
