"""The two sides of a downstream dataset, whatever it is read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.pixels import to_rgb

if TYPE_CHECKING:
    import torch

__all__ = ["LabelledImages", "Labels", "Reader", "Sides"]

Labels = NDArray[np.integer[Any]]
"""int64 [n]; of a dataset with several labels an image int8 [n, classes]: 1 present, 0 absent, -1 not to be counted."""


class Reader(Protocol):
    """Gives images of a set by their index."""

    def __call__(self, index: int, /) -> Image.Image | NDArray[np.uint8]:
        """Image ``index``: a PIL image, or uint8 [h, w]."""

    def content(self, indices: NDArray[np.int64], /) -> bytes:
        """What tells these images from others of the same kind, without reading more than some hundred of them."""


class LabelledImages:
    """One side (training or test) of a downstream dataset: index -> (uint8 tensor [3, h, w], label).

    The label is an int; with several labels an image, an int8 tensor [classes] (1 present, 0 absent, -1 not counted).

    Args:
        read: gives image ``i`` of the whole set.
        indices: which images of the whole set these are, int64 [n].
        labels: of the images that ``indices`` names, int64 [n] or int8 [n, classes].
        class_names: in the order of the labels.
        class_ids: what the classes are known by on every machine, where their names may differ; None: the names.
    """

    def __init__(
        self,
        read: Reader,
        indices: NDArray[np.int64],
        labels: Labels,
        class_names: Sequence[str],
        class_ids: Sequence[str] | None = None,
    ) -> None:
        self.read = read
        self.indices = indices
        self.labels = labels
        self.class_names = list(class_names)
        self.class_ids = list(class_names if class_ids is None else class_ids)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether an image has several labels."""
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        import torch

        image = self.read(int(self.indices[index]))
        if isinstance(image, Image.Image):
            # Copied, because torch warns of memory that may not be written to.
            image = np.array(image if image.mode == "RGB" else to_rgb(image))
        elif image.ndim == 2:
            image = np.repeat(image[:, :, None], 3, axis=2)
        # A view: bytes that lie pixel by pixel are resized twice as fast, to the same values.
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        return pixels, torch.from_numpy(self.labels[index]) if self.multi_label else int(self.labels[index])

    def showing(self, label: int) -> NDArray[np.int64]:
        """Positions of the images of a class, or of those in which it is present, int64 [n]."""
        return np.flatnonzero(self.labels[:, label] == 1 if self.multi_label else self.labels == label)

    def digest(self) -> str:
        """A hash of which images these are, of their labels and of their classes; the same on every machine."""
        result = hashlib.sha256("\0".join(self.class_ids).encode())
        result.update(self.labels.tobytes())
        result.update(self.read.content(self.indices))
        return result.hexdigest()[:16]


@dataclass(frozen=True)
class Sides:
    """A whole dataset, as its kind reads it.

    Attributes:
        train, test: its sides, with the same classes.
        aliases: further names of the classes -> label.
        numbers: of the classes in the dataset that these are a part of, which images are chosen by; None: the labels.
        note: what its kind has decided or left out, for the line that says what was opened.
    """

    train: LabelledImages
    test: LabelledImages
    aliases: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    numbers: Sequence[int] | None = None
