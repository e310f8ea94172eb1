"""torchvision's classification datasets, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.util.errors import DownstreamError

__all__ = ["TORCHVISION", "Items", "default_root", "fetch", "may_download", "open_torchvision", "torchvision_set"]

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

_DOWNLOADS_MB = {
    "cifar10": 170, "cifar100": 169, "country211": 11_500, "dtd": 625, "fashionmnist": 31, "fgvcaircraft": 2_750,
    "flowers102": 345, "food101": 5_000, "gtsrb": 277, "kmnist": 21, "mnist": 12, "omniglot": 16, "oxfordiiitpet": 811,
    "places365": 25_000, "stl10": 2_640, "svhn": 247, "voc2012": 2_000,
}  # fmt: skip
"""How much is fetched, about; a test's images and a validation part's, which come in one archive, are in it."""

_UNASKED_MB = 200


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

    def content(self, indices: NDArray[np.int64]) -> bytes:
        # torchvision knows the digests of what it downloads, so an image's number tells which one it is.
        return indices.tobytes()


def open_torchvision(kind: str, root: Path, *, download: bool) -> Sides:
    """One of torchvision's datasets by its official division.

    Args:
        kind: a key of ``TORCHVISION``.
        root: where torchvision keeps it.
        download: fetch it where it is absent.

    Raises:
        DownstreamError: it is absent, cannot be downloaded, or is damaged.
    """
    class_name, *arguments = TORCHVISION[kind]
    failure = "could not be downloaded or read" if download else _off(kind)
    sides: list[LabelledImages] = []
    for keywords in arguments:
        dataset = torchvision_set(kind, class_name, root, failure, download=download, **keywords)
        labels = _labels_of(dataset)
        names = getattr(dataset, "classes", range(int(labels.max()) + 1))
        sides.append(
            LabelledImages(Items(dataset, root), np.arange(len(labels)), labels, [str(name) for name in names])
        )
    train, test = sides
    return Sides(train, test)


def torchvision_set(kind: str, class_name: str, root: Path, failure: str, **keywords: Any) -> Any:
    """An instance of one of torchvision's dataset classes; it downloads and unpacks what is missing.

    Raises:
        DownstreamError: with ``failure`` and torchvision's reason, where it raises anything.
    """
    from torchvision import datasets

    try:
        # torchvision checks archives, and the files that it unpickles (CIFAR), against the digests that it knows.
        return getattr(datasets, class_name)(str(root), **keywords)
    except Exception as error:  # whatever a download, an archive or a reader raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DownstreamError(f"{kind}: {failure} in {root}: {reason}") from None


def may_download(kind: str, download: bool | None) -> bool:
    """Whether a dataset may be downloaded where it is absent: as it was said, else if it is small."""
    return _DOWNLOADS_MB[kind] <= _UNASKED_MB if download is None else download


def _off(kind: str) -> str:
    size = _DOWNLOADS_MB[kind]
    told = f"{size / 1000:.3g} GB" if size >= 1000 else f"{size} MB"
    return f"is not there (and download is off: {told}; 'download: true' or --set downstream.download=true allows it)"


def fetch(
    kind: str, class_name: str, root: Path, parts: Sequence[dict[str, Any]], *, download: bool, layout: str
) -> None:
    """Download, with torchvision, the parts of a dataset that we read ourselves.

    Args:
        parts: arguments of torchvision's class, for each part.
        download: whether that is allowed.
        layout: what is read, for whoever puts it there by hand.

    Raises:
        DownstreamError: it may not or cannot be downloaded.
    """
    if not download:
        raise DownstreamError(f"{kind}: {_off(kind)} in {root}: it must hold {layout}")
    failure = f"is not there (as {layout}) and could not be downloaded"
    for keywords in parts:
        torchvision_set(kind, class_name, root, failure, download=True, **keywords)


def _labels_of(dataset: Any) -> NDArray[np.int64]:
    for name in ("targets", "labels", "_labels"):
        labels = getattr(dataset, name, None)
        if labels is not None:
            return np.asarray(labels, dtype=np.int64)
    return np.array([label for _, label in dataset._samples], dtype=np.int64)


def default_root() -> Path:
    """Where torchvision keeps what is downloaded without a root: in the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("FORMULAVISION_CACHE") or platformdirs.user_cache_dir("formulavision")) / "downstreams"
