"""Downstream datasets by their settings: opened, and reduced to the wanted classes and images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from formulavision.data.downstream.corrupted import Corrupted, holds_arrays, read_corrupted
from formulavision.data.downstream.datasets import as_sides, find_labels, is_dataset
from formulavision.data.downstream.digits import open_digits
from formulavision.data.downstream.files import ImageFiles
from formulavision.data.downstream.folder import open_folder
from formulavision.data.downstream.imagenet import open_imagenet
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.masks import open_masks
from formulavision.data.downstream.masks_published import (
    open_ade20k,
    open_cityscapes,
    open_oxfordiiitpet_masks,
    open_voc2012_masks,
)
from formulavision.data.downstream.omniglot import open_omniglot
from formulavision.data.downstream.places365 import open_places365
from formulavision.data.downstream.settings import CORRUPTED, PYTHON, SEGMENTATION, SPLITS, DownstreamSettings
from formulavision.data.downstream.torchvision_sets import default_root, may_download, open_torchvision
from formulavision.data.downstream.voc2012 import open_voc2012
from formulavision.generators.streams import random_stream
from formulavision.util.config import did_you_mean, identity, parse
from formulavision.util.errors import ConfigError, DownstreamError

__all__ = ["Downstream", "DownstreamLike", "count_shared", "open_corrupted", "open_downstream", "open_for_run"]

_LOCAL = {
    "folder": open_folder,
    "imagenet": open_imagenet,
    "masks": open_masks,
    "ade20k": open_ade20k,
    "cityscapes": open_cityscapes,
}
_DOWNLOADED = {
    "omniglot": open_omniglot,
    "places365": open_places365,
    "voc2012": open_voc2012,
    "voc2012-masks": open_voc2012_masks,
    "oxfordiiitpet-masks": open_oxfordiiitpet_masks,
}


@dataclass(frozen=True, repr=False)
class Downstream:
    """An opened downstream dataset.

    Attributes:
        name: the dataset's name (``cifar10``, ``folder:/path``).
        settings: the settings that it was opened by.
        train, test: its training and its test images, with the same classes.
        note: a remark on how it was opened: the tested part, the division, files that are no images.
        divided: whether the dataset has no test images of its own, and a share of each class was put aside.
    """

    name: str
    settings: DownstreamSettings
    train: LabelledImages
    test: LabelledImages
    note: str = ""
    divided: bool = False

    def __repr__(self) -> str:
        return f"Downstream({self.describe()})"

    @property
    def classes(self) -> list[str]:
        return self.train.classes

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def target(self) -> str:
        """The target of an image: ``class``; ``labels`` (several); ``semantic`` (a class a pixel: uint8 [h, w], ignored
        pixels are 255)."""
        return self.train.target

    @property
    def multi_label(self) -> bool:
        """Whether an image has several labels: int8 [classes], 1 present, 0 absent, -1 not counted."""
        return self.train.multi_label

    def describe(self) -> str:
        """The numbers of images and classes, and the note, in one line."""
        return f"{self.name}: {self.content()}" + (f" ({self.note})" if self.note else "")

    def content(self) -> str:
        """The numbers of images and classes, in words."""
        sides = f"{len(self.train):,} training and {len(self.test):,} test images"
        several = {"labels": ", several an image", "semantic": ", with masks"}.get(self.target, "")
        return f"{sides} of {self.num_classes} classes{several}"

    def identity(self) -> dict[str, Any]:
        """The dataset as a run records it, in plain values: which images and labels, wherever the files are."""
        return {
            "name": self.name,
            **{name: value for name, value in identity(self.settings).items() if name not in ("root", "download")},
            "train_images": len(self.train),
            "test_images": len(self.test),
            "train_digest": self.train.digest(),
            "test_digest": self.test.digest(),
        }


DownstreamLike = Downstream | DownstreamSettings | str | PathLike[str] | Mapping[str, Any] | Sequence[Any] | Any
"""All that public functions take for a downstream dataset; see :func:`open_downstream`."""


def open_downstream(settings: DownstreamLike) -> Downstream:
    """Open a dataset and check that it can be used, without decoding its images.

    ``train_per_class`` and ``test_per_class`` take, for each class, n images that show it. With several labels an
    image, the images of all classes are put together, so a class may have more than n of them.

    Args:
        settings: the settings, as a mapping or text too (``/path``, ``imagenet:/path``, ``digits``, ``cifar10``); or
            a pair (training, test) of map-style datasets, such as torchvision's, whose items are (image, label), or
            Hugging Face's, with the columns ``image`` and ``label``; or a mapping of such datasets with the keys
            ``train`` and ``test`` (or ``validation``), such as a ``DatasetDict``; or one such dataset, of which 20 % of
            each class are tested on. Their images are PIL images, uint8, or from 0 to 1, without random transforms.

    Raises:
        ConfigError: there is no such kind of dataset, or the argument is of another type.
        DownstreamError: the dataset is missing or cannot be used as it is, has no such class, or too few images.
    """
    if isinstance(settings, Downstream):
        return settings
    if isinstance(settings, str | PathLike):
        settings = DownstreamSettings.from_text(str(settings))
    if isinstance(settings, Mapping) and settings and all(map(is_dataset, settings.values())):
        settings = _split(settings)
    if isinstance(settings, Mapping):
        settings = parse(DownstreamSettings, dict(settings), "downstream")
    if is_dataset(settings):
        name, whole = as_sides(settings)
        if len(whole.train) == len(whole.test) and whole.train.digest() == whole.test.digest():
            raise DownstreamError(f"{name}: the test images are the training images")
        chosen = DownstreamSettings.model_construct(kind=PYTHON)
        return Downstream(name, chosen, whole.train, whole.test, whole.note, whole.divided)
    if not isinstance(settings, DownstreamSettings):
        raise ConfigError(
            f"downstream: a {type(settings).__name__} is not allowed: must be a name, a folder, settings, or a pair "
            "(training, test) of datasets of images and labels"
        )
    name = settings.kind if settings.root is None else f"{settings.kind}:{settings.root}"
    whole = _open(settings)
    if settings.kind in SEGMENTATION:
        return Downstream(name, settings, whole.train, whole.test, whole.note)
    labels = _labels_of(settings, whole, name)
    train, test = (
        _reduce(side, labels, whole.numbers or range(side.num_classes), settings, setting)
        for side, setting in ((whole.train, "train_per_class"), (whole.test, "test_per_class"))
    )
    return Downstream(name, settings, train, test, whole.note, whole.divided)


def open_corrupted(settings: DownstreamSettings) -> Corrupted:
    """The images of kind ``corrupted``, of the wanted classes, ``test_per_class`` of each.

    Raises:
        DownstreamError: as of :func:`formulavision.data.downstream.corrupted.read_corrupted`; or a class is not there,
            or has too few images.
    """
    assert settings.root is not None
    whole = read_corrupted(settings.root, settings)
    if not holds_arrays(settings.root):  # folders of excluded classes were not opened
        settings = settings.model_copy(update={"exclude": ()})
    first = next(iter(whole.values()))
    labels = _labels_of(settings, Sides(first, first), f"{settings.kind}:{settings.root}")
    numbers = range(first.num_classes)
    return {key: _reduce(images, labels, numbers, settings, "test_per_class") for key, images in whole.items()}


class TrainedRun(Protocol):
    """A :class:`formulavision.training.Run`, as far as :func:`open_for_run` looks at it."""

    @property
    def folder(self) -> Path: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def settings(self) -> dict[str, Any]: ...


def open_for_run(downstream: DownstreamLike, run: TrainedRun | None) -> Downstream:
    """Open a dataset for a run, so that no test image is one that the run was fine-tuned on.

    A dataset without test images is divided, a folder by ``test_share`` and ``test_seed``. Where the settings leave
    these out, the run's are taken, and ``Downstream.note`` says so. Where it cannot be told which images the run was
    trained on (the folder has changed since, or is another one with the same classes), the note says that.

    Args:
        downstream: as of :func:`open_downstream`.
        run: the run, which records the dataset that it was fine-tuned on; None: as :func:`open_downstream`.

    Raises:
        ConfigError, DownstreamError: as of :func:`open_downstream`.
        DownstreamError: the run was trained on a test image.
    """
    opened = open_downstream(downstream)
    recorded = None if run is None else run.settings.get("downstream")
    if run is None or recorded is None:
        return opened
    # A digest reads files: only datasets of the same size can be the same.
    if len(opened.test) == recorded.get("train_images") and opened.test.digest() == recorded.get("train_digest"):
        raise DownstreamError(f"{opened.name}: the test images are those that {run.folder} was trained on")
    if not opened.divided or opened.test.digest() == recorded.get("test_digest"):
        return opened
    trained: LabelledImages | None = None
    if opened.settings.kind == recorded["kind"] == "folder":
        division = {"test_share": recorded.get("test_share"), "test_seed": recorded.get("test_seed", 0)}
        left_out = {name: value for name, value in division.items() if not getattr(opened.settings, name)}
        taken = opened.settings.model_copy(update=left_out)
        if taken != opened.settings and not isinstance(downstream, Downstream):
            opened = open_downstream(taken)
            opened = replace(opened, note=f"{opened.note}; divided as for {run.folder}")
        trained = _trained_images(opened.settings.model_copy(update=division), recorded)
    if trained is None:
        if opened.classes == run.classes:
            warning = f"{run.folder} had other test images, and may have been trained on some of these"
            opened = replace(opened, note=f"{opened.note}; {warning}")
    elif seen := _file_names(trained) & _file_names(opened.test):
        raise DownstreamError(
            f"{opened.name}: {run.folder} was trained on {len(seen):,} of the {len(opened.test):,} test images: "
            "leave out test_share and test_seed, and it is tested on its own test images"
        )
    return opened


def _trained_images(settings: DownstreamSettings, recorded: Mapping[str, Any]) -> LabelledImages | None:
    """The images of a folder that a run was trained on; None where the folder holds others now."""
    chosen = {name: recorded.get(name) for name in ("classes", "train_per_class")}
    chosen |= {"exclude": recorded.get("exclude", ()), "subset_seed": recorded["subset_seed"]}
    try:
        trained = open_downstream(settings.model_copy(update=chosen)).train
    except DownstreamError:  # a class is not there, or has too few images
        return None
    return trained if trained.digest() == recorded.get("train_digest") else None


def _file_names(images: LabelledImages) -> set[bytes]:
    assert isinstance(images.source, ImageFiles)
    return set(images.source.names[images.indices].tolist())


def count_shared(train: LabelledImages, test: LabelledImages) -> int:
    """Number of test images whose files are training images, too; 0 for images that are not in files."""
    if not (isinstance(train.source, ImageFiles) and isinstance(test.source, ImageFiles)):
        return 0
    folders = train.source.folder.resolve(), test.source.folder.resolve()
    if not (folders[0].is_relative_to(folders[1]) or folders[1].is_relative_to(folders[0])):
        return 0
    trained, tested = ({folder / os.fsdecode(name) for name in _file_names(images)}
                       for folder, images in zip(folders, (train, test), strict=True))  # fmt: skip
    return len(trained & tested)


def _split(splits: Mapping[Any, Any]) -> Any:
    """The pair (training, test) of a mapping of datasets; the training images alone where no others are there.

    As of a folder, ``validation`` is tested on where there is no ``test``, or where its labels are -1: not published.
    """
    parts = {SPLITS.get(str(name).lower()): dataset for name, dataset in splits.items()}
    if "train" not in parts:
        raise DownstreamError(f"downstream: has the parts {', '.join(map(str, splits))}: must have train")
    test, validation = parts.get("test"), parts.get("val")
    labels = find_labels(test)
    if test is None or (validation is not None and labels is not None and labels.max(initial=-2) == -1):
        test = validation
    return parts["train"] if test is None else (parts["train"], test)


def _open(settings: DownstreamSettings) -> Sides:
    kind = settings.kind
    if kind == CORRUPTED:
        raise DownstreamError(
            f"{kind}:{settings.root}: has test images only, for evaluate (in Python evaluate_corrupted): give another "
            "dataset here"
        )
    if kind == "digits":
        return open_digits()
    if kind in _LOCAL:
        assert settings.root is not None
        return _LOCAL[kind](settings.root, settings)
    root, download = settings.root or default_root(), may_download(kind, settings.download)
    if kind in _DOWNLOADED:
        return _DOWNLOADED[kind](root, download)
    return open_torchvision(kind, root, download=download)


def _labels_of(settings: DownstreamSettings, whole: Sides, name: str) -> list[int]:
    """Labels in the whole dataset of the classes that are kept, in the order of ``classes``."""
    names = whole.train.classes
    known = {**whole.aliases, **{known: label for label, known in enumerate(names)}}
    # Folders of excluded classes were not even opened.
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
    chosen: dict[int, str] = {}
    for wanted in classes:
        label = known[wanted]
        if label in left_out:
            raise DownstreamError(f"{name}: class '{wanted}' is in classes and in exclude")
        if label in chosen:
            raise DownstreamError(f"{name}: classes names '{names[label]}' more than once, by '{wanted}' too")
        chosen[label] = wanted
    return list(chosen)


def _reduce(
    images: LabelledImages, labels: list[int], numbers: Sequence[int], settings: DownstreamSettings, setting: str
) -> LabelledImages:
    """The images of some classes, and of each class as many as the setting says.

    Args:
        labels: of the classes that are kept, in their new order.
        numbers: of all classes, which the random choice depends on: not on which classes are kept.
        setting: ``train_per_class`` or ``test_per_class``.
    """
    per_class: int | None = getattr(settings, setting)
    if per_class is not None:
        chosen = []
        for label in labels:
            of_class = images.showing(label)
            if per_class > len(of_class):
                name = images.classes[label]
                raise DownstreamError(f"{setting} is {per_class}: class '{name}' has only {len(of_class)} images")
            chosen.append(random_stream(settings.subset_seed, numbers[label]).permutation(of_class)[:per_class])
        kept = images.part(np.unique(np.concatenate(chosen)))
    elif images.multi_label:
        kept = images  # an image with none of these classes is an example of their absence
    else:
        kept = images.part(np.isin(images.labels, labels))
    if images.multi_label:
        new = kept.labels[:, labels].copy()
    else:
        renumbered = np.zeros(images.num_classes, np.int64)
        renumbered[labels] = np.arange(len(labels))
        new = renumbered[kept.labels]
    names, ids = ([each[label] for label in labels] for each in (images.classes, images.class_ids))
    return LabelledImages(kept.source, kept.indices, new, names, ids)
