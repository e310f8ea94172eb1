"""Evaluation where an image has several labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from formulavision.data.downstream import Downstream
from formulavision.evaluation import Evaluation, evaluate
from formulavision.evaluation.inference import without_augmentation
from formulavision.evaluation.metrics import Predictions, average_precision, compute_metrics
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import ConfigError


@pytest.fixture(scope="module")
def evaluation(
    tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path], mixtures: Downstream
) -> Evaluation:
    run = make_run(tmp_path_factory.mktemp("several") / "run", mixtures.classes)
    return evaluate(run, mixtures, batch_size=7, show_progress=False)


def test_the_score_is_the_mean_of_the_classes_average_precisions(evaluation: Evaluation, mixtures: Downstream) -> None:
    model = timm.create_model(f"local-dir:{evaluation.folder}", pretrained=True).eval()
    prepared = without_augmentation(mixtures.test, TrainSettings(resize=36, crop=32))
    images, labels = prepared.__getitems__([(0, i) for i in range(len(mixtures.test))])
    with torch.no_grad():
        logits = model((images / 255 - 0.2) / 0.5)
    expected = [average_precision(labels[:, c].numpy(), logits[:, c].numpy()) for c in range(3)]
    assert evaluation.metric == "mean average precision"
    assert evaluation.per_class == pytest.approx(expected)
    assert evaluation.score == pytest.approx(np.mean(expected))  # type: ignore[arg-type]
    counted = labels >= 0
    loss = binary_cross_entropy_with_logits(logits[counted], labels[counted].float())
    assert evaluation.loss == pytest.approx(float(loss), rel=1e-5)
    nothing = (evaluation.top1, evaluation.topk, evaluation.k, evaluation.confusion)
    assert nothing == (None, None, None, None)


def test_the_files_say_the_same(evaluation: Evaluation, mixtures: Downstream) -> None:
    content = json.loads((evaluation.folder / "evaluation.json").read_text())
    assert (content["metric"], content["score"]) == ("mean average precision", evaluation.score)
    assert content["top_1"] is None and "note" not in content
    with (evaluation.folder / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["average_precision"]) for row in rows] == evaluation.per_class
    assert [int(row["images"]) for row in rows] == (mixtures.test.labels == 1).sum(axis=0).tolist()
    assert not (evaluation.folder / "confusion_matrix.csv").exists()
    with np.load(evaluation.folder / "predictions.npz") as arrays:
        assert (arrays["label"].dtype, arrays["scores"].dtype) == (np.int8, np.float32)
        np.testing.assert_array_equal(arrays["label"], mixtures.test.labels)
        assert average_precision(arrays["label"][:, 1], arrays["scores"][:, 1]) == evaluation.per_class[1]


def test_classes_in_no_image_do_not_count() -> None:
    labels = torch.tensor([[1, 0], [0, 0], [1, -1]], dtype=torch.int8)
    scores = torch.tensor([[3.0, 1], [2, 2], [1, 3]])
    found = compute_metrics(Predictions(labels, scores))
    assert found.per_class == [pytest.approx(5 / 6), None]
    assert found.score == pytest.approx(5 / 6)
    with pytest.raises(ConfigError, match="none of its classes is in a test image"):
        compute_metrics(Predictions(labels[1:2], scores[1:2]))
