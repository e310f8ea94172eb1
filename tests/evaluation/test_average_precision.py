from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from formulavision.evaluation.metrics import average_precision


def as_the_development_kit(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision step by step as VOCevalcls.m and VOCap.m of the 2012 kit compute it."""
    order = np.argsort(-scores, kind="stable")
    right, wrong = np.cumsum(labels[order] == 1), np.cumsum(labels[order] == 0)
    recall = right / (labels == 1).sum()
    precision = right / np.maximum(right + wrong, 1)
    recall, precision = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def test_a_case_by_hand() -> None:
    # In falling order: absent, present, not counted, present. Precision at recall 1/2 is 1/2, at recall 1 it is 2/3,
    # which counts for both halves.
    labels, scores = np.array([0, 1, -1, 1], np.int8), np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert average_precision(labels, scores) == pytest.approx(2 / 3)
    assert average_precision_score([0, 1, 1], [0.9, 0.8, 0.6]) == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_development_kits(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(np.array([-1, 0, 1], np.int8), 200, p=[0.1, 0.7, 0.2])
    scores = (random.random(200) + 0.2 * labels).astype(np.float32)
    found = average_precision(labels, scores)
    assert found == pytest.approx(as_the_development_kit(labels, scores), abs=1e-12)
    counted = labels >= 0
    plain = average_precision_score(labels[counted], scores[counted])
    assert plain <= found < plain + 0.05


def test_perfect_and_worthless_scores() -> None:
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0], np.int8)
    assert average_precision(labels, labels.astype(np.float32)) == 1
    assert average_precision(labels, np.zeros(8, np.float32)) == 0.25, "all rank together: the share of present ones"


def test_a_class_in_no_image_has_none() -> None:
    assert average_precision(np.array([0, -1, 0], np.int8), np.zeros(3, np.float32)) is None
