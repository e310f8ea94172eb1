"""scikit-learn's handwritten digits, which come with its wheel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from formulavision.data.downstream.images import LabelledImages, Sides

__all__ = ["open_digits"]

_TEST_SHARE = 0.25


class _Arrays:
    """Gives images out of an array, uint8 [n, h, w]."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]

    def content(self, indices: NDArray[np.int64]) -> bytes:
        return self.images[indices].tobytes()


def open_digits() -> Sides:
    """1,797 digits of 8 x 8 pixels and 17 levels, scaled to bytes; always split alike, a quarter for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    read = _Arrays(np.round(digits.images * (255 / 16)).astype(np.uint8))
    labels = digits.target.astype(np.int64)
    sides = train_test_split(
        np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=0, shuffle=True
    )
    names = [str(name) for name in digits.target_names]
    train, test = (LabelledImages(read, side, labels[side], names) for side in map(np.sort, sides))
    return Sides(train, test)
