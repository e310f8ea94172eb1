"""Map-style datasets of Python programs (torchvision's, Hugging Face's, a list of pairs) as labelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.images import (
    DEFAULT_TEST_SHARE,
    LabelledImages,
    Sides,
    as_pixels,
    divide,
    spread_evenly,
)
from formulavision.recipes.targets import IGNORED
from formulavision.util.errors import DownstreamError, one_line
from formulavision.util.text import counted

if TYPE_CHECKING:
    import torch

__all__ = ["DatasetImages", "MaskedItems", "as_images", "as_sides", "find_labels", "is_dataset", "refuse_random"]

_CONTENTS = 300
_COMPARED, _COMPARED_CLASSES = 8, 100
_CHECKED_MASKS = 32
_READ_TWICE = 16
_MOST_UNNAMED = 100_000
"""Labels beyond this, and beyond the number of items, are taken for ids: each label below them would be a class."""
_COLUMNS = (("image", "img"), ("label", "labels"))
"""Names of the columns of images and of labels, in datasets whose items are mappings, as Hugging Face's are."""


def is_dataset(value: object) -> bool:
    """Whether a value has a length and items, and is neither text nor a mapping."""
    items = all(hasattr(value, name) for name in ("__len__", "__getitem__"))
    return items and not hasattr(value, "keys") and not isinstance(value, str | bytes)


