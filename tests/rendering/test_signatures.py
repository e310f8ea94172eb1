"""While the tests run, arrays of a wrong dtype or shape are refused where they are passed."""

from __future__ import annotations

import numpy as np
import pytest

from formulavision.rendering import noise_fields, points, random


def test_kernels_refuse_arrays_that_do_not_fit_their_signature() -> None:
    columns, rows = np.zeros((2, 5), np.uint16)
    latest = np.empty((8, 8), np.uint32)
    points.mark(columns, rows, 5, latest)
    with pytest.raises(TypeError, match=r"mark\(\): columns is int64\[5\], not .*UInt16"):
        points.mark(columns.astype(int), rows, 5, latest)
    with pytest.raises(TypeError, match=r"mark\(\): rows is uint16\[4\]"):
        points.mark(columns, rows[:4], 4, latest)
    with pytest.raises(TypeError, match=r"mark\(\): latest is uint32\[64\]"):
        points.mark(columns, rows, 5, latest.ravel())


def test_functions_refuse_arrays_that_do_not_fit_their_signature() -> None:
    with pytest.raises(TypeError, match="Type-check error whilst checking the parameters"):
        noise_fields.perlin_field(np.zeros(3), np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="Type-check error whilst checking the parameters"):
        random.uniform_streams((1, 2), np.zeros((4, 2), np.int64), 1)
