"""Pascal VOC 2012, classification: which of 20 classes an image shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from formulavision.data.downstream.files import ImageFiles, read_text
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.torchvision_sets import fetch
from formulavision.util.errors import DownstreamError

__all__ = ["CLASSES", "open_voc2012"]

# fmt: off
CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on
_IMAGES = "JPEGImages"
_LISTS = "ImageSets/Main"
_LAYOUT = f"VOCdevkit/VOC2012/ with {_IMAGES}/ and {_LISTS}/<class>_train.txt and <class>_val.txt"
_STATES = {"1": 1, "0": -1, "-1": 0}
"""Words of the lists -> our labels: present 1, absent 0; present in difficult instances only, -1: not counted."""


def open_voc2012(root: Path, download: bool) -> Sides:
    """``VOCdevkit/VOC2012/`` with ``JPEGImages/*.jpg`` and ``ImageSets/Main/<class>_{train,val}.txt``.

    The training images are train (5,717), the test images val (5,823). The paper does not say which split its figures
    are of; the labels of the challenge's test set are not public. ``root`` may also be ``VOC2012`` itself.

    Raises:
        DownstreamError: the dataset is absent and cannot be downloaded, has another layout, or an image cannot be used.
    """
    base = _base(root)
    if base is None:
        parts = [{"year": "2012", "image_set": "train"}]
        fetch("voc2012", "VOCDetection", root, parts, download=download, layout=_LAYOUT)
        base = _base(root)
        assert base is not None
    return Sides(_read_side(base, "train"), _read_side(base, "val"))


def _base(root: Path) -> Path | None:
    places = (root / "VOCdevkit" / "VOC2012", root)
    return next((place for place in places if (place / _LISTS).is_dir() and (place / _IMAGES).is_dir()), None)


def _read_side(base: Path, split: str) -> LabelledImages:
    lists = [base / _LISTS / f"{name}_{split}.txt" for name in CLASSES]
    columns = [_read_list(file) for file in lists]
    images = list(columns[0])
    for file, column in zip(lists, columns, strict=True):
        if list(column) != images:
            raise DownstreamError(f"{file}: does not list the images that {lists[0].name} lists")
    labels = np.array([list(column.values()) for column in columns], dtype=np.int8).T.copy()
    source = ImageFiles(base / _IMAGES, [f"{image}.jpg" for image in images])
    return LabelledImages(source, np.arange(len(images)), labels, CLASSES)


def _read_list(file: Path) -> dict[str, int]:
    words = read_text(file).split()
    if not words or len(words) % 2 or not _STATES.keys() >= {*words[1::2]}:
        raise DownstreamError(f"{file}: must hold an image and 1, 0 or -1 a line")
    return dict(zip(words[0::2], map(_STATES.__getitem__, words[1::2]), strict=True))
