"""Real datasets that a pre-trained model is fine-tuned and evaluated on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator, model_validator

from formulavision.config import Config, did_you_mean, parse
from formulavision.downstream_torchvision import TORCHVISION, open_torchvision
from formulavision.errors import DownstreamError
from formulavision.generator import random_stream

if TYPE_CHECKING:
    import torch

__all__ = ["Downstream", "DownstreamSettings", "LabelledImages", "open_downstream"]

_KINDS = ("folder", "digits", *TORCHVISION)
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_DIGITS_TEST_SHARE = 0.25

Labels = NDArray[np.int64]


class DownstreamSettings(Config):
    """Which downstream dataset, and how much of it."""

    kind: str = Field(description=f"one of {', '.join(_KINDS)}")
    root: Path | None = Field(
        None, description="the folder with train/ and val/ or test/; for torchvision's sets where they are kept"
    )
    train_per_class: int | None = Field(None, ge=1, description="training images a class; unset: all")
    test_per_class: int | None = Field(None, ge=1, description="test images a class; unset: all")
    subset_seed: int = Field(0, ge=0, lt=2**31, description="seed that chooses them; fewer are a part of more")
    download: bool = Field(True, description="whether one of torchvision's sets may be downloaded where it is absent")

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return _parts(data) if isinstance(data, str) else data

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in _KINDS:
            raise ValueError(f"{kind!r} is not allowed: must be one of {', '.join(_KINDS)}{did_you_mean(kind, _KINDS)}")
        return kind

    @model_validator(mode="after")
    def _root(self) -> DownstreamSettings:
        if self.kind == "folder" and self.root is None:
            raise ValueError("root: is missing: which folder? (folder:/path)")
        return self

    @classmethod
    def from_text(cls, text: str) -> DownstreamSettings:
        """Settings from ``folder:/path``, ``digits``, ``cifar10`` or ``cifar10:/root``.

        Raises:
            ConfigError: there is no such dataset.
        """
        return parse(cls, _parts(text), "downstream")


def _parts(text: str) -> dict[str, Any]:
    kind, colon, root = text.partition(":")
    return {"kind": kind, **({"root": Path(root).expanduser()} if colon and root else {})}


class LabelledImages:
    """One side (training or test) of a downstream dataset: index -> (uint8 tensor [3, h, w], label).

    Args:
        read: gives image ``i`` of the whole set as a PIL image or an array [h, w] or [h, w, 3].
        indices: which images of the whole set these are.
        labels: of the images that ``indices`` names.
        class_names: in the order of the labels.
    """

    def __init__(self, read: Callable[[int], Any], indices: Labels, labels: Labels, class_names: Sequence[str]) -> None:
        self.read = read
        self.indices = indices
        self.labels = labels
        self.class_names = list(class_names)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        import torch

        image = self.read(int(self.indices[index]))
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        elif image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), int(self.labels[index])


@dataclass(frozen=True)
class Downstream:
    """An opened downstream dataset.

    Attributes:
        name: what it was opened by (``cifar10``, ``folder:/path``).
        settings: as it was opened.
        train, test: its two sides, with the same classes.
    """

    name: str
    settings: DownstreamSettings
    train: LabelledImages
    test: LabelledImages

    @property
    def class_names(self) -> list[str]:
        return self.train.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def describe(self) -> str:
        """In one line, what it holds."""
        sides = f"{len(self.train):,} training and {len(self.test):,} test images"
        return f"{self.name}: {sides} of {self.num_classes} classes"

    def identity(self) -> dict[str, Any]:
        """What a run records about it, in plain values."""
        return {
            "name": self.name,
            **self.settings.model_dump(mode="json", exclude={"root", "download"}),
            "train_images": len(self.train),
            "test_images": len(self.test),
        }


def open_downstream(settings: DownstreamSettings | str) -> Downstream:
    """Open a dataset and check that it can be used, without decoding its images.

    Args:
        settings: the settings, or their text form (``folder:/path``, ``digits``, ``cifar10``, ``cifar10:/root``).

    Raises:
        ConfigError: there is no such kind of dataset.
        DownstreamError: the dataset is missing or cannot be used as it is.
    """
    if isinstance(settings, str):
        settings = DownstreamSettings.from_text(settings)
    name = settings.kind if settings.root is None else f"{settings.kind}:{settings.root}"
    if settings.kind == "folder":
        assert settings.root is not None
        train, test = _open_folder(settings.root)
    elif settings.kind == "digits":
        train, test = _open_digits()
    else:
        sides = open_torchvision(settings.kind, settings.root, download=settings.download)
        train, test = (LabelledImages(read, np.arange(len(labels)), labels, names) for read, labels, names in sides)
    return Downstream(
        name,
        settings,
        _subset(train, settings.train_per_class, settings.subset_seed, "train_per_class"),
        _subset(test, settings.test_per_class, settings.subset_seed, "test_per_class"),
    )


def _subset(images: LabelledImages, per_class: int | None, seed: int, setting: str) -> LabelledImages:
    if per_class is None:
        return images
    chosen = []
    for label, name in enumerate(images.class_names):
        of_class = np.flatnonzero(images.labels == label)
        if per_class > len(of_class):
            raise DownstreamError(f"{setting} is {per_class}: class '{name}' has only {len(of_class)} images")
        chosen.append(random_stream(seed, label).permutation(of_class)[:per_class])
    keep = np.sort(np.concatenate(chosen))
    return LabelledImages(images.read, images.indices[keep], images.labels[keep], images.class_names)


# A folder of images --------------------------------------------------------------------------------------------------


class _Files:
    """Reads image files by their index."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, index: int) -> Image.Image:
        file = self.files[index]
        try:
            with Image.open(file) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DownstreamError(f"{file}: cannot be decoded ({error}): replace or remove it") from None


