"""The targets of a scene, by a map that can be read off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulavision import Scene
from formulavision.recipes.targets import (
    has_label,
    labels_target,
    objects_target,
    scene_target,
    semantic_target,
)

MAP = np.array(
    [
        [0, 1, 1, 0, 0],
        [0, 1, 4, 4, 0],
        [0, 0, 4, 2, 2],
        [0, 0, 0, 0, 2],
        [0, 0, 0, 0, 0],
    ],
    np.uint16,
)  # fmt: skip
SCENE = Scene(np.zeros((5, 5, 1), np.uint8), MAP, np.array([7, 0, 5, 2, 7]))
"""Objects 3 and 5 are hidden."""


def test_hidden_objects_have_no_label() -> None:
    assert has_label(SCENE, 1).tolist() == has_label(SCENE, 0).tolist() == [True, True, False, True, False]
    assert not has_label(SCENE, 4).any()


def test_the_targets_of_a_scene() -> None:
    assert np.flatnonzero(labels_target(SCENE, 9, 1)).tolist() == [0, 2, 7]
    values = {0: 0, 1: 8, 2: 1, 4: 3}
    semantic = semantic_target(SCENE, 9, 1)
    assert semantic.dtype == np.uint8 and semantic.tolist() == [[values[k] for k in row] for row in MAP.tolist()]
    found = objects_target(SCENE, 1)
    assert found.numbers.tolist() == [1, 2, 4] and found.categories.tolist() == [7, 0, 2]
    assert found.boxes.tolist() == [[1, 0, 3, 2], [3, 2, 5, 4], [2, 1, 4, 3]]


def test_objects_with_too_few_pixels_have_no_box_mask_or_label() -> None:
    smaller = SCENE._replace(object_map=np.where(np.arange(25).reshape(5, 5) == 19, 0, MAP).astype(np.uint16))
    assert np.flatnonzero(labels_target(smaller, 9, 3)).tolist() == [2, 7]
    assert set(np.unique(semantic_target(smaller, 9, 3))) == {0, 3, 8}
    assert objects_target(smaller, 3).numbers.tolist() == [1, 4]


def test_values_of_a_map_above_its_objects_do_not_count() -> None:
    from formulavision.rendering.compositing import visible_pixels

    assert visible_pixels(np.array([0, 1, 2, 2, 9, 65535], np.uint16), 3).tolist() == [1, 2, 0]


def test_more_than_254_categories_take_16_bits() -> None:
    scene = SCENE._replace(categories=np.array([253, 0, 5, 2, 7]))
    assert semantic_target(scene, 254, 1).dtype == np.uint8 and semantic_target(scene, 254, 1).max() == 254
    scene = SCENE._replace(categories=np.array([60_000, 0, 5, 2, 7]))
    assert semantic_target(scene, 60_001, 1).dtype == np.uint16 and semantic_target(scene, 60_001, 1).max() == 60_001


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 9))
def test_targets_agree_with_a_slow_reading_of_the_map(seed: int, objects: int, min_visible: int) -> None:
    random = np.random.default_rng(seed)
    object_map = random.integers(0, objects + 1, (7, 7)).astype(np.uint16)
    scene = Scene(np.zeros((7, 7, 1), np.uint8), object_map, random.integers(0, 20, objects))
    kept = [k for k in range(1, objects + 1) if (object_map == k).sum() >= max(1, min_visible)]
    found = objects_target(scene, min_visible)
    assert found.numbers.tolist() == kept
    for k, (left, top, right, bottom) in zip(kept, found.boxes.tolist(), strict=True):
        rows, columns = np.nonzero(object_map == k)
        assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    semantic = np.zeros((7, 7), int)
    for k in kept:
        semantic[object_map == k] = scene.categories[k - 1] + 1
    np.testing.assert_array_equal(semantic_target(scene, 20, min_visible), semantic)
    assert set(np.flatnonzero(labels_target(scene, 20, min_visible))) == {int(scene.categories[k - 1]) for k in kept}


@pytest.mark.parametrize("target", ["class", "labels", "semantic", "objects"])
def test_a_scene_has_every_target(target: str) -> None:
    found = scene_target(SCENE, target, 9, 1)  # type: ignore[arg-type]
    assert found == 7 if target == "class" else len(found) > 0
