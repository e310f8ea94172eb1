"""Run lengths of masks are the bytes that pycocotools writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from formulavision.storage.run_lengths import encode_masks


def expected(object_map: np.ndarray, objects: int) -> list[str]:
    masks = [np.asfortranarray(object_map == k, np.uint8) for k in range(1, objects + 1)]
    return [coco.encode(mask)["counts"].decode() for mask in masks]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 400), st.integers(0, 2**32), st.floats(0, 1))
def test_maps_of_any_kind(height: int, width: int, objects: int, seed: int, flat: float) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, objects + 1, height * width).astype(np.uint16)
    # Runs of any length: pixels that stay as the one before them.
    pixels = pixels[np.maximum.accumulate(np.where(random.random(len(pixels)) < flat, 0, np.arange(len(pixels))))]
    object_map = pixels.reshape(width, height).T
    assert encode_masks(object_map, objects) == expected(object_map, objects)


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_an_object_in_a_corner(corner: tuple[int, int]) -> None:
    object_map = np.zeros((5, 7), np.uint16)
    object_map[corner] = 2
    assert encode_masks(object_map, 3) == expected(object_map, 3)


@pytest.mark.parametrize("size", [1, 512, 4096])
def test_an_object_that_is_the_whole_image_or_no_pixel_of_it(size: int) -> None:
    object_map = np.full((size, size), 2, np.uint16)
    assert encode_masks(object_map, 2) == expected(object_map, 2)


def test_objects_up_to_the_last_number() -> None:
    object_map = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    counts = encode_masks(object_map, 65535)
    assert len(counts) == 65535
    for k in (1, 2, 255, 256, 65535):
        assert counts[k - 1] == coco.encode(np.asfortranarray(object_map == k, np.uint8))["counts"].decode()
