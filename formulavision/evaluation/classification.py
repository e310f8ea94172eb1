"""Accuracy, loss and confusions of a fine-tuned model on a downstream dataset's test images."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from formulavision.downstream import Downstream, DownstreamSettings, open_downstream
from formulavision.errors import CheckpointError, ConfigError
from formulavision.files import write_text
from formulavision.training.checkpoints import load_checkpoint
from formulavision.training.fit import resolve_device, resolve_precision
from formulavision.training.loading import ImageDataset, Prepared, make_loader
from formulavision.training.models import build_model, to_input
from formulavision.training.progress import say
from formulavision.training.runs import write_json
from formulavision.training.settings import TrainSettings

__all__ = ["Evaluation", "evaluate"]

_TOP_K = 5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model does on test images.

    Attributes:
        top1, topk: shares (0..1) of images whose class is the first, or among the first ``k``, of the model's.
        k: 5, or the number of classes where there are fewer.
        loss: mean cross-entropy in nats.
        images: number of test images.
        class_names: in the order of the labels.
        per_class: share (0..1) of each class's images that are recognised; None for a class without images.
        confusion: int64 [classes, classes], rows the true class, columns the predicted one.
        seconds: what it took, start-up of the model not included.
        folder: where the files were written.
    """

    top1: float
    topk: float
    k: int
    loss: float
    images: int
    class_names: list[str]
    per_class: list[float | None]
    confusion: NDArray[np.int64]
    seconds: float
    folder: Path


