"""From what a model says of each test image to its figures, and to the files that keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision.training.state import write_json
from formulavision.util.errors import ConfigError
from formulavision.util.files import atomic_write, write_text
from formulavision.util.folders import adding
from formulavision.util.text import csv_text

__all__ = [
    "MEAN_AVERAGE_PRECISION",
    "TOP_1",
    "TOP_K",
    "Evaluation",
    "Outcomes",
    "average_precision",
    "figures",
    "is_among",
    "make_folder",
    "write_files",
]

TOP_1 = "top-1 accuracy"
MEAN_AVERAGE_PRECISION = "mean average precision"
TOP_K = 5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model does on test images.

    Attributes:
        metric: ``top-1 accuracy``, or ``mean average precision`` where an image has several labels.
        score: the value of that metric (0..1).
        top1, topk: shares (0..1) of images whose class is the first, or among the first ``k``, of the model's; None
            where an image has several labels.
        k: 5, or the number of classes where there are fewer; None where an image has several labels.
        loss: mean cross-entropy in nats, with several labels mean binary cross-entropy of the entries that count; None
            where there are no probabilities.
        images: number of test images.
        class_names: in the order of the labels.
        per_class: share (0..1) of each class's images that are recognised, or the class's average precision; None for a
            class without images.
        confusion: int64 [classes, classes], rows the true class, columns the predicted one; None where an image has
            several labels.
        seconds: what it took, start-up of the model not included.
        folder: where the files were written.
    """

    metric: str
    score: float
    top1: float | None
    topk: float | None
    k: int | None
    loss: float | None
    images: int
    class_names: list[str]
    per_class: list[float | None]
    confusion: NDArray[np.int64] | None
    seconds: float
    folder: Path


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a model says of each test image, in the order of the dataset.

    Attributes:
        labels: int64 [n]; int8 [n, classes] where an image has several (1 present, 0 absent, -1 not counted).
        predicted: int64 [n], the class that is most likely; None with several labels.
        among: bool [n], whether the image's class is among the first ``k``; None with several labels.
        scores: float32 [n, classes] with several labels, higher where the class is more likely; otherwise None.
        loss: see :class:`Evaluation`.
    """

    labels: NDArray[Any]
    predicted: NDArray[np.int64] | None = None
    among: NDArray[np.bool_] | None = None
    scores: NDArray[np.float32] | None = None
    loss: float | None = None


def is_among(scores: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """Whether the image's class is among the ``k`` of the highest scores: bool [n].

    Args:
        scores: float [n, classes].
        labels: int64 [n].
    """
    return (scores.topk(k).indices == labels[:, None]).any(1)


def average_precision(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> float | None:
    """Average precision of one class, as Pascal VOC defines it since 2010.

    The area under precision over recall, with the precision at a recall being the highest at this or any higher recall
    (Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 2.2, and the
    development kit). Without that "highest", it is scikit-learn's ``average_precision_score``, which is a little lower.

    Args:
        labels: int8 [n], 1 present, 0 absent, -1 not counted.
        scores: float32 [n], higher where the class is more likely. Images of the same score rank together.

    Returns:
        0..1; None where the class is in no image.
    """
    from sklearn.metrics import precision_recall_curve

    counted = labels >= 0
    if not (labels == 1).any():
        return None
    # From the lowest threshold, at which recall is 1, to the highest.
    precision, recall, _ = precision_recall_curve(labels[counted], scores[counted])
    return float(-np.sum(np.diff(recall) * np.maximum.accumulate(precision)[:-1]))


def figures(outcomes: Outcomes, num_classes: int) -> dict[str, Any]:
    """The attributes of an :class:`Evaluation` that follow from the outcomes.

    Raises:
        ConfigError: no class has a test image.
    """
    if outcomes.predicted is None:
        assert outcomes.scores is not None
        per_class = [average_precision(outcomes.labels[:, c], outcomes.scores[:, c]) for c in range(num_classes)]
        found = [value for value in per_class if value is not None]
        if not found:
            raise ConfigError("downstream: none of its classes is in a test image: there is nothing to evaluate on")
        return {
            "metric": MEAN_AVERAGE_PRECISION,
            "score": float(np.mean(found)),
            "top1": None,
            "topk": None,
            "k": None,
            "loss": outcomes.loss,
            "per_class": per_class,
            "confusion": None,
        }
    assert outcomes.among is not None
    pairs = outcomes.labels * num_classes + outcomes.predicted
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    totals, right = confusion.sum(axis=1), confusion.diagonal()
    top1 = float(right.sum() / totals.sum())
    return {
        "metric": TOP_1,
        "score": top1,
        "top1": top1,
        "topk": float(outcomes.among.mean()),
        "k": min(TOP_K, num_classes),
        "loss": outcomes.loss,
        "per_class": [float(r / n) if n else None for r, n in zip(right, totals, strict=True)],
        "confusion": confusion,
    }


# Files ---------------------------------------------------------------------------------------------------------------


FILES = ("evaluation.json", "per_class.csv", "predictions.npz", "confusion_matrix.csv")
"""All that an evaluation writes."""


def make_folder(out: Path) -> Path:
    """The folder, made where it is missing; where it is a run's, with an evaluation's files on the list of its own.

    Raises:
        ConfigError: it cannot be made, or somebody's file has the name of one of ours.
    """
    try:
        with adding(out, FILES):
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {out}: cannot be written: {error.strerror}") from None
    return out


def write_files(evaluation: Evaluation, outcomes: Outcomes, facts: Mapping[str, Any]) -> list[str]:
    """Write the files of an evaluation into its folder.

    Args:
        outcomes: for predictions.npz.
        facts: what evaluation.json says besides the figures: what was evaluated, and on what.

    Returns:
        The names of the files.
    """
    with adding(evaluation.folder, FILES):
        return _write_files(evaluation, outcomes, facts)


def _write_files(evaluation: Evaluation, outcomes: Outcomes, facts: Mapping[str, Any]) -> list[str]:
    folder = evaluation.folder
    arrays: dict[str, Any] = {"label": outcomes.labels}
    if outcomes.predicted is not None:
        arrays["predicted"] = outcomes.predicted
    if outcomes.scores is not None:
        arrays["scores"] = outcomes.scores
    with atomic_write(folder / "predictions.npz") as file:
        np.savez_compressed(file, **arrays)
    _write_csv(folder / "per_class.csv", _class_rows(evaluation, outcomes))
    names = evaluation.class_names
    files = ["evaluation.json", "per_class.csv", "predictions.npz"]
    if evaluation.confusion is not None:
        files.append("confusion_matrix.csv")
        rows = zip(names, evaluation.confusion.tolist(), strict=True)
        _write_csv(
            folder / "confusion_matrix.csv", [["true \\ predicted", *names], *([name, *row] for name, row in rows)]
        )
    fewer = evaluation.k is not None and evaluation.k < TOP_K
    write_json(
        {
            **facts,
            "images": evaluation.images,
            "metric": evaluation.metric,
            "score": evaluation.score,
            "top_1": evaluation.top1,
            "top_5": evaluation.topk,
            "top_5_counts": evaluation.k,
            **({"note": f"top_5 counts the first {evaluation.k}: there are no more classes"} if fewer else {}),
            "loss": evaluation.loss,
            "per_class": dict(zip(names, evaluation.per_class, strict=True)),
            "seconds": evaluation.seconds,
        },
        folder / "evaluation.json",
    )
    return files


def _class_rows(evaluation: Evaluation, outcomes: Outcomes) -> list[list[Any]]:
    shares = ["" if share is None else share for share in evaluation.per_class]
    names = evaluation.class_names
    if evaluation.confusion is None:
        totals = (outcomes.labels == 1).sum(axis=0).tolist()
        columns = ["class", "images", "average_precision"]
        return [columns, *(list(row) for row in zip(names, totals, shares, strict=True))]
    totals, right = evaluation.confusion.sum(axis=1).tolist(), evaluation.confusion.diagonal().tolist()
    return [
        ["class", "images", "correct", "accuracy"],
        *(list(row) for row in zip(names, totals, right, shares, strict=True)),
    ]


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    write_text(path, csv_text(rows))
