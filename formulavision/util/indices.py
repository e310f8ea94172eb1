"""Indices of datasets follow the rules of a list's indices."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

__all__ = ["Indices", "positions", "whole", "whole_numbers"]

Indices = SupportsIndex | Iterable[SupportsIndex]
"""One whole number or several: of Python, of numpy, or tensors with one element."""


def positions(indices: Indices, length: int) -> NDArray[np.int64]:
    """Convert indices of a dataset to places from 0, int64 [n]. Negative indices count from the end.

    Args:
        indices: one whole number or several.
        length: of the dataset.

    Raises:
        IndexError: there is no such index.
        TypeError: an index is not a whole number, or is a boolean.
    """
    given = whole_numbers(indices)
    outside = given[(given < -length) | (given >= length)]
    if outside.size:
        raise IndexError(f"index {outside[0]} of {length} images")
    places = given.astype(np.int64)
    return np.where(places < 0, places + length, places)


def whole_numbers(indices: Indices) -> NDArray[np.integer[Any]]:
    """One whole number or several as an array [n].

    Raises:
        TypeError: one is not a whole number, or is a boolean.
    """
    if isinstance(indices, np.ndarray) and indices.dtype.kind in "iu":
        return indices.reshape(-1)
    items: Any = indices
    return np.array([whole(item) for item in (items if np.ndim(items) else [items])] or np.empty(0, np.int64))


def whole(index: Any) -> int:
    """A whole number of Python, of numpy, or a tensor with one element.

    Raises:
        TypeError: it is none, or a boolean.
    """
    if isinstance(index, bool | np.bool_) or str(getattr(index, "dtype", "")) == "torch.bool":
        raise TypeError(f"index {index} is a truth value, not a whole number")
    return operator.index(index)
