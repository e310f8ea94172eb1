"""What a model learns from a target: its loss and its metrics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchmetrics.functional.classification import multiclass_confusion_matrix

from formulavision.data.items import ImageDataset, target_of
from formulavision.data.mixtures import MixtureImages
from formulavision.recipes.targets import IGNORED, IGNORED_16
from formulavision.training.average_precision import average_precision
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import ConfigError

__all__ = ["TASKS", "ClassTask", "LabelsTask", "SemanticTask", "Task", "for_target", "make_task"]

_SAMPLED = 1000
"""Number of images from which the share of positives is estimated where a dataset does not list its labels."""
_NOT_COUNTED = -100
_MOVING = ("random_resized_crop", "rand_augment", "random_erasing", "mixing")
"""Settings that move or remove pixels of images, without those of masks."""


class Task(torch.nn.Module):
    """Loss and metrics of a target. It has no parameters; its buffers move with the module that holds it.

    Args:
        num_classes: number of classes, those of the model's output.

    Attributes:
        target: the target that it belongs to.
        metrics: names of the metrics of training and of validation images, whose values are 0..1.
        validated: names of further metrics, of validation images alone: they need the scores of all images.
        best: the metric by which the best epoch is chosen.
        mixes: whether mixup and CutMix can mix its targets.
    """

    target: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    validated: ClassVar[tuple[str, ...]] = ()
    best: ClassVar[str]
    mixes: ClassVar[bool] = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @classmethod
    def of(cls, dataset: ImageDataset) -> Task:
        """The task of a dataset's images."""
        return cls(len(dataset.classes))

    def output_shape(self, images: int, crop: int) -> tuple[int, ...]:
        """Shape of the model's output for a number of images of ``crop`` x ``crop`` pixels."""
        return (images, self.num_classes)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Mean loss of a batch: the mean over images, so that it is the same however a batch is divided.

        Args:
            smoothing: share of each label that is spread over all classes.
        """
        raise NotImplementedError

    def no_counts(self) -> torch.Tensor:
        """The counts of no image."""
        return torch.zeros(())

    def counts(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """What is added up over batches and processes for ``metrics``."""
        raise NotImplementedError

    def measure(self, counts: torch.Tensor, images: int) -> dict[str, float]:
        """``metrics`` from the counts of a number of images."""
        raise NotImplementedError

    def validate(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        """``validated`` from the logits and targets of all images, on the CPU."""
        return {}


class ClassTask(Task):
    """One class an image: cross-entropy, accuracy.

    Logits are float [b, classes], labels int64 [b], or float [b, classes] that sum to 1 (mixed images).
    """

    target = "class"
    metrics = ("accuracy",)
    best = "accuracy"
    mixes = True

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        return cross_entropy(logits, targets, label_smoothing=smoothing)

    def counts(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (logits.argmax(1) == targets).sum()

    def measure(self, counts: torch.Tensor, images: int) -> dict[str, float]:
        return {"accuracy": float(counts) / images}


class LabelsTask(Task):
    """Several labels an image: binary cross-entropy, accuracy of labels, mean average precision.

    Logits are float [b, classes], labels int8 [b, classes]: 1 present, 0 absent, -1 not counted. Loss and accuracy are
    averaged over the counted labels of an image, and then over images. The mean average precision (``map``) is Pascal
    VOC's; see :func:`~formulavision.training.average_precision.average_precision`. Classes that are in no image do not
    count.

    Args:
        positive_weights: factor on the loss of present labels, float32 [classes]; None: 1. See
            :func:`positive_weights`.
    """

    target = "labels"
    metrics = ("accuracy",)
    validated = ("map",)
    best = "map"
    weights: torch.Tensor | None

    def __init__(self, num_classes: int, positive_weights: torch.Tensor | None = None) -> None:
        super().__init__(num_classes)
        self.register_buffer("weights", positive_weights, persistent=False)

    @classmethod
    def of(cls, dataset: ImageDataset) -> Task:
        return cls(len(dataset.classes), positive_weights(dataset))

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        wanted = targets.clamp(min=0).to(logits.dtype)
        if smoothing:
            wanted = wanted * (1 - smoothing) + smoothing / 2
        counted = (targets >= 0).to(logits.dtype)
        losses = binary_cross_entropy_with_logits(
            logits, wanted, weight=counted, reduction="none", pos_weight=self.weights
        )
        return (losses.sum(1) / counted.sum(1).clamp(min=1)).mean()

    def counts(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        counted = targets >= 0
        correct = ((logits > 0) == (targets > 0)) & counted
        return (correct.sum(1) / counted.sum(1).clamp(min=1)).sum()

    def measure(self, counts: torch.Tensor, images: int) -> dict[str, float]:
        return {"accuracy": float(counts) / images}

    def validate(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        columns = zip(targets.numpy().T, logits.float().numpy().T, strict=True)
        found = [value for value in (average_precision(*pair) for pair in columns) if value is not None]
        return {"map": float(np.mean(found)) if found else 0.0}


class SemanticTask(Task):
    """A class for each pixel: cross-entropy, mean intersection over union, pixel accuracy.

    Logits are float [b, classes, h, w], masks integers [b, h, w]. Ignored pixels (255 of 8-bit masks, 65535 of others)
    count neither for the loss nor for the metrics. The loss is averaged over the counted pixels of an image, and then
    over images. The metrics are those of all counted pixels together: ``miou``, the mean over classes of intersection
    by union (Everingham et al., IJCV 2015, section 4.2), without classes that are in neither masks nor predictions, and
    ``pixel_accuracy``, the share of correct pixels.
    """

    target = "semantic"
    metrics = ("miou", "pixel_accuracy")
    best = "miou"

    def output_shape(self, images: int, crop: int) -> tuple[int, ...]:
        return (images, self.num_classes, crop, crop)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        wanted = _class_values(targets)
        losses = cross_entropy(
            logits, wanted, ignore_index=_NOT_COUNTED, reduction="none", label_smoothing=smoothing
        ).sum((1, 2))
        return (losses / (wanted != _NOT_COUNTED).sum((1, 2)).clamp(min=1)).mean()

    def no_counts(self) -> torch.Tensor:
        return torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def counts(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Numbers of pixels, int64 [classes, classes]: rows the true class, columns the predicted one."""
        found: torch.Tensor = multiclass_confusion_matrix(
            logits.argmax(1), _class_values(targets), self.num_classes, ignore_index=_NOT_COUNTED, validate_args=False
        )
        return found

    def measure(self, counts: torch.Tensor, images: int) -> dict[str, float]:
        confusion = counts.cpu().double()
        both = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - both
        found = union > 0
        ratios = both[found] / union[found]
        return {
            "miou": float(ratios.sum() / max(1, len(ratios))),
            "pixel_accuracy": float(both.sum() / confusion.sum().clamp(min=1)),
        }


