"""Two models on the same test images, class by class (the paper's table 10), with McNemar's test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.evaluation.results import Evaluation, Saved, read_results
from formulavision.util.errors import ConfigError

__all__ = ["ClassDifference", "mcnemar", "per_class_difference"]


@dataclass(frozen=True)
class ClassDifference:
    """The results of two models on one class.

    Attributes:
        name: of the class.
        images: number of test images that show the class.
        first, second: share (0..1) of them that each model recognises; with several labels an image the average
            precision, with masks the class's intersection by union.
        difference: ``first`` less ``second``.
        p: two-sided p-value of McNemar's exact test on the class's images, not corrected for the number of classes;
            None where an image has several labels or a mask, predictions were not kept, or a share is the mean over
            several draws of a probe's training images.
    """

    name: str
    images: int
    first: float
    second: float
    difference: float
    p: float | None


def per_class_difference(first: Evaluation | str | Path, second: Evaluation | str | Path) -> list[ClassDifference]:
    """Compare two models class by class, on the same test images.

    The rows of the paper's table 10 are those whose difference is above 0.

    Args:
        first, second: results of :func:`formulavision.evaluate` or :func:`formulavision.probe`, or their folders.

    Returns:
        The classes that have test images, by falling difference, then by name.

    Raises:
        ConfigError: a folder holds no evaluation, or the two are of other classes or other test images.
    """
    one, other = (read_results(Path(each) if isinstance(each, str | Path) else each.folder) for each in (first, second))
    _check_same_test_images(one, other)
    found = []
    for label, (name, (images, share)) in enumerate(one.classes.items()):
        _, other_share = other.classes[name]
        if share is None or other_share is None:
            continue
        p = None
        if one.correct is not None and other.correct is not None:
            of_class = one.labels == label
            p = mcnemar(one.correct[of_class], other.correct[of_class])
        found.append(ClassDifference(name, images, share, other_share, share - other_share, p))
    return sorted(found, key=lambda row: (-row.difference, row.name))


def mcnemar(first: Sequence[bool] | NDArray[np.bool_], second: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test of two models on the same images.

    Of the images that only one model gets right, each model has half in expectation if they do not differ (McNemar,
    1947; Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms",
    1998).

    Args:
        first, second: whether each image's class is right, bool [n].

    Raises:
        ValueError: the results are of different numbers of images.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise ValueError(f"results of {len(first)} images and {len(second)} cannot be paired")
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    if only_first == only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def _check_same_test_images(one: Saved, other: Saved) -> None:
    both = f"{one.folder} and {other.folder}"
    if list(one.classes) != list(other.classes):
        differing = sorted(set(one.classes) ^ set(other.classes))
        detail = f" ('{differing[0]}' is in one only)" if differing else ", or in another order"
        raise ConfigError(f"{both} are evaluations of other classes{detail}: evaluate both on the same dataset")
    if one.metric != other.metric:
        raise ConfigError(f"{both} are of other metrics: {one.metric} and {other.metric}")
    tests = _test_settings(one.downstream), _test_settings(other.downstream)
    differing = sorted(key for key in tests[0].keys() | tests[1].keys() if tests[0].get(key) != tests[1].get(key))
    if differing:
        detail = ", ".join(f"{key} is {tests[0].get(key)} and {tests[1].get(key)}" for key in differing)
    elif one.labels is not None and other.labels is not None and not np.array_equal(one.labels, other.labels):
        detail = "their labels differ"
    else:
        return
    raise ConfigError(f"{both} are evaluations on other test images ({detail}): evaluate both on the same")


def _test_settings(downstream: dict[str, Any]) -> dict[str, Any]:
    """The part of a dataset's identity that its test images depend on: neither its place nor its training images."""
    irrelevant = {"name"} if downstream["test_per_class"] else {"name", "subset_seed"}
    return {key: value for key, value in downstream.items() if key not in irrelevant and not key.startswith("train_")}
