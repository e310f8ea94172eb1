"""From settings to a dataset that can be used: opened, reduced to the wanted classes and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from formulavision.data.downstream.datasets import as_sides, is_dataset
from formulavision.data.downstream.digits import open_digits
from formulavision.data.downstream.folder import open_folder
from formulavision.data.downstream.imagenet import open_imagenet
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.omniglot import open_omniglot
from formulavision.data.downstream.places365 import open_places365
from formulavision.data.downstream.settings import PYTHON, DownstreamSettings
from formulavision.data.downstream.torchvision_sets import default_root, may_download, open_torchvision
from formulavision.data.downstream.voc2012 import open_voc2012
from formulavision.generators.streams import random_stream
from formulavision.util.config import did_you_mean, identity, parse
from formulavision.util.errors import ConfigError, DownstreamError

__all__ = ["Downstream", "DownstreamLike", "open_downstream"]

_LOCAL = {"folder": open_folder, "imagenet": open_imagenet}
_FETCHED = {"omniglot": open_omniglot, "places365": open_places365, "voc2012": open_voc2012}


@dataclass(frozen=True)
class Downstream:
    """An opened downstream dataset.

    Attributes:
        name: what it was opened by (``cifar10``, ``folder:/path``).
        settings: as it was opened.
        train, test: its two sides, with the same classes.
        note: what was decided or left out in opening it: the tested part, the division, files that are no images.
    """

    name: str
    settings: DownstreamSettings
    train: LabelledImages
    test: LabelledImages
    note: str = ""

    @property
    def class_names(self) -> list[str]:
        return self.train.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether an image has several labels: int8 [classes], 1 present, 0 absent, -1 not to be counted."""
        return self.train.multi_label

    def describe(self) -> str:
        """In one line, what it holds."""
        sides = f"{len(self.train):,} training and {len(self.test):,} test images"
        several = ", several an image" if self.multi_label else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.name}: {sides} of {self.num_classes} classes{several}{note}"

    def identity(self) -> dict[str, Any]:
        """What a run records about it, in plain values: which images and labels, wherever they lie."""
        return {
            "name": self.name,
            **{name: value for name, value in identity(self.settings).items() if name not in ("root", "download")},
            "train_images": len(self.train),
            "test_images": len(self.test),
            "train_digest": self.train.digest(),
            "test_digest": self.test.digest(),
        }


DownstreamLike = Downstream | DownstreamSettings | str | PathLike[str] | Mapping[str, Any] | Sequence[Any] | Any
"""What public functions take for a downstream dataset; see :func:`open_downstream`."""


def open_downstream(settings: DownstreamLike) -> Downstream:
    """Open a dataset and check that it can be used, without decoding its images.

    ``train_per_class`` and ``test_per_class`` take, for each class, n images that show it; with several labels an
    image, these are the images that any class chose, so a class may have more than n of them.

    Args:
        settings: the settings, as a mapping or text too (``/path``, ``imagenet:/path``, ``digits``, ``cifar10``); or
            a pair (training, test) of map-style datasets, such as torchvision's, whose items are (image, label); or one
            such dataset, of which 20 % of each class are tested on. Their images are PIL images, uint8, or from 0 to 1,
            without random transforms.

    Raises:
        ConfigError: there is no such kind of dataset, or it is none of these.
        DownstreamError: the dataset is missing or cannot be used as it is, has no such class, or too few images.
    """
    if isinstance(settings, Downstream):
        return settings
    if isinstance(settings, str | PathLike):
        settings = DownstreamSettings.from_text(str(settings))
    if isinstance(settings, Mapping):
        settings = parse(DownstreamSettings, dict(settings), "downstream")
    if is_dataset(settings):
        name, sides = as_sides(settings)
        return Downstream(name, DownstreamSettings.model_construct(kind=PYTHON), sides.train, sides.test, sides.note)
    if not isinstance(settings, DownstreamSettings):
        raise ConfigError(
            f"downstream: a {type(settings).__name__} is not allowed: must be a name, a folder, settings, or a pair "
            "(training, test) of datasets of images and labels"
        )
    name = settings.kind if settings.root is None else f"{settings.kind}:{settings.root}"
    whole = _open(settings)
    labels = _labels_of(settings, whole, name)
    return Downstream(
        name,
        settings,
        _reduce(whole.train, labels, whole.numbers, settings, "train_per_class"),
        _reduce(whole.test, labels, whole.numbers, settings, "test_per_class"),
        whole.note,
    )