def _class_values(masks: torch.Tensor) -> torch.Tensor:
    """Masks as int64, with ``_NOT_COUNTED`` where a pixel is ignored."""
    ignored = IGNORED if masks.dtype == torch.uint8 else IGNORED_16
    return masks.long().masked_fill(masks == ignored, _NOT_COUNTED)


TASKS: dict[str, type[Task]] = {task.target: task for task in (ClassTask, LabelsTask, SemanticTask)}
"""The tasks by their target."""


def make_task(dataset: ImageDataset) -> Task:
    """The task of a dataset's target.

    Raises:
        ConfigError: no model can be trained on the target here.
    """
    return TASKS[check_target(target_of(dataset))].of(dataset)


def check_target(target: str) -> str:
    """The target, if there is a task for it.

    Raises:
        ConfigError: there is none.
    """
    if target not in TASKS:
        raise ConfigError(
            f"target: '{target}' is not allowed: pretrain and finetune learn {', '.join(TASKS)}; detection models of "
            "torchvision learn objects: see docs/detection.md"
        )
    return target


def for_target(settings: TrainSettings, target: str, *, own_model: bool = False) -> TrainSettings:
    """Settings of a run on a target, in which the target and the decoder of segmentation are filled in.

    Args:
        own_model: the model is a module of the user's own, which has no decoder of ours.

    Raises:
        ConfigError: there is no task for the target, or a setting means nothing for it.
    """
    task = TASKS[check_target(target)]
    if settings.target not in (None, target):
        raise ConfigError(f"target: is '{settings.target}', and the images have the target '{target}': leave it out")
    decodes = task is SemanticTask and not own_model
    if settings.decoder is not None and not decodes:
        what = "a module of your own" if own_model else f"the target '{target}'"
        raise ConfigError(f"decoder: must be unset for {what}: only segmentation with a timm model has a decoder")
    mixed = [name for name in ("mixup", "cutmix") if getattr(settings, name)]
    if mixed and not task.mixes:
        what = "images of several labels each" if task is LabelsTask else "masks"
        raise ConfigError(f"{' and '.join(mixed)}: must be 0 for {what}")
    moving = [name for name in _MOVING if getattr(settings, name)]
    if moving and task is SemanticTask:
        raise ConfigError(
            f"{' and '.join(moving)}: must be unset (0) for masks, which are not changed with their images"
        )
    if settings.mixing is not None and (size := settings.mixing.recipe.canvas.size) < settings.crop:
        raise ConfigError(
            f"mixing.recipe: draws images of {size} x {size} pixels, smaller than crop, {settings.crop}: set "
            f"mixing.recipe.canvas.size to at least {settings.crop}"
        )
    decoder = settings.decoder or "fpn" if decodes else None
    # Unset as in runs of earlier versions, which had no other target.
    known = None if settings.target is None and target == "class" else target
    return settings.model_copy(update={"target": known, "decoder": decoder})


def positive_weights(dataset: ImageDataset) -> torch.Tensor:
    """Factors on the loss of present labels: absent labels by present ones, of each class.

    They are computed from all labels where the dataset lists them (``labels``, int8 [n, classes]), otherwise from the
    first 1,000 images, which are the same in every run. As if there were 1,000 more images with the mean share of all
    classes: a class that is rarely or never seen among few images has a weight near those of the others.

    Returns:
        float32 [classes].
    """
    labels: Any = getattr(dataset, "labels", None)
    if labels is None or np.ndim(labels) != 2:
        some = dataset.sample(_SAMPLED) if isinstance(dataset, MixtureImages) else range(min(len(dataset), _SAMPLED))
        labels = np.stack([np.asarray(dataset[index][1]) for index in some])
    return torch.from_numpy(_weights(np.asarray(labels)))


def _weights(labels: NDArray[np.int8]) -> NDArray[np.float32]:
    present, counted = (labels == 1).sum(0), (labels >= 0).sum(0)
    mean = max(present.sum(), 1) / max(counted.sum(), 1)
    share = (present + _SAMPLED * mean) / (counted + _SAMPLED)
    weights: NDArray[np.float32] = ((1 - share) / share).astype(np.float32)
    return weights
