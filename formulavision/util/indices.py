"""Indices of datasets, as those of a list."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["positions"]


def positions(indices: ArrayLike, length: int) -> NDArray[np.int64]:
    """Indices of a dataset as places from 0, int64 [n]; negative ones count from the end, as those of a list.

    Args:
        indices: whole numbers: Python's, numpy's, or tensors of one.
        length: of the dataset.

    Raises:
        IndexError: there is no such index.
        TypeError: one is no whole number, or a truth value.
    """
    if isinstance(indices, np.ndarray) and indices.dtype.kind in "iu":
        given = indices.reshape(-1)
    else:
        alone = np.ndim(indices) == 0
        given = np.array([_whole(index) for index in ([indices] if alone else indices)] or np.empty(0, np.int64))  # type: ignore[union-attr]
    outside = given[(given < -length) | (given >= length)]
    if outside.size:
        raise IndexError(f"index {outside[0]} of {length} images")
    places = given.astype(np.int64)
    return np.where(places < 0, places + length, places)


def _whole(index: Any) -> int:
    if isinstance(index, bool | np.bool_) or str(getattr(index, "dtype", "")) == "torch.bool":
        raise TypeError(f"index {index} is a truth value, not a whole number")
    return operator.index(index)
