"""How good a fine-tuned model is on a downstream dataset's test images."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.console import Console
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from formulavision.data.downstream import Downstream, DownstreamSettings, open_for_run
from formulavision.evaluation.inference import BATCH_SIZE, choose_device, over_dataset
from formulavision.evaluation.scores import (
    TOP_K,
    Evaluation,
    Outcomes,
    figures,
    is_among,
    make_folder,
    write_files,
)
from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.models import build_model
from formulavision.training.progress import say
from formulavision.training.runs import Run
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import CheckpointError

__all__ = ["Evaluation", "binary_loss", "check_classes", "evaluate", "open_finetuned", "summary"]


def evaluate(
    checkpoint: str | Path,
    downstream: Downstream | DownstreamSettings | str,
    *,
    out: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Evaluate a fine-tuned model on a downstream dataset's test images.

    The metric is top-1 accuracy, or mean average precision (Pascal VOC's since 2010, see
    :func:`formulavision.evaluation.scores.average_precision`) where an image has several labels.

    Writes ``evaluation.json``, ``per_class.csv``, ``confusion_matrix.csv`` (one label an image) and
    ``predictions.npz`` into ``out``. The last holds, image by image, ``label`` and ``predicted`` (int64 [n]); with
    several labels ``label`` (int8 [n, classes]) and ``scores`` (float32 [n, classes], logits).

    Args:
        checkpoint: the folder of a fine-tuning run, whose classes must be those of the dataset.
        downstream: the dataset, or how to open it (``cifar10``, ``folder:/path``).
        out: a folder; the run's own where it is None.
        batch_size: images a step.
        workers: processes that load images; 0 loads them here; None: 0, or up to 16 where the model is on a GPU.

    Raises:
        CheckpointError: the checkpoint is no run, or is of other classes.
        DownstreamError: the dataset cannot be used as it is.
        ConfigError: an argument is out of range, or ``out`` cannot be written.
    """
    weights, run = open_finetuned(checkpoint)
    opened = open_for_run(downstream, run)
    check_classes(run, opened)
    settings = TrainSettings.model_validate(run.settings["settings"])
    device = choose_device(settings)
    model = build_model(settings, opened.num_classes)
    weights.load_into(model, head=True)
    model.eval().to(device)
    folder = make_folder(Path(out) if out is not None else run.folder)
    console = Console(quiet=not show_progress)
    if opened.note:
        say(console, opened.describe())
    k = min(TOP_K, opened.num_classes)

    def outcome(inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = model(inputs).float()
        if labels.ndim == 2:
            return labels, logits
        losses = cross_entropy(logits, labels, reduction="none")
        return labels, logits.argmax(1), is_among(logits, labels, k), losses

    started = time.perf_counter()
    found = over_dataset(
        outcome,
        opened.test,
        settings,
        device=device,
        batch_size=batch_size,
        workers=workers,
        console=console,
        doing="evaluating",
    )
    outcomes = _outcomes(found)
    evaluation = Evaluation(
        **figures(outcomes, opened.num_classes),
        images=len(opened.test),
        class_names=opened.class_names,
        seconds=time.perf_counter() - started,
        folder=folder,
    )
    files = write_files(evaluation, outcomes, {"checkpoint": str(run.folder), "downstream": opened.identity()})
    say(console, f"{run.folder} on {opened.name}: {summary(evaluation)}; written to {folder}: {', '.join(files)}")
    return evaluation


def open_finetuned(checkpoint: str | Path) -> tuple[Checkpoint, Run]:
    """The weights and the run of a folder.

    Raises:
        CheckpointError: it is no complete run's folder.
    """
    weights = load_checkpoint(checkpoint)
    if weights.run is None:
        raise CheckpointError(f"{checkpoint}: is a file of weights: give the folder of a run that finetune made")
    return weights, weights.run


def check_classes(run: Run, opened: Downstream) -> None:
    """Refuse a run that tells other classes apart than the dataset has.

    Raises:
        CheckpointError: names the first class that differs.
    """
    trained = run.class_names
    if trained == opened.class_names:
        return
    if len(trained) != opened.num_classes:
        raise CheckpointError(
            f"{run.folder}: tells {len(trained)} classes apart, {opened.name} has {opened.num_classes}: "
            "fine-tune on it first"
        )
    ours, theirs = next((a, b) for a, b in zip(trained, opened.class_names, strict=True) if a != b)
    raise CheckpointError(
        f"{run.folder}: was trained on other classes than {opened.name} has ('{ours}' where that has '{theirs}'): "
        "fine-tune on it first"
    )


def summary(evaluation: Evaluation) -> str:
    """The figures in one line."""
    parts = [f"{evaluation.metric} {evaluation.score:.2%}"]
    if evaluation.topk is not None:
        parts = [f"top-1 {evaluation.top1:.2%}, top-{evaluation.k} {evaluation.topk:.2%}"]
    if evaluation.loss is not None:
        parts.append(f"loss {evaluation.loss:.4f}")
    return f"{', '.join(parts)} ({evaluation.images:,} images, {evaluation.seconds:.1f} s)"


def binary_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean binary cross-entropy of the entries that count.

    Args:
        logits: float [n, classes].
        labels: int8 [n, classes]: 1 present, 0 absent, -1 not counted.
    """
    counted = labels >= 0
    return float(binary_cross_entropy_with_logits(logits[counted].double(), labels[counted].double()))


def _outcomes(found: list[torch.Tensor]) -> Outcomes:
    if len(found) == 2:
        labels, logits = found
        return Outcomes(labels.numpy(), scores=logits.numpy(), loss=binary_loss(logits, labels))
    labels, predicted, among, losses = found
    return Outcomes(labels.numpy(), predicted.numpy(), among.numpy(), loss=float(losses.double().mean()))
