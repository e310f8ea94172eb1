"""Accuracy, average precision and loss of a model's predictions on test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formulavision.training.average_precision import average_precision
from formulavision.util.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["MEAN_AVERAGE_PRECISION", "TOP_1", "TOP_K", "Metrics", "Predictions", "average_precision", "compute_metrics"]

TOP_1 = "top-1 accuracy"
MEAN_AVERAGE_PRECISION = "mean average precision"
TOP_K = 5


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions for test images, in the order of the dataset.

    Attributes:
        labels: int64 [n]; int8 [n, classes] where an image has several labels (1 present, 0 absent, -1 not counted).
        scores: float32 [n, classes], higher where the class is more likely; -inf for a class that is ruled out.
        are_logits: whether the scores are logits, which have a cross-entropy.
    """

    labels: torch.Tensor
    scores: torch.Tensor
    are_logits: bool = True

    @property
    def multi_label(self) -> bool:
        """Whether an image has several labels."""
        return self.labels.ndim == 2

    @property
    def predicted(self) -> torch.Tensor:
        """The class with the highest score, int64 [n]."""
        return self.scores.argmax(1)


@dataclass(frozen=True, eq=False, repr=False)
class Metrics:
    """Metrics of predictions.

    Attributes:
        metric: ``top-1 accuracy``, or ``mean average precision`` where an image has several labels.
        score: the value of that metric (0..1).
        top1, topk: shares (0..1) of images whose class has the highest score, or one of the ``k`` highest; None where
            an image has several labels.
        k: 5, or the number of classes where there are fewer; None where an image has several labels.
        loss: mean cross-entropy in nats; with several labels mean binary cross-entropy of the entries that count; None
            where the scores are not logits.
        per_class: share (0..1) of each class's images that are recognised, or the class's average precision; None for a
            class without images.
        confusion: int64 [classes, classes], rows the true class, columns the predicted one; None where an image has
            several labels.
    """

    metric: str
    score: float
    top1: float | None
    topk: float | None
    k: int | None
    loss: float | None
    per_class: list[float | None]
    confusion: NDArray[np.int64] | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.metric} {self.score:.2%} of {len(self.per_class)} classes)"


def compute_metrics(predictions: Predictions) -> Metrics:
    """The metrics of predictions.

    Raises:
        ConfigError: no class has a test image.
    """
    return _of_several_labels(predictions) if predictions.multi_label else _of_one_label(predictions)


def _of_one_label(predictions: Predictions) -> Metrics:
    # Imported here, so that tables and reports, which read what was computed, start without torch.
    from torch.nn.functional import cross_entropy
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    labels, scores = predictions.labels, predictions.scores
    k = min(TOP_K, scores.shape[1])
    highest = scores.topk(k)
    among = ((highest.indices == labels[:, None]) & (highest.values > -np.inf)).any(1)
    confusion: NDArray[np.int64] = multiclass_confusion_matrix(
        predictions.predicted, labels, num_classes=scores.shape[1]
    ).numpy()
    totals, correct = confusion.sum(axis=1), confusion.diagonal()
    top1 = float(correct.sum() / totals.sum())
    return Metrics(
        metric=TOP_1,
        score=top1,
        top1=top1,
        topk=float(among.double().mean()),
        k=k,
        loss=float(cross_entropy(scores.double(), labels)) if predictions.are_logits else None,
        per_class=[float(right / total) if total else None for right, total in zip(correct, totals, strict=True)],
        confusion=confusion,
    )


def _of_several_labels(predictions: Predictions) -> Metrics:
    from torch.nn.functional import binary_cross_entropy_with_logits

    labels, scores = predictions.labels, predictions.scores
    per_class = [average_precision(*columns) for columns in zip(labels.numpy().T, scores.numpy().T, strict=True)]
    found = [value for value in per_class if value is not None]
    if not found:
        raise ConfigError("downstream: none of its classes is in a test image: there is nothing to evaluate on")
    loss = None
    if predictions.are_logits:
        counted = labels >= 0
        loss = float(binary_cross_entropy_with_logits(scores[counted].double(), labels[counted].double()))
    nothing: dict[str, Any] = dict.fromkeys(("top1", "topk", "k", "confusion"))
    return Metrics(MEAN_AVERAGE_PRECISION, float(np.mean(found)), loss=loss, per_class=per_class, **nothing)
