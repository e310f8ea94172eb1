"""Omniglot: handwritten characters, each drawn once by 20 people."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from formulavision.data.downstream.files import ImageFiles, images_in, subfolders
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.torchvision_sets import fetch
from formulavision.util.errors import DownstreamError

__all__ = ["open_omniglot"]

# Number of people who drew each character; a file is named after its drawer's number, from 1.
_DRAWERS = 20
# Images of drawers 1 to 15 are training images, those of the others test images.
_TRAIN_DRAWERS = 15
_DOWNLOADED = "omniglot-py"
_ALL = ("images_background", "images_evaluation")
_PARTS = (_ALL, ("images_background_small1",), ("images_background_small2",))
_FILES = "<alphabet>/<character>/*_<drawer>.png"
_LAYOUT = f"{_FILES}, or images_background/ and images_evaluation/ with them"


def open_omniglot(root: Path, download: bool) -> Sides:
    """Open Omniglot. Each character of each alphabet is a class, named ``<alphabet>/<character>``.

    Images show black strokes on white. ``root`` holds ``images_background/`` and ``images_evaluation/`` (964 and 659
    characters; one of them is enough),
    ``images_background_small1/`` or ``_small2/``, torchvision's ``omniglot-py/`` with the former two, or the alphabets
    themselves.

    The FractalDB paper does not say how it divides the images into training and test images. Here they are divided by
    the people who drew them, so that nobody's handwriting is in both: for each alphabet, the images of drawers 1 to 15
    are training images, and those of drawers 16 to 20 are test images. ``train_per_class`` takes fewer training images
    per character.

    Raises:
        DownstreamError: the dataset is absent and cannot be downloaded, has another layout, or an image cannot be used.
    """
    folders = _folders(root)
    if not folders:
        parts = [{"background": background} for background in (True, False)]
        fetch("omniglot", "Omniglot", root, parts, download=download, layout=_LAYOUT)
        folders = _folders(root)
    return _read(root, folders)


def _folders(root: Path) -> list[str]:
    """Folders that hold alphabets, relative to ``root``; none where the dataset is absent."""
    downloaded = [f"{_DOWNLOADED}/{part}" for part in _ALL if (root / _DOWNLOADED / part).is_dir()]
    if len(downloaded) == len(_ALL):
        return downloaded
    for parts in _PARTS:
        found = [part for part in parts if (root / part).is_dir()]
        if found:
            return found
    return [] if next(root.glob("*/*/*_*.png"), None) is None else ["."]


def _read(root: Path, folders: list[str]) -> Sides:
    names: list[str] = []
    labels: list[int] = []
    files: list[str] = []
    known_as: list[str] = []
    drawers: list[int] = []
    for folder in folders:
        for name in _characters(root / folder):
            found = images_in(root / folder / name)
            of_class = [_drawer(root / folder / name / file) for file in found]
            if not of_class or not min(of_class) <= _TRAIN_DRAWERS < max(of_class):
                raise DownstreamError(
                    f"{root / folder / name}: holds {len(found)} images: it must hold those of {_DRAWERS} drawers, "
                    f"as {_FILES}"
                )
            labels += [len(names)] * len(found)
            names.append(name)
            files += [f"{folder}/{name}/{file}" for file in found]
            known_as += [f"{name}/{file}" for file in found]
            drawers += of_class
    if len(set(names)) < max(2, len(names)):
        raise DownstreamError(f"{root}: must hold at least two characters, none of them twice, as {_FILES}")
    whole = LabelledImages(ImageFiles(root, files, known_as), np.arange(len(files)), np.array(labels), names)
    trained = np.array(drawers) <= _TRAIN_DRAWERS
    return Sides(whole.part(trained), whole.part(~trained))


def _characters(folder: Path) -> list[str]:
    return [f"{alphabet}/{character}" for alphabet in subfolders(folder) for character in subfolders(folder / alphabet)]


def _drawer(file: Path) -> int:
    number = file.stem.rpartition("_")[2]
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= _DRAWERS):
        raise DownstreamError(f"{file}: is not named after its drawer, 1 to {_DRAWERS}, as 0001_01.png is")
    return int(number)
