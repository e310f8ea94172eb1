"""A fine-tuned model on the test images of a downstream dataset."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from formulavision.data.downstream import Downstream, DownstreamLike, open_for_run
from formulavision.evaluation.inference import BATCH_SIZE, choose_device, computed_by, each_batch, over_dataset
from formulavision.evaluation.metrics import PixelCounts, Predictions, compute_metrics
from formulavision.evaluation.results import Evaluation, make_folder, refuse_another, write_results
from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.models import build_model
from formulavision.training.progress import say_and_log
from formulavision.training.runs import Run, own_class
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import CheckpointError

_LOGITS = 1 << 27
"""Largest number of logits of a batch of masks: half a gigabyte."""

__all__ = ["build_finetuned", "check_class_names", "check_classes", "evaluate", "open_finetuned"]


def evaluate(
    checkpoint: str | PathLike[str],
    downstream: DownstreamLike,
    *,
    model: nn.Module | None = None,
    out: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Evaluate a fine-tuned model on a downstream dataset's test images.

    The metric is top-1 accuracy; mean average precision (Pascal VOC's since 2010, see
    :func:`formulavision.evaluation.metrics.average_precision`) where an image has several labels; or, where it has a
    mask, mIoU: intersection by union of each class over the pixels of all images, at the size that the model sees
    (masks are resized and cropped as their images are), and the mean over classes that are in masks or predictions.

    Writes ``evaluation.json``, ``per_class.csv``, ``confusion_matrix.csv`` (not with several labels an image) and
    ``predictions.npz`` (not of masks) into ``out``. The last holds, image by image, ``label`` and ``predicted`` (int64
    [n]); with several labels ``label`` (int8 [n, classes]) and ``scores`` (float32 [n, classes], logits).

    Args:
        checkpoint: the folder of a fine-tuning run, whose classes must be those of the dataset; or its
            ``model_best.safetensors``, the weights of its best epoch.
        downstream: the dataset, or how to open it (``cifar10``, ``folder:/path``); see
            :func:`formulavision.data.downstream.open_downstream`. A folder without test images is divided as the run
            divided it, unless ``test_share`` or ``test_seed`` is given.
        model: a module of the kind that the run was started with, where that was one of your own. It stays as it is.
        out: a folder; None: the run's own, or ``evaluation-best`` in it for the weights of the best epoch, unless an
            evaluation on other images is there.
        batch_size: images a step.
        workers: processes that load images; 0: this process; None: 0, or up to 16 where the model is on a GPU.
        show_progress: whether lines and a progress bar are printed.

    Raises:
        CheckpointError: the checkpoint is no run, or has other classes.
        DownstreamError: the dataset cannot be used as it is, or the run was trained on a test image.
        ConfigError: an argument is out of range, or ``out`` cannot be written.
    """
    weights, run = open_finetuned(checkpoint)
    opened = open_for_run(downstream, run)
    check_classes(run, opened)
    model, settings = build_finetuned(weights, run, model)
    own_folder = run.folder / "evaluation-best" if weights.is_best else run.folder
    tested = {"downstream": opened.identity()}
    if out is None:
        refuse_another(own_folder, tested, "an evaluation")
    folder = make_folder(Path(out) if out is not None else own_folder)
    console = Console(quiet=not show_progress)
    if opened.note:
        say_and_log(opened.describe(), console)
    if opened.target == "semantic":
        batch_size = max(1, min(batch_size, _LOGITS // (opened.num_classes * settings.crop**2)))
    started = time.perf_counter()
    how: dict[str, Any] = {
        **{"device": choose_device(settings), "batch_size": batch_size, "workers": workers},
        **{"console": console, "doing": "evaluating"},
    }
    predictions: Predictions | PixelCounts
    if opened.target == "semantic":
        predictions = PixelCounts(opened.num_classes)
        each_batch(model, predictions.add, opened.test, settings, **how)
    else:
        logits, labels = over_dataset(model, opened.test, settings, **how)
        predictions = Predictions(labels, logits)
    evaluation = Evaluation(
        **vars(compute_metrics(predictions)),
        images=len(opened.test),
        classes=opened.classes,
        seconds=time.perf_counter() - started,
        folder=folder,
    )
    facts = {"checkpoint": str(weights.path), **tested, **computed_by(settings, how["device"])}
    files = write_results(evaluation, predictions, facts)
    say_and_log(
        f"{weights.path} on {opened.name}: {evaluation.summary()}; written to {folder}: {', '.join(files)}", console
    )
    return evaluation


def open_finetuned(checkpoint: str | PathLike[str]) -> tuple[Checkpoint, Run]:
    """The weights and the run in a folder.

    Raises:
        CheckpointError: the folder holds no complete run.
    """
    weights = load_checkpoint(checkpoint)
    if weights.run is None:
        raise CheckpointError(f"{checkpoint}: is a file of weights: give the folder of a run that finetune made")
    return weights, weights.run


def check_classes(run: Run, opened: Downstream) -> None:
    """Refuse a run with other classes than the dataset's, or of another kind of target.

    Raises:
        CheckpointError: names the first class that differs.
    """
    if (run.target == "semantic") != (opened.target == "semantic"):
        ours, theirs = ("masks", "no masks") if run.target == "semantic" else ("no masks", "masks")
        raise CheckpointError(f"{run.folder}: has learned {ours}, {opened.name} has {theirs}: fine-tune on it first")
    check_class_names(run, opened.name, opened.classes, "fine-tune on it first")


def check_class_names(run: Run, name: str, classes: Sequence[str], remedy: str) -> None:
    """Refuse a run with other classes than a dataset's.

    Args:
        name, classes: of the dataset.
        remedy: the end of the message.

    Raises:
        CheckpointError: names the first class that differs.
    """
    trained = run.classes
    if len(trained) != len(classes):
        raise CheckpointError(f"{run.folder}: has {len(trained)} classes, {name} has {len(classes)}: {remedy}")
    for ours, theirs in zip(trained, classes, strict=True):
        if ours != theirs:
            raise CheckpointError(
                f"{run.folder}: has other classes than {name} ('{ours}' where that has '{theirs}'): {remedy}"
            )


def build_finetuned(weights: Checkpoint, run: Run, model: nn.Module | None = None) -> tuple[nn.Module, TrainSettings]:
    """The model of a run with its weights, in evaluation mode on the best device, and the run's settings.

    Args:
        model: of the kind that the run was started with; it is copied. None: timm's.

    Raises:
        CheckpointError: the run was started with a module of the user's own, and none is given.
        ConfigError: the module has other tensors than the run's.
    """
    settings = TrainSettings.model_validate(run.settings["settings"])
    if model is not None:
        model = copy.deepcopy(model)
        run.load_into(model, best=weights.is_best)
    elif own := own_class(run.settings):
        raise CheckpointError(
            f"{run.folder}: was trained with a module of your own, {own}: give it to evaluate(model=...) in "
            "Python; other functions take models of timm alone"
        )
    else:
        model = build_model(settings, len(run.classes))
        weights.load_into(model, head=True)
    return model.eval().to(choose_device(settings)), settings
