from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare

from formulavision.data.labels import LabelSettings, Relabelled, label_noise
from formulavision.data.loading import Prepared, make_loader
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError

CLASSES = 20
LABELS = np.arange(40_000) % CLASSES


class Numbered:
    """Images that hold their index, labelled by it; fresh ones hold index + 100 (1 + epoch), modulo 256."""

    num_classes = 4
    classes = ("a", "b", "c", "d")
    endless = True

    def __init__(self, images: int = 40) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 8, 8), index, dtype=torch.uint8), index % 4

    def fresh_items(self, keys: Sequence[tuple[int, int]]) -> list[tuple[torch.Tensor, int]]:
        numbers = [(index + 100 * (1 + epoch)) % 256 for epoch, index in keys]
        images = [torch.full((1, 8, 8), number, dtype=torch.uint8) for number in numbers]
        return [(image, index % 4) for image, (_, index) in zip(images, keys, strict=True)]


def relabelled(source: Any = None, **settings: Any) -> Relabelled:
    return Relabelled(source or Numbered(), LabelSettings(**settings))


def test_without_noise_all_labels_stay() -> None:
    assert np.array_equal(label_noise(LABELS, 0.0, CLASSES, seed=1), LABELS)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_as_many_labels_change_as_chance_has_it(share: float) -> None:
    changed = int((label_noise(LABELS, share, CLASSES, seed=1) != LABELS).sum())
    # One of the classes that a replaced label is drawn from is the image's own.
    assert binomtest(changed, len(LABELS), share * (1 - 1 / CLASSES)).pvalue > 1e-3


def test_fully_random_labels_are_uniform_within_each_class() -> None:
    noisy = label_noise(LABELS, 1.0, CLASSES, seed=1)
    table = np.histogram2d(LABELS, noisy, bins=CLASSES)[0]
    assert chisquare(table.ravel()).pvalue > 1e-3


def test_a_replaced_label_depends_on_seed_and_index_alone() -> None:
    noisy = label_noise(LABELS, 0.5, CLASSES, seed=1)
    assert np.array_equal(label_noise(LABELS[:1001], 0.5, CLASSES, seed=1), noisy[:1001])
    other = (LABELS + 7) % CLASSES
    replaced = noisy != LABELS
    assert np.array_equal(label_noise(other, 0.5, CLASSES, seed=1)[replaced], noisy[replaced])
    assert not np.array_equal(label_noise(LABELS, 0.5, CLASSES, seed=2), noisy)


def test_more_noise_replaces_the_same_labels_and_more() -> None:
    some, more = (label_noise(LABELS, share, CLASSES, seed=1) for share in (0.25, 0.5))
    assert np.array_equal(more[some != LABELS], some[some != LABELS])


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ConfigError, match=r"share: .* must be from 0 to 1"):
        label_noise(LABELS, share, CLASSES, seed=1)


@pytest.mark.parametrize("data", [{}, {"noise": 0.5, "clusters": 10}, {"seed": 1}])
def test_settings_name_noise_or_clusters(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^labels: must be either noise, .*, or clusters"):
        parse(LabelSettings, data, "labels")


@pytest.mark.parametrize("data", [{"noise": 1.1}, {"noise": "much"}, {"clusters": 1}, {"clusters": 2.5}])
def test_settings_out_of_range_are_refused_by_their_path(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^labels.{next(iter(data))}: .* is not allowed"):
        parse(LabelSettings, data, "labels")


def test_a_noisy_dataset_has_the_labels_of_label_noise_and_the_images_of_its_source() -> None:
    dataset = relabelled(noise=0.5, seed=3)
    expected = label_noise(np.arange(40) % 4, 0.5, 4, seed=3).tolist()
    together = dataset.__getitems__(list(range(40)))
    assert [label for _, label in together] == expected == [dataset[i][1] for i in range(40)]
    assert [int(image.max()) for image, _ in together] == list(range(40))
    assert (len(dataset), dataset.num_classes, dataset.classes) == (40, 4, ("a", "b", "c", "d"))


def test_a_fresh_image_has_a_noisy_label_of_its_own() -> None:
    dataset = relabelled(Numbered(1000), noise=0.5, seed=3)
    own = np.arange(1000) % 4
    epochs = [
        np.array([label for _, label in dataset.fresh_items([(epoch, i) for i in range(1000)])]) for epoch in (0, 1)
    ]
    for labels in epochs:
        assert binomtest(int((labels != own).sum()), 1000, 0.5 * 3 / 4).pvalue > 1e-3
    assert not np.array_equal(epochs[0], epochs[1])
    alone = relabelled(Numbered(1000), noise=0.5, seed=3)
    mixed = [(1, 999), (0, 5), (1, 5), (0, 999)]
    assert [label for _, label in alone.fresh_items(mixed)] == [int(epochs[epoch][i]) for epoch, i in mixed]
    assert [int(image.max()) for image, _ in alone.fresh_items([(0, 7), (1, 7)])] == [107, 207]


def test_whether_images_are_fresh_is_the_sources_matter_with_noise_only() -> None:
    assert relabelled(noise=0.5).endless
    stored: Any = type("Stored", (Numbered,), {"endless": False})()
    assert not relabelled(stored, noise=0.5).endless
    assert not relabelled(clusters=3).endless


def test_clusters_are_the_classes() -> None:
    dataset = relabelled(clusters=3)
    assert dataset.num_classes == 3 and dataset.classes == ["cluster 0", "cluster 1", "cluster 2"]
    dataset.replace(np.arange(40) % 3)
    assert [label for _, label in dataset.__getitems__([5, 1, 0])] == [2, 1, 0]
    assert dataset.labels.tolist() == [i % 3 for i in range(40)]


def test_there_are_no_labels_before_there_are_clusters() -> None:
    with pytest.raises(IndexError):
        torch.nn.functional.cross_entropy(torch.zeros(1, 3), torch.tensor([relabelled(clusters=3)[0][1]]))


def test_replaced_labels_reach_loader_workers_that_run_already() -> None:
    dataset = relabelled(clusters=3)
    prepared = Prepared(dataset, resize=8, crop=8, augment=False, flip=False, seed=1, cache=None)
    loader = make_loader(prepared, batch_size=8, shuffle=False, workers=2, pin=False)
    for shift in range(3):
        labels = (np.arange(40) + shift) % 3
        dataset.replace(labels)
        assert torch.cat([batch for _, batch in loader]).tolist() == labels.tolist()


def test_more_clusters_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels.clusters: 41 is not allowed: there are 40 images"):
        relabelled(clusters=41)


def test_images_of_several_labels_have_none_to_replace() -> None:
    several: Any = type("Several", (Numbered,), {"__getitem__": lambda self, index: (None, torch.tensor([1, 0, 1]))})()
    with pytest.raises(ConfigError, match=r"labels.noise: the images have the target 'labels': they must have one"):
        relabelled(several, noise=0.5)


def test_labels_are_configured_without_torch() -> None:
    code = "import sys, formulavision.data.labels; assert not {'torch', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
