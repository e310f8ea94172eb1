from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from formulavision.rendering.encoding import decode_image, encode_png


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))))
def test_any_image_comes_back_as_it_was(image: np.ndarray) -> None:
    assert np.array_equal(decode_image(encode_png(image), image.shape[2]), image)


@given(hnp.arrays(np.bool_, (9, 13, 1)), st.integers(0, 255), st.integers(0, 255))
def test_an_image_of_any_two_values_comes_back_as_it_was(lit: np.ndarray, low: int, high: int) -> None:
    image = np.where(lit, np.uint8(high), np.uint8(low))
    assert np.array_equal(decode_image(encode_png(image), 1), image)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_data_that_is_cut_short_is_refused(share: float) -> None:
    data = encode_png(np.random.default_rng(0).integers(0, 256, (32, 32, 1), dtype=np.uint8))
    with pytest.raises((OSError, SyntaxError)):
        decode_image(data[: int(share * len(data))], 1)
