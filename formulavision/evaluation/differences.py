"""Where one model beats another on the same images: class by class (the paper's table 10), and beyond chance."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formulavision.util.errors import ConfigError

if TYPE_CHECKING:
    from formulavision.evaluation.scores import Evaluation

from formulavision.util.text import from_cell

__all__ = ["ClassDifference", "mcnemar", "per_class_difference"]


@dataclass(frozen=True)
class ClassDifference:
    """One class, two models.

    Attributes:
        name: of the class.
        images: test images that show it.
        first, second: share (0..1) of them that each model recognises; with several labels an image the average
            precision.
        difference: ``first`` less ``second``.
        p: two-sided p-value of McNemar's exact test on the class's images, not corrected for the number of classes;
            None where an image has several labels or predictions were not kept.
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
        first, second: what :func:`formulavision.evaluate` or :func:`formulavision.probe` gave, or the folders that they
            wrote into.

    Returns:
        The classes that have test images, by falling difference, and by name where it is the same.

    Raises:
        ConfigError: a folder holds no evaluation, or the two are of other classes or other test images.
    """
    one, other = _read(first), _read(second)
    _check_same(one, other)
    differences = []
    for label, (name, row) in enumerate(one.rows.items()):
        shares = row["share"], other.rows[name]["share"]
        if shares[0] is None or shares[1] is None:
            continue
        p = None
        if one.right is not None and other.right is not None and one.labels is not None:
            of_class = one.labels == label
            p = mcnemar(one.right[of_class], other.right[of_class])
        differences.append(ClassDifference(name, row["images"], *shares, shares[0] - shares[1], p))
    return sorted(differences, key=lambda difference: (-difference.difference, difference.name))


def mcnemar(first: Sequence[bool] | NDArray[np.bool_], second: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test of two models on the same images.

    Among the images that one of them alone gets right, either would be the one in half of the cases (McNemar, 1947;
    Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms", 1998).

    Args:
        first, second: image by image, whether the model's class is right.

    Raises:
        ValueError: they are not of the same images.
    """
    from scipy.special import bdtr

    if len(first) != len(second):
        raise ValueError(f"results of {len(first)} images and {len(second)} cannot be paired")
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    alone, other_alone = int((one & ~other).sum()), int((other & ~one).sum())
    # The binomial distribution of equal chances is symmetric: both tails are twice the smaller one.
    return float(min(1.0, 2 * bdtr(min(alone, other_alone), alone + other_alone, 0.5)))


@dataclass(frozen=True, eq=False)
class _Results:
    """What an evaluation left: a row a class, and of its predictions the labels and, with one label, who is right."""

    folder: Path
    metric: str
    test: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    labels: NDArray[Any] | None
    right: NDArray[np.bool_] | None


def _read(source: Evaluation | str | Path) -> _Results:
    folder = Path(source) if isinstance(source, str | Path) else source.folder
    try:
        content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        with (folder / "per_class.csv").open(encoding="utf-8", newline="") as stream:
            table = list(csv.DictReader(stream))
        # Columns: class, images, ..., and last the share.
        rows = {
            from_cell(row["class"]): {"images": int(row["images"]), "share": float(share) if share else None}
            for row in table
            for share in [list(row.values())[-1]]
        }
        metric, test = content["metric"], _test_images(content["downstream"])
        labels = right = None
        if (folder / "predictions.npz").is_file():
            with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
                labels = arrays["label"]
                right = arrays["predicted"] == labels if "predicted" in arrays else None
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror or error}: the folder must be one that evaluate wrote into"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{folder}: its evaluation is damaged or of an older version ({reason}): evaluate again"
        ) from None
    return _Results(folder, metric, test, rows, labels, right)


def _test_images(identity: dict[str, Any]) -> dict[str, Any]:
    """What of a downstream's identity tells its test images: not where it lies, nor what it was trained on."""
    irrelevant = {"name"} if identity["test_per_class"] else {"name", "subset_seed"}
    return {key: value for key, value in identity.items() if key not in irrelevant and not key.startswith("train_")}


def _check_same(one: _Results, other: _Results) -> None:
    both = f"{one.folder} and {other.folder}"
    if list(one.rows) != list(other.rows):
        differing = sorted(set(one.rows) ^ set(other.rows))
        detail = f" ('{differing[0]}' is in one only)" if differing else ", or in another order"
        raise ConfigError(f"{both} are evaluations of other classes{detail}: evaluate both on the same dataset")
    if one.metric != other.metric:
        raise ConfigError(f"{both} are of other metrics: {one.metric} and {other.metric}")
    differing = sorted(key for key in one.test.keys() | other.test.keys() if one.test.get(key) != other.test.get(key))
    if differing:
        detail = ", ".join(f"{key} is {one.test.get(key)} and {other.test.get(key)}" for key in differing)
    elif one.labels is not None and other.labels is not None and not np.array_equal(one.labels, other.labels):
        detail = "their labels differ"
    else:
        return
    raise ConfigError(f"{both} are evaluations on other test images ({detail}): evaluate both on the same")
