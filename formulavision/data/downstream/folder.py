"""Any folder of images with a subfolder a class: divided into ``train/`` and others, or divided here."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from formulavision.data.downstream.files import labelled, list_classes, open_class_folders, subfolders, told
from formulavision.data.downstream.images import Sides
from formulavision.data.downstream.settings import DEFAULT_TEST_SHARE, SPLITS, DownstreamSettings
from formulavision.util.config import did_you_mean
from formulavision.util.errors import DownstreamError

__all__ = ["open_folder"]


def open_folder(root: Path, settings: DownstreamSettings) -> Sides:
    """The classes are the sorted names of the subfolders; images may lie deeper.

    A folder is divided where it holds ``train/`` and ``test/`` or ``val/``, by one of their usual names in any case.
    The tested one is ``test_split``; unset, it is ``test/``, or ``val/`` where ``test/`` has none of the classes. Any
    other folder, or ``train/`` alone, is divided here: ``test_share`` of each class, rounded, at least 1 image on each
    side, are tested on. Which ones follows from ``test_seed`` and the images' names alone.

    Raises:
        DownstreamError: the folder is missing or has not that layout, or an image cannot be used.
    """
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    splits = _splits(root)
    train, test = splits.get("train"), _tested(root, splits, settings)
    known = subfolders(root if train is None else root / train)
    for name in (*(settings.classes or ()), *settings.exclude):
        if name not in known:
            raise DownstreamError(f"{root}: has no class '{name}'{did_you_mean(name, known)}")
    if train is not None and test is not None:
        if settings.test_share is not None:
            raise DownstreamError(f"{root}: is divided into {train}/ and {test}/: test_share is for what is not")
        sides = open_class_folders(root / train, root / test, settings.keeps)
        others = [name for split, name in splits.items() if split != "train" and name != test]
        note = "; ".join(part for part in (f"tested on {test}/" if others else "", sides.note) if part)
        return replace(sides, note=note)
    return _divided(root if train is None else root / train, settings)


def _splits(root: Path) -> dict[str, str]:
    """Names of the folders that are parts of the dataset, by what they are for; none where it is not divided.

    A class may be called ``train``, too: of a dataset's parts, ``train/`` holds folders, or all folders are parts.
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
    # Where neither is, folders of other names are a mistake, and images alone are none: they have no labels.
    return next(with_labels, next((name for name, found in candidates.items() if found), None))


def _divided(folder: Path, settings: DownstreamSettings) -> Sides:
    if settings.test_split is not None:
        raise DownstreamError(f"{folder}: is not divided into train/ and others: test_split is for what is")
    share = DEFAULT_TEST_SHARE if settings.test_share is None else settings.test_share
    skipped: Counter[str] = Counter()
    classes = list_classes(folder, settings.keeps, skipped)
    train, test = {}, {}
    for name, files in classes.items():
        if len(files) < 2:
            raise DownstreamError(f"{folder / name}: holds one image: a class must have two, to train and to test on")
        count = min(max(round(share * len(files)), 1), len(files) - 1)
        tested = set(sorted(files, key=lambda file: _place(settings.test_seed, f"{name}/{file}"))[:count])
        train[name] = [file for file in files if file not in tested]
        test[name] = sorted(tested)
    numbers = list(map(subfolders(folder).index, classes))
    note = f"{share:.0%} of each class put aside to test on (test_share), by test_seed {settings.test_seed}"
    note = "; ".join(filter(None, (note, told(skipped))))
    return Sides(labelled(folder, train), labelled(folder, test), note=note, numbers=numbers)


def _place(seed: int, file: str) -> bytes:
    """Where an image stands in the order that a class is divided by: new images change nothing for others' order."""
    return hashlib.sha256(f"{seed}:{file}".encode("utf-8", "surrogateescape")).digest()
