"""Loss and metrics of each target, against torch, torchmetrics and plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from striped_images import SeveralLabels, Squares, Stripes
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from formulavision.data.items import check_labels
from formulavision.evaluation.metrics import average_precision
from formulavision.training.module import Sums
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import LabelsTask, SemanticTask, for_target, make_task, positive_weights
from formulavision.util.errors import ConfigError

CLASSES = 6


def batch(images: int, *, seed: int, dtype: torch.dtype = torch.uint8) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks in which class 4 is nowhere, class 5 is predicted only, and some pixels are ignored."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 4, (images, 7, 7), generator=random)
    logits = torch.randn(images, CLASSES, 7, 7, generator=random)
    logits[:, 4] = -9
    masks[torch.rand(masks.shape, generator=random) < 0.2] = 255 if dtype == torch.uint8 else 65_535
    return logits, masks.to(dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_masks_is_torchs_without_the_ignored_pixels(smoothing: float) -> None:
    task = SemanticTask(CLASSES)
    logits, masks = batch(1, seed=0)
    expected = cross_entropy(logits, masks.long(), ignore_index=255, label_smoothing=smoothing)
    assert torch.isclose(task.loss(logits, masks, smoothing), expected)
    wide = torch.where(masks == 255, 65_535, masks.int()).int()
    assert torch.equal(task.loss(logits, wide, smoothing), task.loss(logits, masks, smoothing))


def test_the_loss_of_masks_does_not_depend_on_how_a_batch_is_divided() -> None:
    task = SemanticTask(CLASSES)
    logits, masks = batch(6, seed=0)
    masks[0, :5] = 255
    masks[1] = 255  # nothing counts
    alone = [task.loss(logits[i : i + 1], masks[i : i + 1]) for i in range(6)]
    assert alone[1] == 0 and torch.isclose(task.loss(logits, masks), torch.stack(alone).mean())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_metrics_of_masks_are_torchmetrics_and_those_of_their_definition(dtype: torch.dtype) -> None:
    task = SemanticTask(CLASSES)
    sums = Sums(task, validation=True)
    ignored = 255 if dtype == torch.uint8 else 65_535
    jaccard = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=ignored)
    accuracy = MulticlassAccuracy(CLASSES, average="micro", ignore_index=ignored)
    kept = []
    for seed, size in enumerate((5, 5, 2)):  # the last batch is smaller
        logits, masks = batch(size, seed=seed, dtype=dtype)
        sums.add(task.loss(logits, masks), logits, masks)
        jaccard.update(logits.argmax(1), masks.long())
        accuracy.update(logits.argmax(1), masks.long())
        kept.append((logits.argmax(1).numpy().ravel(), masks.numpy().ravel()))
    loss, metrics, images = sums.totals(torch.device("cpu"))
    assert images == 12 and loss > 0
    assert metrics == pytest.approx({"miou": float(jaccard.compute()), "pixel_accuracy": float(accuracy.compute())})
    predicted, true = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    predicted, true = predicted[true != ignored], true[true != ignored]
    pairs = [(predicted == k, true == k) for k in range(CLASSES)]
    ratios = [(p & t).sum() / (p | t).sum() for p, t in pairs if (p | t).any()]
    assert len(ratios) == 5, "class 4 is in neither; class 5 counts, as 0"
    assert metrics["miou"] == pytest.approx(np.mean(ratios))
    assert metrics["pixel_accuracy"] == pytest.approx((predicted == true).mean())


def test_counts_of_pixels_are_exact_whatever_their_number() -> None:
    task = SemanticTask(2)
    sums = Sums(task)
    sums.counts = torch.tensor([[1 << 40, 0], [0, 0]])
    logits, masks = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8)
    sums.add(task.loss(logits, masks), logits, masks)
    assert sums.counts.tolist() == [[(1 << 40) + 1, 0], [0, 0]]
    again = Sums(task)
    again.load(sums.state(torch.device("cpu")))
    assert torch.equal(again.counts, sums.counts) and again.count == 1


def test_masks_whose_pixels_are_all_ignored_have_metrics_of_0() -> None:
    task = SemanticTask(3)
    counts = task.counts(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    assert task.measure(counts, 1) == {"miou": 0.0, "pixel_accuracy": 0.0}


# Several labels -------------------------------------------------------------------------------------------------------


def test_the_mean_average_precision_is_that_of_the_classes_that_are_there() -> None:
    task = LabelsTask(3)
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, 3, generator=random), torch.randint(-1, 2, (9, 3), generator=random)
    labels[:, 2] = 0
    sums = Sums(task, validation=True)
    for part in (slice(0, 4), slice(4, 8), slice(8, 9)):
        sums.add(task.loss(logits[part], labels[part]), logits[part], labels[part])
    _, metrics, _ = sums.totals(torch.device("cpu"))
    expected = [average_precision(labels[:, k].numpy().astype(np.int8), logits[:, k].numpy()) for k in range(2)]
    assert metrics["map"] == pytest.approx(np.mean(expected))  # type: ignore[arg-type]
    assert list(metrics) == ["map", "accuracy"]
    assert "map" not in Sums(task).task.measure(torch.tensor(1.0), 2)


def test_present_labels_weigh_as_much_as_absent_ones() -> None:
    weights = torch.tensor([3.0, 1.0])
    task = LabelsTask(2, weights)
    logits, labels = torch.tensor([[0.5, -1.0]]), torch.tensor([[1, 0]], dtype=torch.int8)
    expected = -(3 * torch.nn.functional.logsigmoid(logits[0, 0]) + torch.nn.functional.logsigmoid(-logits[0, 1])) / 2
    assert torch.isclose(task.loss(logits, labels), expected)


class Listed:
    """10,000 images of two labels, of which the dataset lists all labels, and whose images are not read."""

    classes = ("common", "rare")
    num_classes = 2
    target = "labels"
    labels = np.stack([np.arange(10_000) % 2, np.arange(10_000) % 100 == 0], 1).astype(np.int8)

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("an image was read")


def test_positive_weights_are_absent_by_present_labels() -> None:
    share = (np.array([5000, 100]) + 1000 * 0.255) / 11_000
    assert positive_weights(Listed()).tolist() == pytest.approx(((1 - share) / share).tolist())
    task: Any = make_task(Listed())
    assert torch.equal(task.weights, positive_weights(Listed()))


class Unlisted:
    """Several labels, of which the last is in no image; items after the first thousand are not read."""

    classes = ("even", "third", "never")
    num_classes = 3

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> Any:
        assert index < 1000
        labels = torch.tensor([index % 2 == 0, -1 if index < 400 else index % 3 == 0, 0], dtype=torch.int8)
        return torch.zeros(3, 2, 2, dtype=torch.uint8), labels


def test_positive_weights_of_images_that_are_drawn_are_those_of_the_first_thousand() -> None:
    mean = 700 / 2600
    share = (np.array([500, 200, 0]) + 1000 * mean) / (np.array([1000, 600, 1000]) + 1000)
    weights = positive_weights(Unlisted())
    assert weights.tolist() == pytest.approx(((1 - share) / share).tolist()) and weights.isfinite().all()


def test_positive_weights_of_labels_that_are_never_present_are_finite() -> None:
    class Nothing(SeveralLabels):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return super().__getitem__(index)[0], torch.zeros(3, dtype=torch.int8)

    assert positive_weights(Nothing()).isfinite().all()


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "target", "told"),
    [
        ({}, "objects", "target: 'objects' is not allowed: .*torchvision learn objects: see docs/detection.md"),
        ({"target": "class"}, "semantic", "target: is 'class', and the images have the target 'semantic': leave it"),
        ({"target": "semantic"}, "class", "target: is 'semantic', and the images have the target 'class': leave it"),
        ({"decoder": "fpn"}, "class", "decoder: must be unset for the target 'class': only segmentation"),
        ({"decoder": "unet"}, "labels", "decoder: must be unset for the target 'labels'"),
        ({"mixup": 0.5}, "semantic", "mixup: must be 0 for masks"),
        ({"preset": "vit"}, "semantic", "mixup and cutmix: must be 0 for masks"),
        ({"cutmix": 0.5}, "labels", "cutmix: must be 0 for images of several labels each"),
    ],
)
def test_settings_that_mean_nothing_for_a_target_are_refused(given: Any, target: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}"):
        for_target(TrainSettings.model_validate(given), target)


def test_a_runs_settings_have_its_target_and_its_decoder() -> None:
    plain = TrainSettings(crop=64)
    assert for_target(plain, "class") == plain, "as in runs of earlier versions"
    assert for_target(TrainSettings(crop=64, target="class"), "class").target == "class"
    assert for_target(plain, "labels").target == "labels"
    chosen = for_target(plain, "semantic")
    assert (chosen.target, chosen.decoder, for_target(chosen, "semantic")) == ("semantic", "fpn", chosen)


def test_each_dataset_has_the_task_of_its_target() -> None:
    assert [make_task(data).target for data in (Squares(), Stripes(), SeveralLabels())] == [
        "semantic",
        "class",
        "labels",
    ]


@pytest.mark.parametrize(
    "labels", [torch.tensor([255, 0], dtype=torch.uint8), torch.tensor([256, 0]), torch.tensor([-2, 1])]
)
def test_labels_that_are_no_labels_are_refused_whatever_their_type_holds(labels: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"must be 1 \(present\), 0 \(absent\) or -1 \(not counted\)"):
        check_labels(labels, 2)
