"""scikit-learn's handwritten digits, which come with its wheel."""

from __future__ import annotations

import numpy as np

from formulavision.data.downstream.images import ArrayImages, LabelledImages, Sides

__all__ = ["open_digits"]

_TEST_SHARE = 0.25


def open_digits() -> Sides:
    """1,797 digits of 8 x 8 pixels and 17 levels, scaled to bytes; the test images are always the same quarter."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    everything = np.arange(len(labels))
    sides = train_test_split(everything, test_size=_TEST_SHARE, stratify=labels, random_state=0, shuffle=True)
    source = ArrayImages(np.round(digits.images * (255 / 16)).astype(np.uint8))
    whole = LabelledImages(source, everything, labels, [str(name) for name in digits.target_names])
    train, test = (whole.part(np.sort(side)) for side in sides)
    return Sides(train, test)
