"""Average precision of one class. Importable without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_precision"]


def average_precision(labels: NDArray[np.int8], scores: NDArray[np.float32]) -> float | None:
    """Average precision of one class, as Pascal VOC defines it since 2010.

    The area under precision over recall, where the precision at a recall is the highest at this or any higher recall
    (Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, section 2.2, and the
    development kit). Without that "highest", it is scikit-learn's ``average_precision_score``, which is a little lower.
    The curve is scikit-learn's: torchmetrics passes logits through a sigmoid in float32, which makes large ones equal.

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
