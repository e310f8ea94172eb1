"""Models that were fine-tuned on images with masks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked_shapes import NAMES, write_shapes
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from typer.testing import CliRunner

from formulavision.cli import app
from formulavision.data.downstream import open_downstream
from formulavision.evaluation import evaluate, grad_cam, grad_cam_sheet, per_class_difference, prediction_sheet, probe
from formulavision.evaluation.evaluating import build_finetuned, open_finetuned
from formulavision.evaluation.inference import without_augmentation
from formulavision.evaluation.metrics import PixelCounts, compute_metrics
from formulavision.training import Run, finetune
from formulavision.training.models import to_input
from formulavision.util.errors import CheckpointError, ConfigError, DownstreamError

SMALL: dict[str, Any] = {
    **{"model": "resnet10t", "epochs": 4, "batch_size": 4, "learning_rate": 0.02, "milestones": [3]},
    **{"resize": 32, "crop": 32, "device": "cpu"},
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Run:
    return finetune(None, shapes, out=tmp_path_factory.mktemp("runs") / "ft", settings=SMALL, show_progress=False)


@pytest.fixture(scope="module")
def predictions(finetuned: Run, shapes: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], torch.Tensor]:
    """True masks, predicted masks and logits of the test images, at the size that the model sees."""
    model, settings = build_finetuned(*open_finetuned(finetuned.folder))
    images, masks = without_augmentation(open_downstream(shapes).test, settings).__getitems__(
        [(0, index) for index in range(4)]
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    with torch.no_grad():
        logits = model(to_input(images, mean, std))
    return masks.numpy(), logits.argmax(1).numpy(), logits


def confusion_by_hand(true: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], classes: int) -> Any:
    confusion = np.zeros((classes, classes), np.int64)
    for t, p in zip(true.reshape(-1).tolist(), predicted.reshape(-1).tolist(), strict=True):
        if t != 255:
            confusion[t, p] += 1
    return confusion


def test_evaluate_agrees_with_counting_pixels_and_with_torchmetrics(
    finetuned: Run, shapes: Path, predictions: Any, tmp_path: Path
) -> None:
    found = evaluate(finetuned.folder, shapes, out=tmp_path, batch_size=3, show_progress=False)
    true, predicted, logits = predictions
    confusion = confusion_by_hand(true, predicted, 3)
    assert confusion.sum() < true.size and (confusion.sum(axis=0) > 0).sum() > 1
    np.testing.assert_array_equal(found.confusion, confusion)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    np.testing.assert_allclose(np.array(found.per_class, float), confusion.diagonal() / union)
    assert (found.metric, found.score) == ("mIoU", pytest.approx(np.mean(confusion.diagonal() / union)))
    targets = torch.from_numpy(true).long()
    arguments: dict[str, Any] = {"num_classes": 3, "ignore_index": 255}
    theirs = MulticlassJaccardIndex(average="none", **arguments)(logits, targets)
    np.testing.assert_allclose(np.array(found.per_class, float), theirs.numpy(), rtol=1e-5)
    accuracy = MulticlassAccuracy(average="micro", **arguments)(logits, targets)
    assert found.pixel_accuracy == pytest.approx(float(accuracy))
    assert found.top1 is None and found.topk is None and found.images == 4
    last = finetuned.final
    assert last["validation_miou"] == pytest.approx(found.score, abs=1e-6)
    assert last["validation_loss"] == pytest.approx(found.loss, rel=1e-4)
    assert f"mIoU {found.score:.2%}, pixel accuracy {found.pixel_accuracy:.2%}, loss" in found.summary()


def test_its_files_hold_each_class_and_no_predictions(finetuned: Run, shapes: Path, tmp_path: Path) -> None:
    found = evaluate(finetuned.folder, shapes, out=tmp_path, show_progress=False)
    rows = list(csv.DictReader((tmp_path / "per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == NAMES and list(rows[0]) == ["class", "images", "pixels", "iou"]
    assert found.confusion is not None
    assert [int(row["pixels"]) for row in rows] == found.confusion.sum(axis=1).tolist()
    assert [row["images"] for row in rows] == ["4"] * 3
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert (content["metric"], content["top_1"], content["per_class"]) == (
        *("mIoU", None),
        dict(zip(NAMES, found.per_class, strict=True)),
    )
    assert content["pixel_accuracy"] == found.pixel_accuracy
    assert not (tmp_path / "predictions.npz").exists() and (tmp_path / "confusion_matrix.csv").exists()
    (difference, *_) = per_class_difference(tmp_path, tmp_path)
    assert (difference.difference, difference.p) == (0, None)


def test_a_class_that_is_nowhere_has_no_iou_and_one_that_is_only_predicted_has_0() -> None:
    counts = PixelCounts(4)
    logits = torch.zeros(1, 4, 2, 2)
    logits[0, 2, 0, 0] = logits[0, 0, 0, 1] = logits[0, 1, 1] = 1
    counts.add(logits, torch.tensor([[[0, 0], [1, 255]]], dtype=torch.uint8))
    found = compute_metrics(counts)
    assert found.per_class == [0.5, 1.0, 0.0, None]
    assert (found.score, found.pixel_accuracy) == (0.5, pytest.approx(2 / 3))
    assert counts.shown.tolist() == [1, 1, 0, 0]


def test_masks_of_ignored_pixels_alone_are_refused() -> None:
    counts = PixelCounts(2)
    counts.add(torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="all pixels of its test masks are ignored"):
        compute_metrics(counts)


def test_the_command_evaluates_a_run_of_masks(finetuned: Run, shapes: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--checkpoint", str(finetuned.folder), "--downstream", str(shapes), "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "mIoU" in result.output and "pixel accuracy" in result.output


def test_a_run_of_masks_and_a_dataset_of_classes_do_not_go_together(
    finetuned: Run, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="has learned masks, digits has no masks: fine-tune on it first"):
        evaluate(finetuned.folder, "digits", out=tmp_path, show_progress=False)
    classes = finetune(
        None,
        {"kind": "digits", "train_per_class": 2, "test_per_class": 1},
        out=tmp_path / "classes",
        settings={**SMALL, "epochs": 1, "milestones": [1], "resize": 32, "crop": 32},
        show_progress=False,
    )
    with pytest.raises(CheckpointError, match=r"has learned no masks, .* has masks: fine-tune on it first"):
        evaluate(classes.folder, shapes, out=tmp_path, show_progress=False)
    with pytest.raises(CheckpointError, match="has learned no masks"):
        prediction_sheet({"classes": classes.folder}, shapes)
    with pytest.raises(ConfigError, match=r"digits has no masks: grad_cam_sheet\(\) is for classes"):
        prediction_sheet({"classes": classes.folder}, {"kind": "digits", "train_per_class": 2, "test_per_class": 1})


def test_probes_and_heat_maps_of_masks_are_refused(finetuned: Run, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DownstreamError, match="has masks: a probe needs one class or several labels an image"):
        probe(finetuned.folder, shapes, out=tmp_path, show_progress=False)
    with pytest.raises(CheckpointError, match="has learned masks: Grad-CAM shows where one class of an image is seen"):
        grad_cam(finetuned.folder, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(CheckpointError, match="has learned masks"):
        grad_cam_sheet({"shapes": finetuned.folder}, shapes)


def test_the_encoder_of_a_run_of_masks_can_be_probed(finetuned: Run, tmp_path: Path) -> None:
    few = {"kind": "digits", "train_per_class": 4, "test_per_class": 2}
    found = probe(finetuned.folder, few, method="knn", out=tmp_path, show_progress=False)
    assert found.metric == "top-1 accuracy" and found.images == 20


def test_a_sheet_shows_images_masks_and_predictions_with_a_legend(
    finetuned: Run, shapes: Path, predictions: Any
) -> None:
    sheet = np.asarray(prediction_sheet({"one": finetuned.folder, "two": finetuned.folder}, shapes, count=2))
    fewer = np.asarray(prediction_sheet({"one": finetuned.folder}, shapes, count=2))
    assert sheet.shape[1] > fewer.shape[1] and sheet.dtype == np.uint8
    cell = sheet[48 : 48 + 100, 16 + 168 : 16 + 168 + 100].reshape(-1, 3)
    assert {tuple(colour) for colour in cell.tolist()} <= {
        (40, 40, 40),
        (255, 255, 255),
        (31, 119, 180),
        (255, 127, 14),
        (44, 160, 44),
    }
    first, second = (sheet[39:199, left : left + 160] for left in (16 + 2 * 168, 16 + 3 * 168))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ConfigError, match="count: 0 is not allowed"):
        prediction_sheet({"one": finetuned.folder}, shapes, count=0)
    with pytest.raises(ConfigError, match="give at least one"):
        prediction_sheet({}, shapes)
