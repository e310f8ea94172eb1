"""torchvision's classification datasets, by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.errors import DownstreamError

__all__ = ["TORCHVISION", "open_torchvision"]

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
"""torchvision's classification sets with an official division: class, arguments for training, for test."""


Side = tuple["Items", NDArray[np.int64], list[str]]


class Items:
    """Index -> image of a torchvision dataset."""

    def __init__(self, dataset: Any, root: Path) -> None:
        self.dataset = dataset
        self.root = root

    def __call__(self, index: int) -> Image.Image:
        try:
            image: Image.Image = self.dataset[index][0]
        except (OSError, ValueError, SyntaxError) as error:
            raise DownstreamError(f"{self.root}: image {index} cannot be decoded ({error})") from None
        return image


def open_torchvision(kind: str, root: Path | None, *, download: bool) -> list[Side]:
    """Training and test side of a dataset: its images, their labels, int64 [n], and the names of the classes.

    Args:
        kind: a key of ``TORCHVISION``.
        root: where torchvision keeps it; None: the user's cache folder.
        download: fetch it where it is absent.

    Raises:
        DownstreamError: it is absent, cannot be downloaded, or is damaged.
    """
    from torchvision import datasets

    root = root or _default_root()
    class_name, *arguments = TORCHVISION[kind]
    sides: list[Side] = []
    for keywords in arguments:
        try:
            # torchvision checks the files that it unpickles (CIFAR) against the digests that it knows.
            dataset = getattr(datasets, class_name)(str(root), download=download, **keywords)
            labels = _labels_of(dataset)
        except Exception as error:  # whatever a download, an archive or a reader raises
            advice = "could not be downloaded or read" if download else "is not there (and download is off)"
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DownstreamError(f"{kind}: {advice} in {root}: {reason}") from None
        names = getattr(dataset, "classes", range(int(labels.max()) + 1))
        sides.append((Items(dataset, root), labels, [str(name) for name in names]))
    return sides


def _labels_of(dataset: Any) -> NDArray[np.int64]:
    for name in ("targets", "labels", "_labels"):
        labels = getattr(dataset, name, None)
        if labels is not None:
            return np.asarray(labels, dtype=np.int64)
    return np.array([label for _, label in dataset._samples], dtype=np.int64)


def _default_root() -> Path:
    import platformdirs

    return Path(os.environ.get("FORMULAVISION_CACHE") or platformdirs.user_cache_dir("formulavision")) / "downstreams"