def _open(settings: DownstreamSettings) -> Sides:
    kind = settings.kind
    if kind == "digits":
        return open_digits()
    if kind in _LOCAL:
        assert settings.root is not None
        return _LOCAL[kind](settings.root, settings)
    root, download = settings.root or default_root(), may_download(kind, settings.download)
    if kind in _FETCHED:
        return _FETCHED[kind](root, download)
    return open_torchvision(kind, root, download=download)


def _labels_of(settings: DownstreamSettings, whole: Sides, name: str) -> list[int]:
    """Labels in the whole dataset of the classes that are kept, in the order of ``classes``."""
    names = whole.train.class_names
    known = {**whole.aliases, **{known: label for label, known in enumerate(names)}}
    # Folders that are left out were not even opened.
    excluded = settings.exclude if settings.kind not in _LOCAL else ()
    classes = settings.classes
    unknown = [wanted for wanted in (*(classes or ()), *excluded) if wanted not in known]
    if unknown:
        others = f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DownstreamError(f"{name}: has no class '{unknown[0]}'{did_you_mean(unknown[0], known)}{others}")
    left_out = {known[unwanted] for unwanted in excluded}
    if classes is None:
        kept = [label for label in range(len(names)) if label not in left_out]
        if len(kept) < 2:
            raise DownstreamError(f"{name}: exclude leaves {len(kept)} of {len(names)} classes, and must leave two")
        return kept
    labels = [known[wanted] for wanted in classes]
    if (wanted := next((c for c, label in zip(classes, labels, strict=True) if label in left_out), None)) is not None:
        raise DownstreamError(f"{name}: class '{wanted}' is in classes and in exclude")
    twice = next((wanted for i, wanted in enumerate(classes) if labels[i] in labels[:i]), None)
    if twice is not None:
        raise DownstreamError(f"{name}: classes names '{names[known[twice]]}' more than once, by '{twice}' too")
    return labels


def _reduce(
    images: LabelledImages, labels: list[int], numbers: Sequence[int] | None, settings: DownstreamSettings, setting: str
) -> LabelledImages:
    per_class: int | None = getattr(settings, setting)
    names = [images.class_names[label] for label in labels]
    ids = [images.class_ids[label] for label in labels]
    everything = labels == list(range(images.num_classes))
    if everything and per_class is None:
        return images
    if per_class is not None:
        streams = {label: random_stream(settings.subset_seed, numbers[label] if numbers else label) for label in labels}
        chosen = [_chosen(images, label, per_class, stream, setting) for label, stream in streams.items()]
        keep = np.unique(np.concatenate(chosen))
    elif images.multi_label:
        # An image with none of these classes is an example of their absence.
        keep = np.arange(len(images))
    else:
        keep = np.flatnonzero(np.isin(images.labels, labels))
    if images.multi_label:
        return LabelledImages(images.read, images.indices[keep], images.labels[keep][:, labels].copy(), names, ids)
    renumbered = np.zeros(images.num_classes, np.int64)
    renumbered[labels] = np.arange(len(labels))
    return LabelledImages(images.read, images.indices[keep], renumbered[images.labels[keep]], names, ids)


def _chosen(
    images: LabelledImages, label: int, per_class: int, stream: np.random.Generator, setting: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Positions of ``per_class`` images of a class, which do not depend on what other classes are kept."""
    of_class = images.showing(label)
    if per_class > len(of_class):
        name = images.class_names[label]
        raise DownstreamError(f"{setting} is {per_class}: class '{name}' has only {len(of_class)} images")
    return stream.permutation(of_class)[:per_class]
