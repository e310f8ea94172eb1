from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from formulavision.data.downstream import open_downstream


def test_digits_are_scikit_learns_scaled_to_bytes_and_split_without_overlap() -> None:
    data = open_downstream("digits")
    reference = load_digits()
    for side in (data.train, data.test):
        for i in (0, 50, len(side) - 1):
            image, label = side[i]
            which = side.indices[i]
            assert (image.shape, label) == ((3, 8, 8), reference.target[which])
            assert torch.equal(image[0], image[2])
            np.testing.assert_allclose(image[0].numpy(), reference.images[which] * 255 / 16, atol=0.51)
    assert sorted([*data.train.indices, *data.test.indices]) == list(range(1797))
    shares = np.bincount(data.test.labels) / np.bincount(reference.target)
    assert shares.min() > 0.24 and shares.max() < 0.26
