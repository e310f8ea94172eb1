"""Published datasets for segmentation by their own layouts: Pascal VOC 2012, ADE20k, Cityscapes, Oxford-IIIT Pet."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from formulavision.data.downstream.files import images_in, read_text
from formulavision.data.downstream.images import Sides
from formulavision.data.downstream.masks import MaskedImages, masked_images
from formulavision.data.downstream.settings import DownstreamSettings
from formulavision.data.downstream.torchvision_sets import fetch
from formulavision.data.downstream.voc2012 import CLASSES as OBJECTS
from formulavision.recipes.targets import IGNORED
from formulavision.util.errors import DownstreamError

__all__ = ["open_ade20k", "open_cityscapes", "open_oxfordiiitpet_masks", "open_voc2012_masks"]

_VOC = "ImageSets/Segmentation"
_ADE = "ADEChallengeData2016"
_PET = "oxford-iiit-pet"


def open_voc2012_masks(root: Path, download: bool) -> Sides:
    """``VOCdevkit/VOC2012/`` with ``JPEGImages/``, ``SegmentationClass/``, ``ImageSets/Segmentation/{train,val}.txt``.

    The classes are ``background`` and the 20 objects of the challenge; 255, the objects' outlines, is ignored. The
    training images are train (1,464), the test images val (1,449): the masks of the test set are not public. ``root``
    may also be ``VOC2012`` itself.

    Raises:
        DownstreamError: the dataset is absent and cannot be downloaded, has another layout, or a file cannot be used.
    """
    places = [root / "VOCdevkit" / "VOC2012", root]
    if not any((place / _VOC).is_dir() for place in places):
        expected = f"VOCdevkit/VOC2012/ with JPEGImages/, SegmentationClass/ and {_VOC}/train.txt and val.txt"
        parts = [{"year": "2012", "image_set": "train"}]
        fetch("voc2012-masks", "VOCSegmentation", root, parts, download=download, layout=expected)
    base = next(place for place in places if (place / _VOC).is_dir())
    classes = ["background", *OBJECTS]
    values = {label: label for label in range(len(classes))} | {255: IGNORED}
    layout = "JPEGImages/*.jpg", "SegmentationClass/*.png"
    lists = [_listed(base / _VOC / f"{split}.txt") for split in ("train", "val")]
    train, test = (_side(base, names, layout, classes, values) for names in lists)
    return Sides(train, test)


def open_ade20k(root: Path, settings: DownstreamSettings) -> Sides:
    """``ADEChallengeData2016/`` (SceneParsing) with ``images/{training,validation}/`` and ``annotations/`` of the same.

    The classes are the values 1 to 150, named by the first word of each in ``objectInfo150.txt``, or by their numbers
    where that file is missing; 0, other objects, is ignored. ``root`` may also be ``ADEChallengeData2016`` itself.

    Raises:
        DownstreamError: the folder is missing or has another layout, or a file cannot be used.
    """
    base = root / _ADE if (root / _ADE).is_dir() else root
    numbers = [str(value) for value in range(1, 151)]
    names = _object_names(base / "objectInfo150.txt") or numbers
    values = {value: value - 1 for value in range(1, 151)} | {0: IGNORED}
    sides = []
    for split in ("training", "validation"):
        folder = base / "images" / split
        if not folder.is_dir():
            raise DownstreamError(f"{folder}: no such folder: {root} must hold {_ADE}/ with images/ and annotations/")
        stems = [name.removesuffix(".jpg") for name in images_in(folder)]
        if not stems:
            raise DownstreamError(f"{folder}: holds no images")
        layout = f"images/{split}/*.jpg", f"annotations/{split}/*.png"
        sides.append(_side(base, stems, layout, names, values, numbers))
    train, test = sides
    return Sides(train, test)


def open_cityscapes(root: Path, settings: DownstreamSettings) -> Sides:
    """``leftImg8bit/{train,val}/<city>/*_leftImg8bit.png`` and ``gtFine/`` with ``*_gtFine_labelIds.png``.

    The classes are the 19 that the benchmark evaluates, as in torchvision's ``Cityscapes.classes``; all other ids are
    ignored. Where an image has ``*_gtFine_labelTrainIds.png``, which the benchmark's scripts write, all images of its
    part must have it, and it is read instead: 0 to 18, and 255 is ignored. The test images are val (500 of 3 cities):
    the masks of the test set are not public.

    Raises:
        DownstreamError: the folder is missing or has another layout, or a file cannot be used.
    """
    from torchvision.datasets import Cityscapes

    evaluated = [known for known in Cityscapes.classes if not known.ignore_in_eval]
    classes = [known.name for known in sorted(evaluated, key=lambda known: known.train_id)]
    by_id = {known.id: IGNORED for known in Cityscapes.classes if known.id >= 0}
    by_id |= {known.id: known.train_id for known in evaluated}
    suffix = "_leftImg8bit.png"
    by_train_id = {label: label for label in range(len(classes))} | {255: IGNORED}
    sides = []
    for split in ("train", "val"):
        folder = root / "leftImg8bit" / split
        if not folder.is_dir():
            raise DownstreamError(f"{folder}: no such folder: {root} must hold leftImg8bit/ and gtFine/")
        names = [name.removesuffix(suffix) for name in images_in(folder) if name.endswith(suffix)]
        if not names:
            raise DownstreamError(f"{folder}: holds no images <city>/*{suffix}")
        given = any((root / f"gtFine/{split}/{name}_gtFine_labelTrainIds.png").is_file() for name in names)
        kind, values = ("labelTrainIds", by_train_id) if given else ("labelIds", by_id)
        layout = f"leftImg8bit/{split}/*{suffix}", f"gtFine/{split}/*_gtFine_{kind}.png"
        sides.append(_side(root, names, layout, classes, values))
    train, test = sides
    return Sides(train, test)


def open_oxfordiiitpet_masks(root: Path, download: bool) -> Sides:
    """``oxford-iiit-pet/`` with ``images/*.jpg``, ``annotations/trimaps/*.png``, ``annotations/{trainval,test}.txt``.

    The classes are ``background`` (2 in a trimap) and ``pet`` (1); 3, the outline, which is not classified, is ignored.
    The training images are trainval (3,680), the test images test (3,669). ``root`` may also be ``oxford-iiit-pet``.

    Raises:
        DownstreamError: the dataset is absent and cannot be downloaded, has another layout, or a file cannot be used.
    """
    places = [root / _PET, root]
    if not any((place / "annotations" / "trainval.txt").is_file() for place in places):
        expected = f"{_PET}/ with images/ and annotations/ (trimaps/, trainval.txt, test.txt)"
        fetch("oxfordiiitpet-masks", "OxfordIIITPet", root, [{}], download=download, layout=expected)
    base = next(place for place in places if (place / "annotations" / "trainval.txt").is_file())
    layout = "images/*.jpg", "annotations/trimaps/*.png"
    classes, values = ["background", "pet"], {2: 0, 1: 1, 3: IGNORED}
    lists = [_listed(base / "annotations" / f"{split}.txt") for split in ("trainval", "test")]
    train, test = (_side(base, names, layout, classes, values) for names in lists)
    return Sides(train, test)


def _side(
    root: Path,
    names: Sequence[str],
    layout: tuple[str, str],
    classes: Sequence[str],
    values: Mapping[int, int],
    class_ids: Sequence[str] | None = None,
) -> MaskedImages:
    """One side of a dataset; ``layout``: the paths of an image and its mask in ``root``, ``*`` in place of the name."""
    images, masks = ([pattern.replace("*", name) for name in names] for pattern in layout)
    return masked_images(root, images, masks, classes, values, class_ids)


def _listed(file: Path) -> Sequence[str]:
    """The first word of each line."""
    names = [line.split()[0] for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]
    if not names:
        raise DownstreamError(f"{file}: lists no images")
    return names


def _object_names(file: Path) -> list[str] | None:
    """The first name of each of the 150 classes; None where the file is missing.

    Raises:
        DownstreamError: the file has other columns or another number of classes.
    """
    if not file.is_file():
        return None
    rows = csv.DictReader(read_text(file).splitlines(), delimiter="\t")
    names = [(row.get("Name") or "").split(",")[0].strip() for row in rows]
    if len(names) != 150 or not all(names):
        raise DownstreamError(f"{file}: must hold a line of titles with Name, and 150 classes, separated by tabs")
    return names
