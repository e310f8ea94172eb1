"""Accuracy, average precision, mean intersection over union and loss of a model's predictions on test images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formulavision.training.average_precision import average_precision
from formulavision.util.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "MEAN_AVERAGE_PRECISION",
    "MEAN_IOU",
    "TOP_1",
    "TOP_K",
    "Metrics",
    "PixelCounts",
    "Predictions",
    "average_precision",
    "compute_metrics",
]

TOP_1 = "top-1 accuracy"
MEAN_AVERAGE_PRECISION = "mean average precision"
MEAN_IOU = "mIoU"
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


class PixelCounts:
    """Pixels of test images by their true and their predicted class, added up batch by batch.

    Attributes:
        confusion: int64 [classes, classes], rows the true class, columns the predicted one; ignored pixels are left
            out.
        shown: number of images that show each class, int64 [classes].
        images: number of images.
        loss: sum over images of the mean cross-entropy of their pixels, nats.
    """

    def __init__(self, num_classes: int) -> None:
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self.shown = np.zeros(num_classes, np.int64)
        self.images = 0
        self.loss = 0.0

    def add(self, logits: torch.Tensor, masks: torch.Tensor) -> None:
        """Count a batch.

        Args:
            logits: float32 [b, classes, h, w].
            masks: as of :class:`formulavision.training.tasks.SemanticTask`, [b, h, w].
        """
        from formulavision.training.tasks import SemanticTask

        task = SemanticTask(len(self.confusion))
        masks = masks.to(logits.device)
        self.confusion += task.counts(logits, masks).cpu().numpy()
        self.loss += float(task.loss(logits, masks)) * len(masks)
        self.images += len(masks)
        for mask in masks.cpu().numpy():
            there = np.unique(mask)
            self.shown[there[there < len(self.shown)]] += 1


@dataclass(frozen=True, eq=False, repr=False)
class Metrics:
    """Metrics of predictions.

    Attributes:
        metric: ``top-1 accuracy``; ``mean average precision`` where an image has several labels; ``mIoU``, the mean
            over classes of intersection by union, where it has a mask.
        score: the value of that metric (0..1).
        top1, topk: shares (0..1) of images whose class has the highest score, or one of the ``k`` highest; None where
            an image has several labels or a mask.
        k: 5, or the number of classes where there are fewer; None where an image has several labels or a mask.
        loss: mean cross-entropy in nats; with several labels mean binary cross-entropy of the entries that count; None
            where the scores are not logits.
        per_class: share (0..1) of each class's images that are recognised; or the class's average precision, or its
            intersection by union over all pixels; None for a class without images (of masks: one that is not predicted
            either).
        confusion: int64 [classes, classes], rows the true class, columns the predicted one, in images or, of masks, in
            pixels; None where an image has several labels.
        pixel_accuracy: share (0..1) of pixels whose class is predicted; None without masks.
    """

    metric: str
    score: float
    top1: float | None
    topk: float | None
    k: int | None
    loss: float | None
    per_class: list[float | None]
    confusion: NDArray[np.int64] | None
    pixel_accuracy: float | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.metric} {self.score:.2%} of {len(self.per_class)} classes)"


def compute_metrics(predictions: Predictions | PixelCounts) -> Metrics:
    """The metrics of predictions.

    Raises:
        ConfigError: no class has a test image, or no pixel counts.
    """
    if isinstance(predictions, PixelCounts):
        return _of_pixels(predictions)
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
        pixel_accuracy=None,
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
    nothing: dict[str, Any] = dict.fromkeys(("top1", "topk", "k", "confusion", "pixel_accuracy"))
    return Metrics(MEAN_AVERAGE_PRECISION, float(np.mean(found)), loss=loss, per_class=per_class, **nothing)


def _of_pixels(counts: PixelCounts) -> Metrics:
    confusion = counts.confusion
    both = confusion.diagonal()
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    if not union.any():
        raise ConfigError("downstream: all pixels of its test masks are ignored: there is nothing to evaluate on")
    per_class = [float(shared / whole) if whole else None for shared, whole in zip(both, union, strict=True)]
    return Metrics(
        metric=MEAN_IOU,
        score=float(np.mean([value for value in per_class if value is not None])),
        top1=None,
        topk=None,
        k=None,
        loss=counts.loss / counts.images,
        per_class=per_class,
        confusion=confusion,
        pixel_accuracy=float(both.sum() / confusion.sum()),
    )
