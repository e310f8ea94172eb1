"""The real datasets of a comparison: each opened once, and known by the images that it holds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from formulavision.util.errors import DownstreamError

if TYPE_CHECKING:
    from formulavision.comparison.config import ComparisonSettings
    from formulavision.data.downstream import Downstream, DownstreamSettings

__all__ = ["Datasets"]


class Datasets:
    """The downstreams of a comparison, and the images that its arms are pre-trained on.

    Raises:
        DownstreamError: one of them cannot be used as it is.
    """

    def __init__(self, settings: ComparisonSettings) -> None:
        self._opened: dict[str, Downstream] = {}
        self._digests: dict[tuple[str, bool], str] = {}
        for name, dataset in settings.downstreams.items():
            self._open(f"downstreams.{name}", dataset)
        for variant in settings.variants.values():
            if variant.arm.images is not None:
                self._open(f"arms.{variant.base}.images", variant.arm.images)

    def _open(self, path: str, settings: DownstreamSettings) -> None:
        from formulavision.data.downstream import open_downstream

        if _key(settings) not in self._opened:
            try:
                self._opened[_key(settings)] = open_downstream(settings)
            except DownstreamError as error:
                raise DownstreamError(f"{path}: {error}") from None

    def __getitem__(self, settings: DownstreamSettings) -> Downstream:
        return self._opened[_key(settings)]

    def digest(self, settings: DownstreamSettings, *, train_only: bool = False) -> str:
        """What tells one dataset from another, wherever it lies: its kind, its classes, and which images it holds.

        Args:
            settings: of the dataset.
            train_only: only its training images count, since no others are looked at.
        """
        key = _key(settings), train_only
        if key not in self._digests:
            opened = self._opened[key[0]]
            sides = [opened.train] if train_only else [opened.train, opened.test]
            content = " ".join([settings.kind, *(side.digest() for side in sides)])
            self._digests[key] = hashlib.sha256(content.encode()).hexdigest()[:16]
        return self._digests[key]


def _key(settings: DownstreamSettings) -> str:
    return settings.model_dump_json()
