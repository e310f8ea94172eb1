"""Measures of images against scipy, scikit-learn and numpy, and against images whose measures are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import calinski_harabasz_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from formulavision.evaluation import image_measures as measures


def clusters(images: int, categories: int, *, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Features that scatter by 1 about the centre of their category, in shuffled order, and labels."""
    random = np.random.default_rng(3)
    labels = random.permutation(np.arange(images) % categories)
    centres = distance * random.normal(size=(categories, 6))
    return (centres[labels] + random.normal(size=(images, 6))).astype(np.float32), labels


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 30.0])
def test_nearest_neighbours_are_scikit_learns(distance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_ROWS", 32)
    features, labels = clusters(90, 5, distance=distance)
    values = StandardScaler().fit_transform(features)
    # Without an argument, scikit-learn's neighbours of an image are other images.
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(values).kneighbors(return_distance=False)[:, 0]
    assert measures.nearest_neighbour_accuracy(features, labels) == (labels[nearest] == labels).mean()


def test_categories_without_meaning_score_at_chance() -> None:
    features, labels = clusters(4000, 10, distance=0)
    chance = stats.binomtest(round(4000 * measures.nearest_neighbour_accuracy(features, labels)), 4000, 0.1)
    assert chance.pvalue > 0.001
    assert measures.spread_within(features, labels) == pytest.approx(1, abs=0.01)


def test_equal_images_of_a_category_are_found_and_have_no_spread() -> None:
    features = np.repeat(np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32), 4, axis=0)
    assert measures.nearest_neighbour_accuracy(features, np.repeat(np.arange(5), 4)) == 1
    assert measures.spread_within(features, np.repeat(np.arange(5), 4)) == pytest.approx(0, abs=1e-12)


def test_features_that_are_all_equal_tell_nothing() -> None:
    features, labels = np.ones((40, 3), np.float32), np.arange(40) % 4
    assert measures.spread_within(features, labels) == 1
    assert measures.nearest_neighbour_accuracy(features, labels) < 0.5


@pytest.mark.parametrize("distance", [0.0, 0.7, 5.0])
def test_spread_follows_from_scikit_learns_index_of_calinski_and_harabasz(distance: float) -> None:
    n, k = 60, 4
    features, labels = clusters(n, k, distance=distance)
    ratio = calinski_harabasz_score(features, labels)  # (B / (k - 1)) / (W / (n - k)), and T = B + W
    expected = (n - 1) / (ratio * (k - 1) + (n - k))
    assert measures.spread_within(features, labels) == pytest.approx(expected, rel=1e-4)


def test_spread_of_one_feature_follows_from_scipys_analysis_of_variance() -> None:
    features, labels = clusters(50, 5, distance=1)
    f = stats.f_oneway(*(features[labels == label, 0].astype(float) for label in range(5))).statistic
    found = measures.spread_within(np.ascontiguousarray(features[:, :1]), labels)
    assert found == pytest.approx(49 / (f * 4 + 45), rel=1e-5)


def field(slope: float, size: int, seed: int) -> np.ndarray:
    """A random field whose power falls with f^slope, uint8 [size, size]; its edges do not fit together."""
    whole = 4 * size
    frequency = np.hypot(np.fft.fftfreq(whole)[:, None], np.fft.fftfreq(whole))
    frequency[0, 0] = np.inf
    noise = np.fft.fft2(np.random.default_rng(seed).normal(size=(whole, whole)))
    values = np.fft.ifft2(noise * frequency ** (slope / 2)).real[:size, :size]
    return np.clip(128 + 40 * (values - values.mean()) / values.std(), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("size", [32, 63])
@pytest.mark.parametrize("slope", [0.0, -1.0, -2.0, -3.0])
def test_the_slope_of_a_known_spectrum_is_found(slope: float, size: int) -> None:
    images = np.stack([field(slope, size, seed) for seed in range(25)])
    # The fewer frequencies there are, the more of a steep spectrum the window spreads to their neighbours.
    assert measures.spectrum_slope(images) == pytest.approx(slope, abs=8 / size)


def test_a_spectrum_is_that_of_all_frequencies_in_a_ring() -> None:
    """numpy's full transform, in which each frequency stands for itself, gives the same slope."""
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    window = np.outer(np.hanning(17)[:-1], np.hanning(17)[:-1])
    power = np.mean([np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2 for image in images], axis=0)
    ring = np.rint(np.hypot(*np.meshgrid(np.fft.fftfreq(16, 1 / 16), np.fft.fftfreq(16, 1 / 16))))
    frequencies = np.arange(3, 8)
    logs = [np.log(power[ring == f].mean()) for f in frequencies]
    weights = np.diag(1 / frequencies)
    design = np.stack([np.log(frequencies), np.ones(5)], axis=1)
    expected = np.linalg.solve(design.T @ weights @ design, design.T @ weights @ logs)[0]
    assert measures.spectrum_slope(images) == pytest.approx(expected)


def test_images_of_one_colour_have_no_slope() -> None:
    assert measures.spectrum_slope(np.full((3, 16, 16), 7, np.uint8)) is None
    assert measures.spectrum_slope(np.zeros((3, 4, 4), np.uint8)) is None


def test_near_duplicates_between_categories_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_ROWS", 3)
    random = np.random.default_rng(0)
    images = random.integers(0, 200, (8, 16, 16, 3), dtype=np.uint8)
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert measures.share_of_near_duplicates(images, labels) == 0
    images[1] = images[0]  # of one category: does not count
    assert measures.share_of_near_duplicates(images, labels) == 0
    images[2] = images[0] // 2 + 30  # another contrast
    assert measures.share_of_near_duplicates(images, labels) == 3 / 8
    noisy = images[4] + random.integers(-8, 9, images[4].shape)
    images[7] = noisy.clip(0, 255)
    assert np.corrcoef(images[4].ravel(), images[7].ravel())[0, 1] > measures.SIMILAR
    assert measures.share_of_near_duplicates(images, labels) == 5 / 8


def test_correlations_are_numpys() -> None:
    random = np.random.default_rng(5)
    base = random.integers(0, 256, (8, 8, 1))
    images = np.stack([(base + random.integers(-k, k + 1, base.shape)).clip(0, 255) for k in range(5, 150, 5)])
    labels = np.arange(len(images))
    correlations = np.corrcoef(images.reshape(len(images), -1)) - 2 * np.eye(len(images))
    expected = (correlations.max(axis=1) >= measures.SIMILAR).mean()
    assert 0 < expected < 1
    assert measures.share_of_near_duplicates(images.astype(np.uint8), labels) == expected


def test_blank_images_are_duplicates_of_each_other_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    images[0], images[1] = 0, 90
    assert measures.share_of_near_duplicates(images, np.arange(4)) == 0.5
    assert measures.share_of_near_duplicates(images, np.array([0, 0, 1, 2])) == 0


def test_entropy_is_scipys() -> None:
    random = np.random.default_rng(0)
    images = random.normal(100, 20, (4, 32, 32)).clip(0, 255).astype(np.uint8)
    expected = np.mean([stats.entropy(np.bincount(image.ravel()), base=2) for image in images])
    assert measures.entropy(images) == pytest.approx(expected)
    assert measures.entropy(np.zeros((2, 8, 8), np.uint8)) == 0
    assert measures.entropy(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)) == 8