def _open_folder(root: Path) -> tuple[LabelledImages, LabelledImages]:
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        raise DownstreamError(f"{root}: has no train/: it must hold train/ and val/ or test/, with a subfolder a class")
    if test_folder is None:
        raise DownstreamError(f"{root}: has no val/ or test/ beside train/: images to evaluate on must be there")
    train, test = _read_side(root / "train"), _read_side(test_folder)
    if train.class_names != test.class_names:
        other = sorted(set(train.class_names) ^ set(test.class_names))
        where = "train" if other[0] in train.class_names else test_folder.name
        raise DownstreamError(f"{root}: class '{other[0]}' is in {where}/ only: both sides must have the same classes")
    return train, test


def _read_side(folder: Path) -> LabelledImages:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DownstreamError(f"{folder}: holds no classes: it must have a subfolder a class")
    if len(names) == 1:
        raise DownstreamError(f"{folder}: holds the one class '{names[0]}': there must be at least two to tell apart")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(_images_in(folder / name))
        if not found:
            raise DownstreamError(f"{folder / name}: holds no images: put some in, or remove the class")
        files += found
        labels += [label] * len(found)
    _check_headers(files)
    return LabelledImages(_Files(files), np.arange(len(files)), np.array(labels, dtype=np.int64), names)


def _images_in(folder: Path) -> list[str]:
    return [
        os.path.join(parent, name)  # noqa: PTH118 - a Path for each of a million files takes seconds
        for parent, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in _SUFFIXES and not name.startswith(".")  # noqa: PTH122
    ]


def _check_headers(files: list[str]) -> None:
    bad = [(file, reason) for file in files if (reason := _wrong_with(file))]
    if bad:
        file, reason = bad[0]
        others = f", and {len(bad) - 1} more like it" if len(bad) > 1 else ""
        raise DownstreamError(f"{file}: {reason}{others}: replace or remove it")


def _wrong_with(file: str) -> str | None:
    try:
        if os.stat(file).st_size == 0:  # noqa: PTH116
            return "is empty (0 bytes)"
        with Image.open(file):
            return None
    except OSError as error:
        return error.strerror if error.strerror else "is not an image that can be read"
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"is not an image that can be read ({error})"


# scikit-learn's digits -----------------------------------------------------------------------------------------------


class _Arrays:
    """Gives images out of an array, uint8 [n, h, w]."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]


def _open_digits() -> tuple[LabelledImages, LabelledImages]:
    """1,797 handwritten digits of 8 x 8 pixels and 17 levels, out of scikit-learn's wheel; always split alike."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    read = _Arrays(np.round(digits.images * (255 / 16)).astype(np.uint8))
    labels = digits.target.astype(np.int64)
    sides = train_test_split(
        np.arange(len(labels)), test_size=_DIGITS_TEST_SHARE, stratify=labels, random_state=0, shuffle=True
    )
    train, test = (np.sort(side) for side in sides)
    names = [str(name) for name in digits.target_names]
    return LabelledImages(read, train, labels[train], names), LabelledImages(read, test, labels[test], names)