def evaluate(
    checkpoint: str | Path,
    downstream: Downstream | DownstreamSettings | str,
    *,
    out: str | Path | None = None,
    batch_size: int = 256,
    workers: int = 0,
    show_progress: bool = True,
) -> Evaluation:
    """Evaluate a fine-tuned model on a downstream dataset's test images.

    Writes ``evaluation.json``, ``per_class.csv`` and ``confusion_matrix.csv`` into ``out``.

    Args:
        checkpoint: the folder of a fine-tuning run, whose classes must be those of the dataset.
        downstream: the dataset, or how to open it (``cifar10``, ``folder:/path``).
        out: a folder; the run's own where it is None.
        batch_size: images a step.
        workers: processes that load images; 0 loads them here.

    Raises:
        CheckpointError: the checkpoint is no run, or is of other classes.
        DownstreamError: the dataset cannot be used as it is.
        ConfigError: an argument is out of range, or ``out`` cannot be written.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is not allowed: must be at least 1")
    if workers < 0:
        raise ConfigError(f"workers: {workers} is not allowed: must be at least 0")
    weights = load_checkpoint(checkpoint)
    run = weights.run
    if run is None:
        raise CheckpointError(f"{checkpoint}: is a file of weights: evaluate the folder of a run that finetune made")
    opened = downstream if isinstance(downstream, Downstream) else open_downstream(downstream)
    _check_classes(run.class_names, opened, run.folder)
    settings = TrainSettings.model_validate(run.settings["settings"])
    device = resolve_device("auto" if settings.device != "cpu" else "cpu")
    model = build_model(settings, opened.num_classes)
    weights.load_into(model, head=True)
    folder = Path(out) if out is not None else run.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {folder}: cannot be written: {error.strerror}") from None
    console = Console(quiet=not show_progress)
    started = time.perf_counter()
    metrics = _measure(model.to(device), opened.test, settings, device, batch_size, workers, console)
    confusion = metrics["confusion"].cpu().numpy().astype(np.int64)
    counts = confusion.sum(axis=1)
    evaluation = Evaluation(
        # Counts, because torchmetrics divides them in float32.
        top1=float(np.trace(confusion) / len(opened.test)),
        topk=round(float(metrics["topk"]) * len(opened.test)) / len(opened.test),
        k=min(_TOP_K, opened.num_classes),
        loss=float(metrics["loss"]),
        images=len(opened.test),
        class_names=opened.class_names,
        per_class=[float(confusion[i, i] / n) if n else None for i, n in enumerate(counts)],
        confusion=confusion,
        seconds=time.perf_counter() - started,
        folder=folder,
    )
    _write(evaluation, opened, run.folder)
    say(
        console,
        f"{run.folder} on {opened.name}: top-1 {evaluation.top1:.2%}, top-{evaluation.k} {evaluation.topk:.2%}, "
        f"loss {evaluation.loss:.4f} ({evaluation.images:,} images, {evaluation.seconds:.1f} s); "
        f"written to {folder}: evaluation.json, per_class.csv, confusion_matrix.csv",
    )
    return evaluation


def _check_classes(trained: Sequence[str], opened: Downstream, folder: Path) -> None:
    if list(trained) == opened.class_names:
        return
    if len(trained) != opened.num_classes:
        raise CheckpointError(
            f"{folder}: tells {len(trained)} classes apart, {opened.name} has {opened.num_classes}: "
            "fine-tune on it first"
        )
    ours, theirs = next((a, b) for a, b in zip(trained, opened.class_names, strict=True) if a != b)
    raise CheckpointError(
        f"{folder}: was trained on other classes than {opened.name} has ('{ours}' where that has '{theirs}'): "
        "fine-tune on it first"
    )


def _measure(
    model: torch.nn.Module,
    test: ImageDataset,
    settings: TrainSettings,
    device: torch.device,
    batch_size: int,
    workers: int,
    console: Console,
) -> dict[str, torch.Tensor]:
    classes = test.num_classes
    metrics = MetricCollection(
        {
            "topk": MulticlassAccuracy(classes, average="micro", top_k=min(_TOP_K, classes)),
            "confusion": MulticlassConfusionMatrix(classes),
        },
        compute_groups=False,
    ).to(device)
    loss = MeanMetric().to(device)
    prepared = Prepared(
        test, resize=settings.resize, crop=settings.crop, augment=False, flip=False, seed=settings.seed, cache=None
    )
    loader = make_loader(prepared, batch_size=batch_size, shuffle=False, workers=workers, pin=device.type == "cuda")
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolve_precision(settings.precision, device))
    model.eval()
    with torch.inference_mode(), torch.autocast(device.type, dtype) if dtype else nullcontext():
        for images, labels in track(
            loader, "evaluating", console=console, transient=True, disable=not console.is_terminal
        ):
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            logits = model(to_input(images, mean, std)).float()
            metrics.update(logits, labels)
            loss.update(cross_entropy(logits, labels), len(labels))
    return {**metrics.compute(), "loss": loss.compute()}


def _write(evaluation: Evaluation, opened: Downstream, run: Path) -> None:
    names = evaluation.class_names
    totals = evaluation.confusion.sum(axis=1)
    rows: list[list[Any]] = [
        [name, int(total), int(evaluation.confusion[i, i]), "" if share is None else share]
        for i, (name, total, share) in enumerate(zip(names, totals, evaluation.per_class, strict=True))
    ]
    _write_csv(evaluation.folder / "per_class.csv", [["class", "images", "correct", "accuracy"], *rows])
    _write_csv(
        evaluation.folder / "confusion_matrix.csv",
        [
            ["true \\ predicted", *names],
            *([n, *row] for n, row in zip(names, evaluation.confusion.tolist(), strict=True)),
        ],
    )
    note = (
        {} if evaluation.k == _TOP_K else {"note": f"top_5 counts the first {evaluation.k}: there are no more classes"}
    )
    write_json(
        {
            "checkpoint": str(run),
            "downstream": opened.identity(),
            "images": evaluation.images,
            "top_1": evaluation.top1,
            "top_5": evaluation.topk,
            "top_5_counts": evaluation.k,
            **note,
            "loss": evaluation.loss,
            "per_class": dict(zip(names, evaluation.per_class, strict=True)),
            "seconds": evaluation.seconds,
        },
        evaluation.folder / "evaluation.json",
    )


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows(rows)
    write_text(path, table.getvalue())
