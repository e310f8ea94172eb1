"""Folders with a subfolder a class: with ``train/`` and ``test/`` or ``val/``, or undivided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from formulavision.data.downstream.files import ImageFiles, images_in, subfolders
from formulavision.data.downstream.images import DEFAULT_TEST_SHARE, LabelledImages, Sides, divide
from formulavision.data.downstream.settings import SPLITS, DownstreamSettings
from formulavision.storage.manifest import MANIFEST
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError, DownstreamError

__all__ = [
    "OF_FILES",
    "check_classes",
    "check_outside",
    "labelled",
    "list_classes",
    "open_class_folders",
    "open_folder",
]

OF_FILES = ("folder", "imagenet")
"""Kinds of datasets whose images lie in the folder that the user names."""


def open_folder(root: Path, settings: DownstreamSettings) -> Sides:
    """A folder of images. The classes are the sorted names of the subfolders; images may lie deeper.

    A folder is divided where it holds ``train/`` and ``test/`` or ``val/``, by one of their usual names in any case.
    The tested part is ``test_split``; unset, it is ``test/``, or ``val/`` where ``test/`` has none of the classes. Any
    other folder, or ``train/`` alone, is divided by :func:`divide`; ``test_seed`` and the images' names decide which
    images are tested on.

    Raises:
        DownstreamError: the folder is missing or has another layout, or an image cannot be used.
    """
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    if {"images", "masks"} <= {*subfolders(root)} and SPLITS.keys() & map(str.lower, subfolders(root / "images")):
        raise DownstreamError(f"{root}: holds images/ and masks/, each with the parts of a dataset: give masks:{root}")
    splits = _splits(root)
    train, test = splits.get("train"), _tested(root, splits, settings)
    trained = root if train is None else root / train
    check_classes(trained, settings)
    if test is None:
        return _divided(trained, settings)
    if settings.test_share is not None:
        raise DownstreamError(f"{root}: has {train}/ and {test}/: test_share is for a folder without test images")
    sides = open_class_folders(trained, root / test, settings.keeps)
    others = [name for split, name in splits.items() if split != "train" and name != test]
    return replace(sides, note="; ".join(filter(None, (f"tested on {test}/" if others else "", sides.note))))


def open_class_folders(train: Path, test: Path, keep: Callable[[str], bool] = lambda name: True) -> Sides:
    """Two folders with the same subfolders, a subfolder a class; the labels are those of the sorted names.

    Args:
        train, test: the folders.
        keep: tells by its name whether a class is used; folders of other classes are not opened.

    Raises:
        DownstreamError: a folder has another layout, a class is in one of them only, or an image cannot be used.
    """
    skipped: Counter[str] = Counter()
    first, second = (list_classes(folder, keep, skipped) for folder in (train, test))
    if list(first) != list(second):
        other = min(set(first) ^ set(second))
        where = (train if other in first else test).name
        raise DownstreamError(
            f"{train.parent}: class '{other}' has images in {where}/ only: both sides must have the same classes"
        )
    sides = labelled(train, first), labelled(test, second)
    return Sides(*sides, numbers=_numbers(train, first), note=_describe(skipped))


def check_classes(folder: Path, settings: DownstreamSettings) -> None:
    """Check that the classes that the settings name are subfolders.

    Raises:
        DownstreamError: one is not.
    """
    known = subfolders(folder)
    for name in (*(settings.classes or ()), *settings.exclude):
        if name not in known:
            raise DownstreamError(f"{folder}: has no class '{name}'{did_you_mean(name, known)}")


def _divided(folder: Path, settings: DownstreamSettings) -> Sides:
    if settings.test_split is not None:
        raise DownstreamError(f"{folder}: has no train/ and test/ or val/: test_split is for a folder with these")
    skipped: Counter[str] = Counter()
    classes = list_classes(folder, settings.keeps, skipped)
    whole = labelled(folder, classes)
    assert isinstance(whole.source, ImageFiles)
    names = whole.source.names
    seed = settings.test_seed
    return divide(
        whole,
        DEFAULT_TEST_SHARE if settings.test_share is None else settings.test_share,
        key=lambda index: f"{seed}:".encode() + names[index],
        name=str(folder),
        note="; ".join(filter(None, (f" (test_share), by test_seed {seed}", _describe(skipped)))),
        numbers=_numbers(folder, classes),
    )


def _splits(root: Path) -> dict[str, str]:
    """Names of the folders of the dataset's parts, by the parts (train, val, test); none where it is not divided.

    A class may be called ``train``, too: in a divided dataset, ``train/`` holds folders, or all folders are parts.
    """
    names = subfolders(root)
    found: dict[str, str] = {}
    for name in names:
        split = SPLITS.get(name.lower())
        if split in found:
            raise DownstreamError(f"{root}: holds {found[split]}/ and {name}/, which stand for the same: remove one")
        if split is not None:
            found[split] = name
    deep = [split for split, name in found.items() if subfolders(root / name)]
    if "train" not in found and (deep or (found and len(found) == len(names))):
        raise DownstreamError(
            f"{root}: has no train/: it must hold train/ and val/ or test/, with a subfolder a class, or these"
        )
    return found if "train" in deep or len(found) == len(names) else {}


def check_outside(folder: Path, settings: DownstreamSettings) -> None:
    """Check that a folder to write into is not among a dataset's images: its pictures would become one of the classes.

    Args:
        folder: need not exist.
        settings: of the dataset. Beside the parts of a divided one there is room.

    Raises:
        ConfigError: it is.
    """
    if settings.kind not in OF_FILES or settings.root is None:
        return
    root = settings.root.resolve()
    if not root.is_dir() or not folder.resolve().is_relative_to(root):
        return
    parts = _splits(root)
    if not parts or any(folder.resolve().is_relative_to(root / part) for part in parts.values()):
        raise ConfigError(f"out: {folder} lies in the folder of the images, and would become one of their classes")


def _tested(root: Path, splits: dict[str, str], settings: DownstreamSettings) -> str | None:
    if not splits:
        return None
    if settings.test_split is not None:
        if settings.test_split not in splits:
            raise DownstreamError(f"{root}: has no {settings.test_split}/ beside train/: test_split must name another")
        return splits[settings.test_split]
    classes = set(subfolders(root / splits["train"]))
    candidates = {splits[split]: subfolders(root / splits[split]) for split in ("test", "val") if split in splits}
    with_labels = (name for name, found in candidates.items() if classes & set(found))
    # Where none has a class of train/: subfolders of other names are a mistake, and images without any have no labels.
    return next(with_labels, next((name for name, found in candidates.items() if found), None))


def list_classes(folder: Path, keep: Callable[[str], bool], skipped: Counter[str]) -> dict[str, list[str]]:
    """Paths of the images of each class that is kept and has any, by the class's name, relative to its subfolder.

    Raises:
        DownstreamError: there are not two such classes, or a folder cannot be listed.
    """
    found = {name: images_in(folder / name, skipped) for name in subfolders(folder) if keep(name)}
    classes = {name: images for name, images in found.items() if images}
    if len(classes) < 2:
        empty = [name for name in found if name not in classes]
        held = f"the one class '{next(iter(classes))}'" if classes else "no classes"
        without = f" ({', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}: no images)" if empty else ""
        hint = "; images with masks have masks/ beside images/" if "images" in found else ""
        if (folder / MANIFEST).is_file():
            hint = "; it is a store, which is for pre-training: --data"
        raise DownstreamError(f"{folder}: holds {held}{without}: it must have a subfolder a class, at least two{hint}")
    return classes


def labelled(folder: Path, classes: dict[str, list[str]]) -> LabelledImages:
    """The images of the classes that :func:`list_classes` found in a folder; labels in the order of the classes."""
    source = ImageFiles(folder, [f"{name}/{file}" for name, files in classes.items() for file in files])
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return LabelledImages(source, np.arange(len(labels)), labels, list(classes))


def _numbers(folder: Path, classes: dict[str, list[str]]) -> list[int]:
    """Numbers of the classes among all subfolders, which do not depend on which classes are kept."""
    return list(map(subfolders(folder).index, classes))


def _describe(skipped: Counter[str]) -> str:
    """The number of files that are no images, in words; nothing where there are none."""
    if not skipped:
        return ""
    kinds = ", ".join(sorted(skipped, key=lambda kind: (-skipped[kind], kind))[:3]) + ", ..." * (len(skipped) > 3)
    count = skipped.total()
    return f"{count:,} {'file' if count == 1 else 'files'} skipped: no images ({kinds})"
