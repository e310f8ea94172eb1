"""Map-style datasets of Python programs (torchvision's, a Subset, a list of pairs) as labelled images."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.settings import DEFAULT_TEST_SHARE
from formulavision.util.errors import DownstreamError

__all__ = ["as_images", "as_sides", "is_dataset"]

_CONTENTS = 300
_COMPARED = 8


def is_dataset(value: object) -> bool:
    """Whether a value has a length and items, and is neither text nor a mapping."""
    return all(hasattr(value, name) for name in ("__len__", "__getitem__")) and not hasattr(value, "keys")


class _Items:
    """Index -> image of a dataset whose items are (image, label).

    An image is a PIL image, a uint8 array [h, w] or [h, w, c], or a tensor [c, h, w]: uint8, or floating-point from 0
    to 1 (as torchvision's ``ToTensor`` makes), which is scaled by 255 and rounded.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __call__(self, index: int) -> Image.Image | NDArray[np.uint8]:
        image = self._item(index)[0]
        if isinstance(image, Image.Image):
            return image
        try:
            pixels = np.asarray(image)
        except (TypeError, ValueError):
            raise self._error(index, f"is {type(image).__name__}, not an image") from None
        if not isinstance(image, np.ndarray) and pixels.ndim == 3:  # a tensor
            pixels = pixels.transpose(1, 2, 0)
        if pixels.dtype.kind == "f" and pixels.size and pixels.min() >= 0 and pixels.max() <= 1:
            pixels = np.rint(pixels * 255).astype(np.uint8)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
            found = f"{pixels.dtype} {list(pixels.shape)}"
            if pixels.dtype.kind == "f" and pixels.size:
                found += f" from {pixels.min():.3g} to {pixels.max():.3g}"
            raise self._error(index, f"is {found}: must be a PIL image, uint8, or from 0 to 1: leave out Normalize")
        return pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels

    def label(self, index: int) -> int:
        label = np.asarray(self._item(index)[1])
        if label.size != 1 or label.dtype.kind not in "iu":
            raise self._error(index, f"has a label of type {type(self._item(index)[1]).__name__}, and must have an int")
        return int(label.reshape(()))

    def content(self, indices: NDArray[np.int64]) -> bytes:
        """The numbers of the images, and the pixels of 300 that lie evenly over them."""
        pixels = hashlib.sha256()
        for index in _evenly(indices, _CONTENTS):
            image = np.asarray(self(int(index)))
            pixels.update(f"{image.dtype} {image.shape}".encode() + image.tobytes())
        return indices.tobytes() + pixels.digest()

    def _item(self, index: int) -> Any:
        try:
            item = self.dataset[index]
        except Exception as error:  # whatever somebody's dataset raises
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise self._error(index, f"cannot be read ({reason})") from error
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise self._error(index, f"is {type(item).__name__}: an item must be (image, label)")
        return item

    def _error(self, index: int, problem: str) -> DownstreamError:
        return DownstreamError(f"{self.name}: item {index} {problem}")


def as_images(dataset: Any, class_names: list[str] | None = None) -> LabelledImages:
    """A map-style dataset as labelled images.

    Its labels are read from ``targets`` or ``labels`` where it has them and they are those of its items, else from all
    items; classes are named by its ``classes``, else by their numbers.

    Args:
        dataset: has a length; items are (image, label), an image as ``_Items`` says and the label an int from 0.
        class_names: of the classes, where they are known.

    Raises:
        DownstreamError: it is empty, an item is something else, or an image differs when it is read again.
    """
    name = type(dataset).__name__
    read, count = _Items(dataset, name), len(dataset)
    if count == 0:
        raise DownstreamError(f"{name}: is empty")
    if np.asarray(read(0)).tobytes() != np.asarray(read(0)).tobytes():
        raise DownstreamError(f"{name}: item 0 differs when it is read again: leave random transforms to the settings")
    labels = _listed(dataset)
    compared = _evenly(np.arange(count), _COMPARED)
    if labels is None or any(read.label(int(index)) != labels[index] for index in compared):
        labels = np.array([read.label(index) for index in range(count)], dtype=np.int64)
    if labels.min() < 0:
        raise DownstreamError(f"{name}: item {labels.argmin()} has the label {labels.min()}: labels count from 0")
    names = class_names or _classes(dataset) or []
    if len(names) <= labels.max():
        if class_names:
            raise DownstreamError(
                f"{name}: has the label {labels.max()}: the training images have {len(names)} classes"
            )
        names = [str(label) for label in range(int(labels.max()) + 1)]
    return LabelledImages(read, np.arange(count), labels, names)


def as_sides(data: Any) -> tuple[str, Sides]:
    """A pair (training, test) of datasets; or one, of which 20 % of each class, at least one image, are tested on.

    Returns:
        The name of the (training) dataset's class, and the two sides.

    Raises:
        DownstreamError: an item cannot be used, or a class of a dataset that is divided has one image only.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(is_dataset, data)) and not _is_item(data[0]):
        train = as_images(data[0])
        return type(data[0]).__name__, Sides(train, as_images(data[1], train.class_names))
    whole, name = as_images(data), type(data).__name__
    tested = np.zeros(len(whole), bool)
    for label in np.unique(whole.labels):
        of_class = whole.showing(int(label))
        if len(of_class) < 2:
            raise DownstreamError(
                f"{name}: class '{whole.class_names[label]}' has one image: give a pair (training, test)"
            )
        order = sorted(of_class.tolist(), key=lambda index: hashlib.sha256(str(index).encode()).digest())
        tested[order[: min(max(round(DEFAULT_TEST_SHARE * len(order)), 1), len(order) - 1)]] = True
    train, test = (
        LabelledImages(whole.read, whole.indices[side], whole.labels[side], whole.class_names)
        for side in (~tested, tested)
    )
    return name, Sides(train, test, note=f"{DEFAULT_TEST_SHARE:.0%} of each class put aside to test on")


def _is_item(value: Any) -> bool:
    """Whether it is an (image, label) of a list of two items, and not a dataset of a pair."""
    return isinstance(value, tuple | list) and len(value) == 2 and not is_dataset(value[1])


def _listed(dataset: Any) -> NDArray[np.int64] | None:
    """The labels as the dataset lists them, or the one that it is a ``torch.utils.data.Subset`` of."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        whole = _listed(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices)]
    for name in ("targets", "labels", "_labels"):
        try:
            labels = np.asarray(getattr(dataset, name, None))
        except (TypeError, ValueError):
            continue
        if labels.dtype.kind in "iu" and labels.shape == (len(dataset),):
            return labels.astype(np.int64)
    return None


def _classes(dataset: Any) -> list[str] | None:
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return _classes(dataset.dataset)
    names = getattr(dataset, "classes", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) else None


def _evenly(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return indices[np.unique(np.linspace(0, len(indices) - 1, most).round().astype(np.int64))]
