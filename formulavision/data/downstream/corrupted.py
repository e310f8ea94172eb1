"""CIFAR-10-C, ImageNet-C and others in their layouts: test images, corrupted in several ways with five severities."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.data.downstream.files import subfolders
from formulavision.data.downstream.folder import check_classes, labelled, list_classes
from formulavision.data.downstream.images import ArrayImages, LabelledImages
from formulavision.data.downstream.settings import DownstreamSettings
from formulavision.util.errors import DownstreamError
from formulavision.util.text import counted

__all__ = ["SEVERITIES", "Corrupted", "holds_arrays", "read_corrupted"]

SEVERITIES = (1, 2, 3, 4, 5)

Corrupted = dict[tuple[str, int], LabelledImages]
"""The test images by (corruption, severity), sorted; all have the same labels in the same order."""

_LABELS = "labels.npy"
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_corrupted(root: Path, settings: DownstreamSettings) -> Corrupted:
    """The images of a folder in one of two layouts (Hendrycks and Dietterich, ICLR 2019).

    Of CIFAR-10-C: ``labels.npy`` [5 n] and ``CORRUPTION.npy``, uint8 [5 n, h, w, 3], severities one after the other.
    Ten classes are CIFAR-10's; ``settings.classes`` names others, in the order of the labels. Of ImageNet-C:
    ``CORRUPTION/SEVERITY/CLASS/IMAGE``; ``settings.classes`` and ``exclude`` choose classes.

    Raises:
        DownstreamError: the folder is missing or has another layout, a severity is missing, or images and labels differ
            in their number.
    """
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    if holds_arrays(root):
        return _arrays(root, settings)
    corruptions = subfolders(root)
    if not corruptions:
        raise DownstreamError(
            f"{root}: must hold {_LABELS} and CORRUPTION.npy (CIFAR-10-C), or CORRUPTION/SEVERITY/CLASS/IMAGE "
            "(ImageNet-C)"
        )
    for corruption in corruptions:
        _check_severities(root / corruption)
    found = {
        (corruption, severity): _folder(root / corruption / str(severity), settings)
        for corruption in corruptions
        for severity in SEVERITIES
    }
    (corruption, severity), first = next(iter(found.items()))
    for other, images in found.items():
        _check_same_images(first, images, f"{corruption}/{severity}", f"{root}: {other[0]}/{other[1]}")
    return found


def holds_arrays(root: Path) -> bool:
    """Whether a folder has the layout of CIFAR-10-C, not that of ImageNet-C."""
    return (root / _LABELS).is_file()


# Arrays --------------------------------------------------------------------------------------------------------------


def _arrays(root: Path, settings: DownstreamSettings) -> Corrupted:
    labels = _load(root / _LABELS)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        raise DownstreamError(f"{root / _LABELS}: is {labels.dtype} {list(labels.shape)}: must be whole numbers [n]")
    per_severity, rest = divmod(len(labels), len(SEVERITIES))
    if rest or (labels.reshape(len(SEVERITIES), -1) != labels[:per_severity]).any():
        raise DownstreamError(
            f"{root / _LABELS}: its {len(labels):,} labels are not those of the same images at 5 severities, one after "
            "the other: is a severity missing?"
        )
    labels = labels[:per_severity].astype(np.int64)
    names = _names(root, int(labels.max()) + 1, settings)
    files = sorted(file for file in root.glob("*.npy") if file.name != _LABELS)
    if not files:
        raise DownstreamError(f"{root}: holds {_LABELS}, and no CORRUPTION.npy")
    found: Corrupted = {}
    for file in files:
        images = _load(file)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise DownstreamError(f"{file}: is {images.dtype} {list(images.shape)}: must be uint8 [n, h, w, 3]")
        if len(images) != len(SEVERITIES) * per_severity:
            raise DownstreamError(
                f"{file}: has {len(images):,} images, and {_LABELS} has {len(SEVERITIES) * per_severity:,} labels: "
                "both must hold 5 severities of the same images"
            )
        source = ArrayImages(images)
        for severity in SEVERITIES:
            indices = np.arange(per_severity) + (severity - 1) * per_severity
            found[file.stem, severity] = LabelledImages(source, indices, labels, names)
    return found


def _load(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DownstreamError(f"{file}: is not an array of numpy, or damaged ({type(error).__name__})") from None
    return array


def _names(root: Path, count: int, settings: DownstreamSettings) -> list[str]:
    """The names of the labels, which the arrays do not hold."""
    if settings.classes is not None:
        if len(settings.classes) < count:
            raise DownstreamError(f"{root}: has {count} classes, and classes names {len(settings.classes)}")
        return list(settings.classes)
    if count != len(_CIFAR10):
        raise DownstreamError(
            f"{root}: has {count} classes and no names for them: downstream.classes must name all, in the order of the "
            "labels (a list, or a file with one a line)"
        )
    return list(_CIFAR10)


# Folders -------------------------------------------------------------------------------------------------------------


def _check_severities(folder: Path) -> None:
    there = subfolders(folder)
    if missing := [severity for severity in SEVERITIES if str(severity) not in there]:
        raise DownstreamError(f"{folder}: has no severity {missing[0]}: must hold the folders 1, 2, 3, 4, 5")
    if others := [name for name in there if not re.fullmatch("[1-5]", name)]:
        raise DownstreamError(f"{folder / others[0]}: is no severity: must be 1, 2, 3, 4 or 5")


def _folder(folder: Path, settings: DownstreamSettings) -> LabelledImages:
    check_classes(folder, settings)
    return labelled(folder, list_classes(folder, settings.keeps, Counter()))


def _check_same_images(first: LabelledImages, other: LabelledImages, ours: str, theirs: str) -> None:
    """Compare classes and numbers of images: the mean over corruptions is one over the same images."""
    if different := sorted({*first.classes} ^ {*other.classes}):
        where = "is missing" if different[0] in first.classes else "is there"
        raise DownstreamError(f"{theirs}: class '{different[0]}' {where}, other than in {ours}")
    counts = [np.bincount(images.labels, minlength=first.num_classes) for images in (first, other)]
    if (counts[0] != counts[1]).any():
        label = int(np.flatnonzero(counts[0] != counts[1])[0])
        raise DownstreamError(
            f"{theirs}: class '{first.classes[label]}' has {counted(int(counts[1][label]), 'image')}, and in {ours} "
            f"{counts[0][label]:,}: must be the same images"
        )
