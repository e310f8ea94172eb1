"""Settings of a downstream dataset: its kind, its place, its division, and which of its classes and images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from formulavision.data.downstream.torchvision_sets import TORCHVISION
from formulavision.util.config import Config, did_you_mean, parse, user_path
from formulavision.util.errors import ConfigError

__all__ = ["CORRUPTED", "KINDS", "PYTHON", "SEGMENTATION", "SPLITS", "DownstreamSettings", "read_classes"]


SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Usual names of the parts of a divided folder, in lower case -> the part."""

SEGMENTATION = ("masks", "voc2012-masks", "ade20k", "cityscapes", "oxfordiiitpet-masks")
"""Kinds of datasets whose images have masks: a class a pixel."""

CORRUPTED = "corrupted"
"""Kind of test images that are corrupted in several ways, each with five severities."""

KINDS = ("folder", "digits", "imagenet", "places365", "voc2012", "omniglot", *TORCHVISION, *SEGMENTATION, CORRUPTED)
PYTHON = "python"
"""Kind of a dataset that is an object of a Python program."""

_NEED_ROOT = ("folder", "imagenet", "masks", "ade20k", "cityscapes", CORRUPTED)


class DownstreamSettings(Config):
    """A downstream dataset, and which of its classes and images are used.

    A file that ``classes`` or ``exclude`` names is read when the settings are made; the settings hold its content.
    """

    kind: str = Field(description=f"one of {', '.join(KINDS)}")
    root: Path | None = Field(
        default=None,
        description="folder that holds the dataset, or that it is downloaded into; unset: the user's cache folder",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="classes to keep, in the order of their labels: names (or wnids), or a text file with one a line; "
        "for kind masks the names of the values 0, 1, 2 ..., for arrays of kind corrupted those of the labels",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="classes to leave out: names (or wnids), or a text file with one a line",
        json_schema_extra={"neutral": []},
    )
    ignored: int = Field(
        default=255,
        ge=0,
        le=65535,
        description="value of a mask's pixels that count neither in training nor in metrics, for kind masks",
        json_schema_extra={"neutral": 255},
    )
    test_split: Literal["val", "test"] | None = Field(
        default=None,
        description="part of a folder to test on; unset: test, or val where test has no labels",
        json_schema_extra={"neutral": None},
    )
    test_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of each class to test on, for a folder without test images; unset: 0.2",
        json_schema_extra={"neutral": None},
    )
    test_seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="seed of the choice of these test images",
        json_schema_extra={"neutral": 0},
    )
    train_per_class: int | None = Field(default=None, ge=1, description="training images a class; unset: all")
    test_per_class: int | None = Field(default=None, ge=1, description="test images a class; unset: all")
    subset_seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="seed that chooses train_per_class and test_per_class images; fewer are a part of more",
    )
    download: bool | None = Field(
        default=None, description="whether an absent dataset may be downloaded; unset: if it has at most 200 MB"
    )

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        if isinstance(data, str | Path):
            return _parts(str(data))
        if not isinstance(data, Mapping | DownstreamSettings):
            raise ValueError(
                f"a {type(data).__name__} is not allowed here: must be the name of a dataset, a folder, or a mapping "
                "of settings"
            )
        return data

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            if kind == PYTHON:
                raise ValueError("was a dataset of a Python program: give the dataset again")
            if "/" in kind:
                raise ValueError(f"{kind}: no such folder")
            raise ValueError(f"{kind!r} is not allowed: must be one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
        return kind

    @field_validator("test_split", mode="before")
    @classmethod
    def _usual_name(cls, value: Any) -> Any:
        return SPLITS.get(value.lower(), value) if isinstance(value, str) else value

    @field_validator("classes", "exclude", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return read_classes(user_path(value))
        if isinstance(value, list):  # YAML reads the names 1 and 2 as numbers
            return [str(name) if type(name) is int else name for name in value]
        return value

    @field_validator("classes", "exclude")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError(f"names '{Counter(classes).most_common(1)[0][0]}' more than once")
        return classes

    @model_validator(mode="after")
    def _root(self) -> DownstreamSettings:
        if self.kind in _NEED_ROOT and self.root is None:
            raise ValueError(f"root: is missing: which folder? ({self.kind}:/path)")
        given = [name for name in ("test_split", "test_share", "test_seed") if getattr(self, name)]
        if self.kind == "masks":
            given = [name for name in given if name != "test_split"]
        if self.kind != "folder" and given:
            raise ValueError(f"{given[0]}: is for kind folder: {self.kind} has test images of its own")
        if self.kind == CORRUPTED and self.train_per_class is not None:
            raise ValueError("train_per_class: corrupted has test images only: leave it out")
        if self.ignored != 255 and self.kind != "masks":
            raise ValueError("ignored: is for kind masks: no other kind of dataset has values to choose")
        if self.kind in SEGMENTATION:
            parts = ["exclude", "train_per_class", "test_per_class", *(["classes"] if self.kind != "masks" else [])]
            if given := [name for name in parts if getattr(self, name)]:
                raise ValueError(f"{given[0]}: is not for masks, which have a class a pixel: leave it out")
        return self

    @property
    def target(self) -> Literal["class", "labels", "semantic"]:
        """The target of the dataset's images; see :attr:`formulavision.data.downstream.Downstream.target`."""
        return "semantic" if self.kind in SEGMENTATION else "labels" if self.kind == "voc2012" else "class"

    def keeps(self, name: str) -> bool:
        """Whether a class is used: it is in ``classes`` (if given) and not in ``exclude``."""
        return (self.classes is None or name in self.classes) and name not in self.exclude

    @classmethod
    def from_text(cls, text: str) -> DownstreamSettings:
        """Settings from text: a folder's path, ``folder:/path``, ``imagenet:/path``, ``digits``, ``cifar10``,
        ``cifar10:/root``. A path whose folder holds ``images/`` and ``masks/`` is of kind ``masks``.

        Raises:
            ConfigError: there is no such dataset.
        """
        return parse(cls, _parts(text), "downstream")


def _parts(text: str) -> dict[str, Any]:
    kind, colon, root = text.partition(":")
    if kind not in KINDS and text and (folder := user_path(text)).is_dir():
        masked = (folder / "images").is_dir() and (folder / "masks").is_dir()
        return {"kind": "masks" if masked else "folder", "root": folder}
    if kind not in KINDS:
        problem = "is a file: give a folder" if user_path(text).is_file() else "there is no such folder or dataset"
        raise ConfigError(
            f"downstream: '{text}': {problem}{did_you_mean(kind, KINDS)}; datasets are {', '.join(KINDS)}"
        )
    return {"kind": kind, **({"root": user_path(root)} if colon and root else {})}


def read_classes(file: Path) -> list[str]:
    """The names in a text file with one class a line; ``#`` begins a comment.

    Raises:
        ValueError: the file cannot be read, or is not text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ValueError(f"{file}: {reason}: must be a text file with one class a line") from None
    return [name for line in lines if (name := line.partition("#")[0].strip())]
