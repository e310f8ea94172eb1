"""Which downstream dataset, and how much of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from formulavision.data.downstream.torchvision_sets import TORCHVISION
from formulavision.util.config import Config, did_you_mean, parse, user_path

__all__ = ["KINDS", "DownstreamSettings"]

KINDS = ("folder", "digits", "imagenet", "places365", "voc2012", "omniglot", *TORCHVISION)
_NEED_ROOT = ("folder", "imagenet")


class DownstreamSettings(Config):
    """Which downstream dataset, and how much of it.

    ``classes`` given as a path is read when the settings are made, so that they say what they stand for.
    """

    kind: str = Field(description=f"one of {', '.join(KINDS)}")
    root: Path | None = Field(
        None, description="the folder that holds it; for what can be downloaded, where it is kept; unset: the cache"
    )
    classes: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="keep these only, label i is the i-th of them: names (or wnids), or a text file with one a line",
    )
    train_per_class: int | None = Field(None, ge=1, description="training images a class; unset: all")
    test_per_class: int | None = Field(None, ge=1, description="test images a class; unset: all")
    subset_seed: int = Field(0, ge=0, lt=2**31, description="seed that chooses them; fewer are a part of more")
    download: bool = Field(True, description="whether the dataset may be downloaded where it is absent")

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return _parts(data) if isinstance(data, str) else data

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not allowed: must be one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
        return kind

    @field_validator("classes", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return _read_classes(user_path(value))
        if isinstance(value, list):  # of names that are numbers, which YAML reads as such
            return [str(name) if type(name) is int else name for name in value]
        return value

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError(f"names '{Counter(classes).most_common(1)[0][0]}' more than once")
        return classes

    @model_validator(mode="after")
    def _root(self) -> DownstreamSettings:
        if self.kind in _NEED_ROOT and self.root is None:
            raise ValueError(f"root: is missing: which folder? ({self.kind}:/path)")
        return self

    @classmethod
    def from_text(cls, text: str) -> DownstreamSettings:
        """Settings from ``folder:/path``, ``imagenet:/path``, ``digits``, ``cifar10`` or ``cifar10:/root``.

        Raises:
            ConfigError: there is no such dataset.
        """
        return parse(cls, _parts(text), "downstream")


def _parts(text: str) -> dict[str, Any]:
    kind, colon, root = text.partition(":")
    return {"kind": kind, **({"root": user_path(root)} if colon and root else {})}


def _read_classes(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ValueError(f"{file}: {reason}: must be a text file with one class a line") from None
    return [name for line in lines if (name := line.partition("#")[0].strip())]
