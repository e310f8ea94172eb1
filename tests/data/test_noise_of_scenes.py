"""Label noise of scenes replaces the categories of their objects; every target follows from these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from formulavision import FormulaDataset, StoredDataset, generate
from formulavision.data.labels import LabelSettings, NoisyCategories, relabel
from formulavision.recipes.targets import scene_target

DATA: dict[str, Any] = {"generator": "bezier", "categories": 5, "scene": {"objects": [2, 5]}, "images": 10}
OWN = np.arange(6)


def test_as_many_objects_change_as_chance_has_it_and_to_all_categories_alike() -> None:
    noisy = NoisyCategories(0.25, 20, seed=1)
    before = np.arange(20)
    found = np.array([noisy(-1, scene, before) for scene in range(2000)])
    changed = found != before
    assert binomtest(int(changed.sum()), changed.size, 0.25 * 19 / 20).pvalue > 1e-4
    new = np.array([NoisyCategories(1.0, 20, seed=1)(-1, scene, before) for scene in range(2000)])
    assert chisquare(np.bincount(new.ravel(), minlength=20)).pvalue > 1e-4
    assert np.array_equal(found[changed], new[changed]), "objects of a smaller share are those of a larger one"


def test_the_category_of_an_object_depends_on_seed_epoch_scene_and_object_alone() -> None:
    noisy = NoisyCategories(1.0, 10**6, seed=1)
    whole = noisy(0, 3, OWN)
    assert np.array_equal(noisy(0, 3, OWN[:2]), whole[:2])
    others = [noisy(1, 3, OWN), noisy(-1, 3, OWN), noisy(0, 4, OWN), NoisyCategories(1.0, 10**6, seed=2)(0, 3, OWN)]
    everything = np.concatenate([whole, *others])
    assert len(np.unique(everything)) == everything.size


@pytest.mark.parametrize("target", ["labels", "semantic"])
def test_targets_follow_from_the_replaced_categories(target: Any, tmp_path: Any) -> None:
    settings = LabelSettings(noise=0.6, seed=4)
    source = FormulaDataset(DATA, target=target)
    before = [source[index][1] for index in range(10)]
    dataset: Any = relabel(source, settings)
    noisy = NoisyCategories(0.6, 5, seed=4)
    differ = 0
    for index, (image, found) in enumerate(dataset[i] for i in range(10)):
        scene = source.drawer.draw_scenes(np.array([index]))[0]
        changed = scene._replace(categories=noisy(-1, index, scene.categories))
        expected = scene_target(changed, target, 5, source.min_visible)
        np.testing.assert_array_equal(found.numpy(), expected)
        np.testing.assert_array_equal(image.numpy(), source[index][0].numpy())
        differ += not np.array_equal(found.numpy(), before[index].numpy())
    assert differ > 3
    assert all(np.array_equal(source[i][1].numpy(), before[i].numpy()) for i in range(10)), "the source stays"
    fresh = dataset.fresh_items([(0, 2), (1, 2)])
    scene = source.drawer.draw_scenes(np.array([12]))[0]
    expected = scene_target(scene._replace(categories=noisy(0, 2, scene.categories)), target, 5, source.min_visible)
    np.testing.assert_array_equal(fresh[0][1].numpy(), expected)
    stored: Any = relabel(StoredDataset(generate(DATA, tmp_path / "store").path, target=target), settings)
    for index in (0, 7):
        np.testing.assert_array_equal(stored[index][1].numpy(), dataset[index][1].numpy())
