"""The result of an evaluation, and the files that keep it: ``evaluation.json``, ``per_class.csv`` and others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.evaluation.metrics import TOP_K, Metrics, PixelCounts, Predictions
from formulavision.util.errors import ConfigError
from formulavision.util.files import atomic_write, write_json
from formulavision.util.folders import Marker, adding
from formulavision.util.text import read_csv, write_csv

__all__ = [
    "EVALUATION",
    "FILES",
    "Evaluation",
    "Saved",
    "make_folder",
    "read_predictions",
    "read_results",
    "read_tested",
    "refuse_another",
    "write_results",
]

EVALUATION, _PER_CLASS = "evaluation.json", "per_class.csv"
_PREDICTIONS, _CONFUSION = "predictions.npz", "confusion_matrix.csv"
FILES = (EVALUATION, _PER_CLASS, _PREDICTIONS, _CONFUSION)
"""All files that an evaluation writes."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Metrics):
    """Metrics of a model on test images; see :class:`~formulavision.evaluation.metrics.Metrics` for the others.

    Attributes:
        images: number of test images.
        classes: names of the classes, in the order of the labels.
        seconds: time of the evaluation, without building the model.
        folder: the folder of the files.
    """

    images: int
    classes: list[str]
    seconds: float
    folder: Path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def summary(self) -> str:
        """The metrics in one line."""
        parts = [f"{self.metric} {self.score:.2%}"]
        if self.topk is not None:
            parts = [f"top-1 {self.top1:.2%}, top-{self.k} {self.topk:.2%}"]
        if self.pixel_accuracy is not None:
            parts.append(f"pixel accuracy {self.pixel_accuracy:.2%}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        return f"{', '.join(parts)} ({self.images:,} images, {self.seconds:.1f} s)"


def make_folder(out: Path, files: Sequence[str] = FILES) -> Path:
    """Make a folder for an evaluation's files; a run's folder lists them as its own from now on.

    Args:
        files: all that are written, first the one that tells the evaluation.

    Raises:
        ConfigError: the folder cannot be made, or a file of somebody else has the name of one of ours.
    """
    there = next((name for name in files if (out / name).exists()), None)
    if there and not any(Marker.read(folder) for folder in (out, out.parent)) and not _is_evaluation(out / files[0]):
        raise ConfigError(f"out: {out / there}: is there, without an evaluation: give another --out")
    try:
        with adding(out, files):
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {out}: cannot be written: {error.strerror}") from None
    return out


def _is_evaluation(file: Path) -> bool:
    try:
        return "downstream" in json.loads(file.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def refuse_another(folder: Path, facts: Mapping[str, Any], what: str, file: str = EVALUATION) -> None:
    """Refuse a folder whose evaluation has other facts, and which nobody asked to replace. The name of a dataset, which
    may be its path, is none.

    Args:
        what: the kind of evaluation, for the line.

    Raises:
        ConfigError: it is one.
    """
    path = folder / file
    if not path.is_file():
        return
    try:
        there = json.loads(path.read_bytes())
        given = json.loads(json.dumps(facts)).items()
        other = [name for name, value in given if _unnamed(there.get(name)) != _unnamed(value)]
    except (ValueError, AttributeError):
        other = []  # it is damaged, and written again
    if other:
        raise ConfigError(f"out: {folder} holds {what} of another {' and another '.join(other)}: give another --out")


def _unnamed(fact: Any) -> Any:
    return {key: value for key, value in fact.items() if key != "name"} if isinstance(fact, dict) else fact


def write_results(
    evaluation: Evaluation, predictions: Predictions | PixelCounts, facts: Mapping[str, Any]
) -> list[str]:
    """Write the files of an evaluation into its folder.

    Args:
        predictions: written to predictions.npz: ``label`` and ``predicted``, or ``scores`` with several labels. Those
            of pixels are not kept.
        facts: written to evaluation.json beside the metrics: the model, the dataset.

    Returns:
        The names of the files.
    """
    folder, names = evaluation.folder, evaluation.classes
    arrays: dict[str, Any] = {}
    confusion = evaluation.confusion
    if isinstance(predictions, PixelCounts):
        header = ["class", "images", "pixels", "iou"]
        columns = [predictions.shown.tolist(), predictions.confusion.sum(axis=1).tolist()]
    elif predictions.multi_label:
        labels = predictions.labels.numpy()
        arrays = {"label": labels, "scores": predictions.scores.numpy()}
        header, columns = ["class", "images", "average_precision"], [(labels == 1).sum(axis=0).tolist()]
    else:
        assert confusion is not None
        arrays = {"label": predictions.labels.numpy(), "predicted": predictions.predicted.numpy()}
        header = ["class", "images", "correct", "accuracy"]
        # The confusion of a probe is the sum over its draws of training images.
        draws = len(facts.get("draws", [0]))
        correct = confusion.diagonal() / draws if draws > 1 else confusion.diagonal()
        columns = [(confusion.sum(axis=1) // draws).tolist(), correct.tolist()]
    fewer = evaluation.k is not None and evaluation.k < TOP_K
    note = {"note": f"top_5 counts the first {evaluation.k}: there are no more classes"} if fewer else {}
    content = {
        **facts,
        "images": evaluation.images,
        "metric": evaluation.metric,
        "score": evaluation.score,
        "top_1": evaluation.top1,
        "top_5": evaluation.topk,
        "top_5_counts": evaluation.k,
        **note,
        **({"pixel_accuracy": evaluation.pixel_accuracy} if evaluation.pixel_accuracy is not None else {}),
        "loss": evaluation.loss,
        "per_class": dict(zip(names, evaluation.per_class, strict=True)),
        "seconds": evaluation.seconds,
    }
    left_out = [name for name, missing in ((_PREDICTIONS, not arrays), (_CONFUSION, confusion is None)) if missing]
    with adding(folder, FILES):
        for name in left_out:  # of an evaluation of another kind
            (folder / name).unlink(missing_ok=True)
        if arrays:
            with atomic_write(folder / _PREDICTIONS) as file:
                np.savez_compressed(file, **arrays)
        write_csv(folder / _PER_CLASS, [header, *zip(names, *columns, evaluation.per_class, strict=True)])
        if confusion is not None:
            rows = ([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
            write_csv(folder / _CONFUSION, [["true \\ predicted", *names], *rows])
        write_json(content, folder / EVALUATION)
    return [name for name in FILES if name not in left_out]


@dataclass(frozen=True, eq=False)
class Saved:
    """An evaluation as its files tell it.

    Attributes:
        folder: the folder of the files.
        metric: the name of the metric.
        downstream: the dataset (:meth:`formulavision.data.downstream.Downstream.identity`).
        classes: name of a class -> number of its images, and its share, average precision or intersection by union
            (None: no images).
        labels: int64 [n], or int8 [n, classes]; None where predictions were not kept.
        correct: bool [n], whether an image's class was predicted; None with several labels, without predictions, or
            where shares are means over several draws.
    """

    folder: Path
    metric: str
    downstream: dict[str, Any]
    classes: dict[str, tuple[int, float | None]]
    labels: NDArray[Any] | None
    correct: NDArray[np.bool_] | None


def read_results(folder: Path) -> Saved:
    """Read the files of an evaluation.

    Raises:
        ConfigError: the folder holds no evaluation, or a damaged one.
    """
    try:
        content = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        images = {row["class"]: int(row["images"]) for row in read_csv(folder / _PER_CLASS)}
        if list(images) != list(content["per_class"]):
            raise ValueError(f"{_PER_CLASS} has other classes than {EVALUATION}")
        classes = {name: (images[name], share) for name, share in content["per_class"].items()}
        labels, correct = read_predictions(folder)
        if len(content.get("draws", [])) > 1:
            correct = None  # the shares are means over draws, and the predictions of the first
        return Saved(folder, content["metric"], content["downstream"], classes, labels, correct)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: {error.strerror or error}: the folder must be one that evaluate wrote into"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{folder}: its evaluation is damaged or of an older version ({reason}): evaluate again"
        ) from None


def read_tested(folder: Path) -> tuple[str | None, float | None]:
    """The digest of the test images of an evaluation, and its score; None where the folder does not tell them.

    Raises:
        ConfigError: the file is damaged.
    """
    file = folder / EVALUATION
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        digest, score = content["downstream"].get("test_digest"), content.get("score")
        return None if digest is None else str(digest), None if score is None else float(score)
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file}: is damaged: evaluate again; of a comparison, remove its folder first") from None


def read_predictions(folder: Path) -> tuple[NDArray[Any] | None, NDArray[np.bool_] | None]:
    """The labels, and whether each image's class was predicted, as in :class:`Saved`; None where they were not kept.

    Raises:
        ConfigError: the file of predictions is damaged.
    """
    path = folder / _PREDICTIONS
    if not path.is_file():
        return None, None
    with path.open("rb") as file:  # numpy leaves a damaged file open
        try:
            with np.load(file, allow_pickle=False) as arrays:
                labels = arrays["label"]
                predicted = arrays["predicted" if "predicted" in arrays else "scores"]
                if predicted.shape != labels.shape:
                    raise ValueError
                return labels, predicted == labels if "predicted" in arrays else None
        except Exception:  # a damaged zip file raises exceptions of a dozen classes
            raise ConfigError(f"{path}: is damaged: evaluate again; of a comparison, remove its folder first") from None
