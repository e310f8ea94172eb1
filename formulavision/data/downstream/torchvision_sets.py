"""torchvision's classification datasets, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.data.downstream.datasets import DatasetImages, find_labels
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.util.errors import DownstreamError, one_line

__all__ = [
    "TORCHVISION",
    "TorchvisionImages",
    "default_root",
    "fetch",
    "may_download",
    "open_torchvision",
    "torchvision_set",
]

TORCHVISION: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}),
    "cifar100": ("CIFAR100", {"train": True}, {"train": False}),
    "country211": ("Country211", {"split": "train"}, {"split": "test"}),
    "dtd": ("DTD", {"split": "train"}, {"split": "test"}),
    "fashionmnist": ("FashionMNIST", {"train": True}, {"train": False}),
    "fgvcaircraft": ("FGVCAircraft", {"split": "trainval"}, {"split": "test"}),
    "flowers102": ("Flowers102", {"split": "train"}, {"split": "test"}),
    "food101": ("Food101", {"split": "train"}, {"split": "test"}),
    "gtsrb": ("GTSRB", {"split": "train"}, {"split": "test"}),
    "kmnist": ("KMNIST", {"train": True}, {"train": False}),
    "mnist": ("MNIST", {"train": True}, {"train": False}),
    "oxfordiiitpet": ("OxfordIIITPet", {"split": "trainval"}, {"split": "test"}),
    "stl10": ("STL10", {"split": "train"}, {"split": "test"}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
}
"""Classification sets with an official division: torchvision's class, its arguments for training, for test."""

_DOWNLOADS_MB = {
    "cifar10": 170, "cifar100": 169, "country211": 11_500, "dtd": 625, "fashionmnist": 31, "fgvcaircraft": 2_750,
    "flowers102": 345, "food101": 5_000, "gtsrb": 277, "kmnist": 21, "mnist": 12, "omniglot": 16, "oxfordiiitpet": 811,
    "oxfordiiitpet-masks": 811, "places365": 25_000, "stl10": 2_640, "svhn": 247, "voc2012": 2_000,
    "voc2012-masks": 2_000,
}  # fmt: skip
"""Megabytes that are downloaded, about, with the parts that are not used and come in the same archive."""

_UNASKED_MB = 200
"""Megabytes that are downloaded without being asked for, at most."""


class TorchvisionImages(DatasetImages):
    """Images of a torchvision dataset, whose files torchvision compares with the digests that it knows."""

    def content(self, indices: NDArray[np.int64]) -> bytes:
        """The numbers of the images, which tell one from another."""
        return indices.tobytes()


def open_torchvision(kind: str, root: Path, *, download: bool) -> Sides:
    """One of torchvision's datasets, by its official division.

    Args:
        kind: a key of ``TORCHVISION``.
        root: the folder in which torchvision keeps it.
        download: whether it is downloaded where it is absent.

    Raises:
        DownstreamError: the dataset is absent, cannot be downloaded, or is damaged.
    """
    class_name, *arguments = TORCHVISION[kind]
    failure = "could not be downloaded or read" if download else _off(kind)
    sides = []
    for keywords in arguments:
        dataset = torchvision_set(kind, class_name, root, failure, download=download, **keywords)
        labels = find_labels(dataset)
        if labels is None:  # GTSRB
            labels = np.array([label for _, label in dataset._samples], dtype=np.int64)
        names = [str(name) for name in getattr(dataset, "classes", range(int(labels.max()) + 1))]
        sides.append(LabelledImages(TorchvisionImages(dataset, str(root)), np.arange(len(labels)), labels, names))
    train, test = sides
    return Sides(train, test)


def torchvision_set(kind: str, class_name: str, root: Path, failure: str, **keywords: Any) -> Any:
    """An instance of one of torchvision's dataset classes, which downloads and unpacks missing files.

    Raises:
        DownstreamError: torchvision raised an error; the message is ``failure`` with its reason.
    """
    from torchvision import datasets

    try:
        # torchvision checks archives, and the files that it unpickles (CIFAR), against the digests that it knows.
        return getattr(datasets, class_name)(str(root), **keywords)
    except Exception as error:  # whatever a download, an archive or a reader raises
        reason = one_line(error) or type(error).__name__
        raise DownstreamError(f"{kind}: {failure} in {root}: {reason}") from None


def may_download(kind: str, download: bool | None) -> bool:
    """Whether an absent dataset may be downloaded: as ``download`` says; None: if it has at most 200 MB."""
    return _DOWNLOADS_MB[kind] <= _UNASKED_MB if download is None else download


def _off(kind: str) -> str:
    size = _DOWNLOADS_MB[kind]
    told = f"{size / 1000:.3g} GB" if size >= 1000 else f"{size} MB"
    return f"is not there (and download is off: {told}; 'download: true' or --set downstream.download=true allows it)"


def fetch(
    kind: str, class_name: str, root: Path, parts: Sequence[dict[str, Any]], *, download: bool, layout: str
) -> None:
    """Download parts of a dataset by torchvision, whose files FormulaVision reads itself.

    Args:
        parts: arguments of torchvision's class, for each part.
        download: whether a download is allowed.
        layout: the files that are expected, for the message.

    Raises:
        DownstreamError: a download is not allowed, or failed.
    """
    if not download:
        raise DownstreamError(f"{kind}: {_off(kind)} in {root}: it must hold {layout}")
    failure = f"is not there (as {layout}) and could not be downloaded"
    for keywords in parts:
        torchvision_set(kind, class_name, root, failure, download=True, **keywords)


def default_root() -> Path:
    """The folder of downloads where no root is given: in the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("FORMULAVISION_CACHE") or platformdirs.user_cache_dir("formulavision")) / "downstreams"
