"""Measures of labelled images that need no training: numbers from pixels, and from features of a network."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

__all__ = [
    "LOWEST_FREQUENCY",
    "NATURAL_SLOPE",
    "SIMILAR",
    "entropy",
    "nearest_neighbour_accuracy",
    "nearest_of_others",
    "power_spectrum",
    "share_of_near_duplicates",
    "slope_of",
    "spectrum_slope",
    "spread_within",
]

NATURAL_SLOPE = -2.0
"""Slope of the power spectrum of natural images: amplitudes fall with 1/f, power with 1/f^2 (Field, "Relations between
the statistics of natural images and the response properties of cortical cells", JOSA A 1987)."""

SIMILAR = 0.95
"""Correlation of the pixels of two images from which on they are near-duplicates."""

LOWEST_FREQUENCY = 3
"""Lowest frequency of a power spectrum, cycles an image: the window mixes lower ones."""

_ROWS = 1024
"""Images that are compared with all others at a time."""


def nearest_neighbour_accuracy(features: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"]) -> float:
    """Share (0..1) of images whose nearest neighbour among all other images is of their category.

    Features are standardised (each to mean 0 and variance 1 over all images), and the neighbour is the image with the
    highest cosine similarity; of equal ones the first. Labels without meaning give about (m - 1) / (n - 1) with m
    images of each category, n of all.

    Source: the leave-one-out error of the nearest-neighbour rule (Cover and Hart, "Nearest Neighbor Pattern
    Classification", IEEE Transactions on Information Theory 1967).
    """
    deviations = features.std(axis=0)
    values = (features - features.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    correct = 0
    for start in range(0, len(values), _ROWS):
        similarities = values[start : start + _ROWS] @ values.T
        own = np.arange(len(similarities))
        similarities[own, start + own] = -np.inf
        correct += int((labels[similarities.argmax(axis=1)] == labels[start : start + _ROWS]).sum())
    return correct / len(values)


def spread_within(features: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"]) -> float:
    """Share of the features' variance that lies within categories: intraclass compactness, lower is more compact.

    With n images of k categories, (W / (n - k)) / (T / (n - 1)): W is the sum of squared distances of the images to the
    mean of their category, and T to the mean of all images. 0: the images of a category are equal; about 1: categories
    differ no more than images chosen at random.

    Source: the ratio of within-class to total variance of Fisher's discriminant ("The use of multiple measurements in
    taxonomic problems", Annals of Eugenics 1936), with the degrees of freedom of an analysis of variance.
    """
    values = features.astype(np.float64)
    _, groups, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, groups, values)
    within = float(np.square(values - (sums / counts[:, None])[groups]).sum()) / (len(values) - len(counts))
    total = float(np.square(values - values.mean(axis=0)).sum()) / (len(values) - 1)
    return within / total if total else 1.0


def spectrum_slope(images: UInt8[np.ndarray, "n size size"]) -> float | None:
    """Slope of the images' mean power spectrum (:func:`power_spectrum`) in logarithmic coordinates; natural images have
    about -2.

    The slope is that of the least-squares line of log(power) over log(f). A frequency has the weight 1 / f, so that
    each octave has the same.

    Source: van der Schaaf and van Hateren, "Modelling the power spectra of natural images", Vision Research 1996, whose
    natural images have slopes of -1.9 +- 0.4.

    Returns:
        None where all images have one colour each, or have fewer than 16 pixels on a side.
    """
    power = power_spectrum(images)
    return None if power is None else slope_of(power)


def power_spectrum(images: UInt8[np.ndarray, "n size size"]) -> Float64[np.ndarray, " frequencies"] | None:
    """Mean power of the images at each frequency f = 3 ... size / 2 - 1, cycles an image.

    Each image, minus its mean and multiplied by a Hann window against the jump at its edges, gives the power |F|^2 of
    each frequency. The power is averaged over the images, and over the frequencies f - 1/2 <= |(u, v)| < f + 1/2.

    Returns:
        None where all images have one colour each, or have fewer than 16 pixels on a side.
    """
    size = images.shape[1]
    window = np.outer(np.hanning(size + 1)[:-1], np.hanning(size + 1)[:-1])
    power = np.zeros((size, size // 2 + 1))
    for image in images:
        power += np.square(np.abs(np.fft.rfft2((image - image.mean()) * window)))
    if size < 16 or not power.any():
        return None
    radius = np.rint(np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) * size).astype(int)
    # Columns between the first and the last stand for two frequencies, (u, v) and (-u, -v).
    weights = np.broadcast_to(np.where((np.arange(size // 2 + 1) % (size / 2)) == 0, 1, 2), power.shape)
    totals = np.bincount(radius.ravel(), (power * weights).ravel()) / np.bincount(radius.ravel(), weights.ravel())
    result: Float64[np.ndarray, " frequencies"] = totals[LOWEST_FREQUENCY : size // 2]
    return result


def slope_of(power: Float64[np.ndarray, " frequencies"]) -> float:
    """Slope of a power spectrum; see :func:`spectrum_slope`."""
    frequencies = np.arange(LOWEST_FREQUENCY, LOWEST_FREQUENCY + len(power))
    logs = np.log(np.maximum(power, np.finfo(float).tiny))
    # polyfit multiplies the residuals by the weights before it squares them.
    return float(np.polyfit(np.log(frequencies), logs, 1, w=1 / np.sqrt(frequencies))[0])


def share_of_near_duplicates(images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"]) -> float:
    """Share (0..1) of images with a near-duplicate in another category: one whose pixels correlate by 0.95 or more
    (:func:`nearest_of_others`).
    """
    return float((nearest_of_others(images, labels)[1] >= SIMILAR).sum()) / len(images)


def nearest_of_others(
    images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """For each image the place of the image of another category that correlates most with it, and the correlation.

    The correlation is Pearson's, over all pixels and channels. Images of one colour have the correlation 1 with each
    other and 0 with all others. Where all images are of one category, it is minus infinity.

    Source: correlation of the pixels as similarity, after Barz and Denzler, "Do We Train on Test Data? Purging CIFAR of
    Near-Duplicates", Journal of Imaging 2020 (who compare features).
    """
    values = images.reshape(len(images), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    blank = norms == 0
    values = np.hstack([values / np.where(blank, 1, norms), blank])
    places, correlations = np.empty(len(values), np.int64), np.empty(len(values), np.float32)
    for start in range(0, len(values), _ROWS):
        part = slice(start, start + _ROWS)
        similar = np.where(labels[part, None] == labels, -np.inf, values[part] @ values.T)
        places[part], correlations[part] = similar.argmax(axis=1), similar.max(axis=1)
    return places, correlations


def entropy(images: UInt8[np.ndarray, "n h w"]) -> float:
    """Mean over the images of the Shannon entropy of their gray values, bits (0..8): - sum p log2(p) of the shares p of
    the values 0..255.

    Source: Shannon, "A Mathematical Theory of Communication", Bell System Technical Journal 1948, section 6.
    """
    found = []
    for image in images:
        shares = np.bincount(image.ravel(), minlength=256) / image.size
        shares = shares[shares > 0]
        found.append(-float((shares * np.log2(shares)).sum()))
    return float(np.mean(found))
