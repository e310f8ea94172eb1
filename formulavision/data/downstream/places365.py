"""Places365-Standard (photographs of 365 kinds of places) in torchvision's folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from formulavision.data.downstream.files import ImageFiles, read_text
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.torchvision_sets import fetch
from formulavision.util.errors import DownstreamError

__all__ = ["open_places365"]

_CATEGORIES = "categories_places365.txt"
_LISTS = ("places365_train_standard.txt", "places365_val.txt")
_IMAGES = (("data_256_standard", "val_256"), ("data_large_standard", "val_large"))
_LAYOUT = f"{_CATEGORIES}, {', '.join(_LISTS)} and {' or '.join(f'{train}/ with {val}/' for train, val in _IMAGES)}"


def open_places365(root: Path, download: bool) -> Sides:
    """Open Places365-Standard. Classes are named ``airfield`` or ``apartment_building/outdoor``.

    ``root`` holds the lists ``categories_places365.txt``, ``places365_train_standard.txt`` and ``places365_val.txt``.
    The images are in ``data_256_standard/`` and ``val_256/``, or in ``data_large_standard/`` and ``val_large/``. Where
    ``root`` holds both sizes, the small images are used: their 256 pixels are the size that the paper resizes to. A
    download fetches the small images. Training images are those of train-standard; test images are those of val,
    because the labels of the test set are not public. Names of classes omit the ``/a/`` that the lists put before them.

    Raises:
        DownstreamError: the dataset is absent and cannot be downloaded, has another layout, or an image cannot be used.
    """
    lists = [root / _CATEGORIES, *(root / name for name in _LISTS)]
    folders = _folders(root)
    if folders is None or not all(file.is_file() for file in lists):
        parts = [{"split": split, "small": True} for split in ("train-standard", "val")]
        fetch("places365", "Places365", root, parts, download=download, layout=_LAYOUT)
        folders = _folders(root)
        assert folders is not None
    categories, numbers = _read_list(lists[0])
    if len(categories) < 2 or numbers.tolist() != list(range(len(categories))):
        raise DownstreamError(f"{lists[0]}: must number the classes from 0, with a name and a number on each line")
    names = [category.lstrip("/").partition("/")[2] for category in categories]
    train, test = (_read_side(folder, file, names) for folder, file in zip(folders, lists[1:], strict=True))
    return Sides(train, test, {category: label for label, category in enumerate(categories)})


def _folders(root: Path) -> tuple[Path, Path] | None:
    pairs = ((root / train, root / val) for train, val in _IMAGES)
    return next(((train, val) for train, val in pairs if train.is_dir() and val.is_dir()), None)


def _read_list(file: Path) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    words = read_text(file).split()
    try:
        return words[0::2], np.array(words[1::2], dtype=np.int64).reshape(len(words[0::2]))
    except ValueError:
        raise DownstreamError(f"{file}: must hold a name and a number on each line") from None


def _read_side(folder: Path, file: Path, names: list[str]) -> LabelledImages:
    images, labels = _read_list(file)
    if not images or labels.min() < 0 or labels.max() >= len(names):
        raise DownstreamError(f"{file}: must hold images with labels from 0 to {len(names) - 1}, as {_CATEGORIES} has")
    source = ImageFiles(folder, [image.lstrip("/") for image in images])
    return LabelledImages(source, np.arange(len(images)), labels, names)