class DatasetImages:
    """An :class:`~formulavision.data.downstream.images.ImageSource` of a dataset whose items are (image, label).

    Items may also be mappings with the columns ``image`` (or ``img``) and ``label`` (or ``labels``), as of Hugging
    Face's ``datasets``.

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
        if hasattr(image, "requires_grad"):
            image = image.detach()
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

    def target(self) -> str:
        """The target of the first item: ``class``, ``labels`` (numbers of all classes) or ``semantic`` (a mask)."""
        target = np.asarray(self._item(0)[1])
        if target.ndim >= 2 and target.size > 1:
            return "semantic"
        return "labels" if target.ndim == 1 and target.size > 1 and target.dtype.kind in "iu" else "class"

    def several(self, index: int, classes: int) -> NDArray[np.int8]:
        """Several labels of an item, int8 [classes]: 1 present, 0 absent, -1 not counted."""
        labels = np.asarray(self._item(index)[1])
        if labels.shape != (classes,) or not np.isin(labels, (-1, 0, 1)).all():
            found = f"{labels.dtype} {list(labels.shape)}"
            raise self._error(index, f"has the labels {found}: must be {classes} numbers, 1, 0 or -1 (not counted)")
        return labels.astype(np.int8)

    def mask(self, index: int, classes: int) -> NDArray[np.uint8]:
        """The mask of an item, uint8 [h, w]: values below ``classes``, and 255 for ignored pixels."""
        mask = self._item(index)[1]
        if isinstance(mask, Image.Image) and mask.mode not in ("1", "L", "P"):
            raise self._error(index, f"has a mask in colours ({mask.mode}), and must have one class value a pixel")
        values = np.asarray(mask)
        if values.ndim != 2 or values.dtype.kind not in "iub":
            raise self._error(index, f"has the mask {values.dtype} {list(values.shape)}: must be whole numbers [h, w]")
        wrong = values[((values < 0) | (values >= classes)) & (values != IGNORED)]
        if wrong.size:
            raise self._error(
                index, f"has the value {wrong[0]} in its mask, and there are {classes} classes: 255 is ignored"
            )
        return values.astype(np.uint8)

    def label(self, index: int) -> int:
        label = np.asarray(self._item(index)[1])
        if label.size != 1 or label.dtype.kind not in "iu":
            raise self._error(index, f"has a label of type {type(self._item(index)[1]).__name__}, and must have an int")
        return int(label.reshape(()))

    def content(self, indices: NDArray[np.int64]) -> bytes:
        """The numbers of the images, and the pixels of 300 at even distances."""
        pixels = hashlib.sha256()
        for index in spread_evenly(indices, _CONTENTS):
            image = np.asarray(self(int(index)))
            pixels.update(f"{image.dtype} {image.shape}".encode() + image.tobytes())
        return indices.tobytes() + pixels.digest()

    def _item(self, index: int) -> Any:
        try:
            item = self.dataset[index]
        except Exception as error:  # whatever somebody's dataset raises
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise self._error(index, f"cannot be read ({reason})") from error
        if isinstance(item, Mapping):
            columns = [_column(item, names) for names in _COLUMNS]
            if None in columns:
                raise self._error(
                    index, f"has the columns {', '.join(map(str, item))}: must have image and label: rename_column()"
                )
            return [item[column] for column in columns]
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise self._error(index, f"is {type(item).__name__}: an item must be (image, label)")
        return item

    def _error(self, index: int, problem: str) -> DownstreamError:
        return DownstreamError(f"{self.name}: item {index} {problem}")


class MaskedItems(LabelledImages):
    """One side of a dataset for segmentation whose items are (image, mask); see
    :class:`~formulavision.data.downstream.masks.MaskedImages`."""

    source: DatasetImages

    def __init__(self, source: DatasetImages, indices: NDArray[np.int64], classes: Sequence[str]) -> None:
        super().__init__(source, indices, np.empty(0, np.int64), classes)

    @property
    def target(self) -> str:
        return "semantic"

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        number = int(self.indices[index])
        pixels, mask = as_pixels(self.source(number)), self.source.mask(number, self.num_classes)
        if pixels.shape[1:] != mask.shape:
            sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, and its image {pixels.shape[2]} x {pixels.shape[1]}"
            raise DownstreamError(f"{self.source.name}: item {number} has a mask of {sizes}: sizes must be equal")
        return pixels, torch.from_numpy(mask)

    def part(self, chosen: NDArray[Any]) -> MaskedItems:
        return MaskedItems(self.source, self.indices[chosen], self.classes)

    def digest(self) -> str:
        result = hashlib.sha256("\0".join(["semantic", *self.class_ids]).encode())
        result.update(self.source.content(self.indices))
        for index in spread_evenly(self.indices, _CONTENTS):
            result.update(self.source.mask(int(index), self.num_classes).tobytes())
        return result.hexdigest()[:16]


def refuse_random(source: DatasetImages) -> None:
    """Refuse a dataset whose images change when they are read again: they may be kept in memory after their first use.

    Of 16 images, at even distances, each is read twice: one alone would pass a random flip half the time.

    Raises:
        DownstreamError: an image differs when it is read again, or is none.
    """
    for index in spread_evenly(np.arange(len(source.dataset)), _READ_TWICE).tolist():
        if np.asarray(source(index)).tobytes() != np.asarray(source(index)).tobytes():
            raise DownstreamError(
                f"{source.name}: item {index} differs when it is read again: leave random transforms to the settings"
            )


def as_images(dataset: Any, class_names: Sequence[str] = ()) -> LabelledImages:
    """A map-style dataset as labelled images.

    The labels are the dataset's ``targets`` or ``labels`` where these are the labels of its items: of 8 at even
    distances, and of the first item of each class, or of 100 classes; and where it has no ``target_transform``.
    Otherwise all items are read. The classes are named by its ``classes``, or by their numbers.

    Args:
        dataset: has a length; its items are as of :class:`DatasetImages`, the labels whole numbers from 0. With
            ``classes``, the labels may also be several, int8 [classes], or masks [h, w].
        class_names: the classes, where they are known.

    Raises:
        DownstreamError: the dataset is empty, an item is something else, or an image differs when it is read again.
    """
    name = type(dataset).__name__
    source, count = DatasetImages(dataset, name), len(dataset)
    if count == 0:
        raise DownstreamError(f"{name}: is empty")
    refuse_random(source)
    if (target := source.target()) != "class":
        known = list(class_names or _classes(dataset))
        if not known:
            kind = "several labels" if target == "labels" else "a mask"
            raise DownstreamError(f"{name}: item 0 has {kind}: the dataset must name its classes in 'classes'")
        if target == "semantic":
            if len(known) > IGNORED:
                raise DownstreamError(
                    f"{name}: has {len(known)} classes of masks, and there may be {IGNORED}: 255 is ignored"
                )
            masked = MaskedItems(source, np.arange(count), known)
            for index in spread_evenly(masked.indices, _CHECKED_MASKS):
                masked[int(index)]
            return masked
        several = np.stack([source.several(index, len(known)) for index in range(count)])
        return LabelledImages(source, np.arange(count), several, known)
    labels = find_labels(dataset)
    if labels is None or any(source.label(index) != labels[index] for index in _compared(labels)):
        labels = np.array([source.label(index) for index in range(count)], dtype=np.int64)
    if labels.min() < 0:
        raise DownstreamError(f"{name}: item {labels.argmin()} has the label {labels.min()}: labels count from 0")
    if class_names and len(class_names) <= labels.max():
        raise DownstreamError(
            f"{name}: has the label {labels.max()}: the training images have {len(class_names)} classes"
        )
    names = class_names or _classes(dataset)
    if names and len(names) <= labels.max():
        raise DownstreamError(
            f"{name}: item {labels.argmax()} has the label {labels.max()}, and the dataset has {len(names)} classes"
        )
    if not names and labels.max() >= max(count, _MOST_UNNAMED):
        raise DownstreamError(
            f"{name}: item {labels.argmax()} has the label {labels.max()}, and there are {counted(count, 'item')}: "
            "labels count from 0, without gaps"
        )
    if not class_names and labels.min() == labels.max():
        raise DownstreamError(f"{name}: all items have the label {labels.max()}: there must be at least two classes")
    if not names:
        names = [str(label) for label in range(int(labels.max()) + 1)]
    return LabelledImages(source, np.arange(count), labels, names)


def as_sides(data: Any) -> tuple[str, Sides]:
    """A pair (training, test) of datasets; or one, of which 20 % of each class, at least one image, are tested on.

    Returns:
        The name of the (training) dataset's class, and the two sides.

    Raises:
        DownstreamError: an item cannot be used, the classes of a pair differ, or a class of a dataset that is divided
            has one image only.
    """
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(is_dataset, data)) and not _is_item(data[0]):
        names = [_classes(side) for side in data]
        if all(names) and names[0] != names[1]:
            ours, theirs = next(pair for pair in zip_longest(*names) if pair[0] != pair[1])
            raise DownstreamError(
                f"{type(data[1]).__name__}: the test images have other classes than the training images "
                f"('{theirs}' where those have '{ours}'): both must have the same classes in the same order"
            )
        train = as_images(data[0])
        return type(data[0]).__name__, Sides(train, as_images(data[1], train.classes))
    name = type(data).__name__
    whole = as_images(data)
    if whole.target != "class":
        kind = "several labels" if whole.target == "labels" else "masks"
        raise DownstreamError(f"{name}: a dataset of {kind} is not divided: give a pair (training, test)")
    return name, divide(whole, DEFAULT_TEST_SHARE, key=lambda index: str(index).encode(), name=name, note="")


def _is_item(value: Any) -> bool:
    """Whether a value is the (image, label) of a list of two items, and not a dataset of a pair."""
    return isinstance(value, tuple | list) and len(value) == 2 and not is_dataset(value[1])


def _compared(labels: NDArray[np.int64]) -> list[int]:
    """Items whose own labels are compared with those that a dataset lists."""
    firsts = np.unique(labels, return_index=True)[1]
    places = np.union1d(spread_evenly(np.arange(len(labels)), _COMPARED), spread_evenly(firsts, _COMPARED_CLASSES))
    return [int(place) for place in places]


def find_labels(dataset: Any) -> NDArray[np.int64] | None:
    """Labels as a dataset of torchvision's lists them, or the one that it is a ``torch.utils.data.Subset`` of; or the
    column of a Hugging Face dataset.

    Returns:
        int64 [n]; None where the dataset lists none, or changes them by a ``target_transform``.
    """
    # torchvision's datasets hold both under ``transforms``; some of them only there.
    for holder in (dataset, getattr(dataset, "transforms", None)):
        if getattr(holder, "target_transform", None) is not None:
            return None
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        whole, indices = find_labels(dataset.dataset), np.asarray(dataset.indices)
        return None if whole is None or (indices >= len(whole)).any() else whole[indices]
    listed = [getattr(dataset, name, None) for name in ("targets", "labels", "_labels")]
    if column := _label_column(dataset):
        listed.append(dataset.with_format(None)[column][:])
    for values in listed:
        try:
            labels = np.asarray(values)
        except (TypeError, ValueError):
            continue
        if labels.dtype.kind in "iu" and labels.shape == (len(dataset),):
            return labels.astype(np.int64)
    return None


def _classes(dataset: Any) -> list[str]:
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return _classes(dataset.dataset)
    names = getattr(dataset, "classes", getattr(dataset, "class_names", None))
    if column := _label_column(dataset):
        names = getattr(dataset.features[column], "names", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _label_column(dataset: Any) -> str | None:
    """The column of labels of a Hugging Face dataset; None where it has none, or is another dataset."""
    features = getattr(dataset, "features", None)  # other datasets may have tensors of this name
    is_table = isinstance(features, Mapping) and hasattr(dataset, "with_format")
    return _column(features, _COLUMNS[1]) if is_table else None


def _column(names: Any, known: Sequence[str]) -> str | None:
    return next((name for name in known if name in names), None)
