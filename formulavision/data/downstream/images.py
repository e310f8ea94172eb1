"""Labelled images of a downstream dataset, whatever they are read from, and their division into training and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.pixels import to_rgb
from formulavision.util.errors import DownstreamError

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEFAULT_TEST_SHARE",
    "ArrayImages",
    "ImageSource",
    "LabelledImages",
    "Labels",
    "Sides",
    "as_pixels",
    "divide",
    "spread_evenly",
]

DEFAULT_TEST_SHARE = 0.2
"""Share of each class that is tested on where a dataset has no test images."""

Labels = NDArray[np.integer[Any]]
"""int64 [n]; with several labels an image int8 [n, classes]: 1 present, 0 absent, -1 not counted."""


class ImageSource(Protocol):
    """Reads the images of a whole dataset by their index."""

    def __call__(self, index: int, /) -> Image.Image | NDArray[np.uint8]:
        """Image ``index``: a PIL image, or uint8 [h, w] or [h, w, 3]."""

    def content(self, indices: NDArray[np.int64], /) -> bytes:
        """Bytes that differ where the images differ. No more than some hundred images are read for them."""


class ArrayImages:
    """An :class:`ImageSource` of an array, uint8 [n, h, w] or [n, h, w, 3], which may be a file mapped to memory."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __call__(self, index: int) -> NDArray[np.uint8]:
        return np.array(self.images[index])

    def content(self, indices: NDArray[np.int64]) -> bytes:
        return self.images[indices].tobytes()


class LabelledImages:
    """One side (training or test) of a downstream dataset: index -> (uint8 tensor [3, h, w], label).

    The label is an int; with several labels an image, an int8 tensor [classes] (1 present, 0 absent, -1 not counted).

    Args:
        source: reads image ``i`` of the whole dataset.
        indices: which images of the whole dataset these are, int64 [n].
        labels: of the images that ``indices`` names, int64 [n] or int8 [n, classes].
        classes: names of the classes, in the order of the labels.
        class_ids: names of the classes that are the same on every machine; None: ``classes``.
    """

    def __init__(
        self,
        source: ImageSource,
        indices: NDArray[np.int64],
        labels: Labels,
        classes: Sequence[str],
        class_ids: Sequence[str] | None = None,
    ) -> None:
        self.source = source
        self.indices = indices
        self.labels = labels
        self.classes = list(classes)
        self.class_ids = list(classes if class_ids is None else class_ids)

    def __repr__(self) -> str:
        return f"LabelledImages({len(self):,} images of {self.num_classes:,} classes)"

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def multi_label(self) -> bool:
        """Whether an image has several labels."""
        return self.labels.ndim == 2

    @property
    def target(self) -> str:
        """The target of an image: ``class``, ``labels`` (several), or ``semantic`` (a class a pixel)."""
        return "labels" if self.multi_label else "class"

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        import torch

        pixels = as_pixels(self.source(int(self.indices[index])))
        return pixels, torch.from_numpy(self.labels[index]) if self.multi_label else int(self.labels[index])

    def part(self, chosen: NDArray[Any]) -> LabelledImages:
        """Some of the images, by their positions (int64) or a mask (bool [n]); the classes stay the same."""
        return LabelledImages(self.source, self.indices[chosen], self.labels[chosen], self.classes, self.class_ids)

    def showing(self, label: int) -> NDArray[np.int64]:
        """Positions of the images of a class; with several labels, of those in which it is present: int64 [n]."""
        return np.flatnonzero(self.labels[:, label] == 1 if self.multi_label else self.labels == label)

    def digest(self) -> str:
        """A hash of the images, their labels and their classes; the same on every machine."""
        result = hashlib.sha256("\0".join(self.class_ids).encode())
        result.update(self.labels.tobytes())
        result.update(self.source.content(self.indices))
        return result.hexdigest()[:16]


def as_pixels(image: Image.Image | NDArray[np.uint8]) -> torch.Tensor:
    """An image of an :class:`ImageSource` as a uint8 tensor [3, h, w]."""
    import torch

    if isinstance(image, Image.Image):
        # Copied, because torch warns of memory that may not be written to.
        image = np.array(to_rgb(image))
    elif image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    # A view: torchvision resizes bytes that lie pixel by pixel twice as fast, to the same values.
    return torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)


@dataclass(frozen=True)
class Sides:
    """The training and the test images of a whole dataset.

    Attributes:
        train, test: the two sides, with the same classes.
        aliases: further names of the classes -> label.
        numbers: numbers of the classes in the whole dataset, by which ``train_per_class`` draws images; None: the
            labels.
        note: a remark for the line that describes the dataset: the tested part, the division, files left out.
        divided: whether the dataset had no test images, and :func:`divide` chose them.
    """

    train: LabelledImages
    test: LabelledImages
    aliases: Mapping[str, int] = field(default_factory=dict)
    numbers: Sequence[int] | None = None
    note: str = ""
    divided: bool = False


def divide(
    whole: LabelledImages, share: float, *, key: Callable[[int], bytes], name: str, note: str, **known: Any
) -> Sides:
    """Divide a dataset that has no test images: of each class ``share`` of the images, rounded, are tested on.

    On each side there is at least one image of each class. The tested images are those whose keys have the lowest
    SHA-256, so the order of the others stays where images are added.

    Args:
        whole: all images, one label each.
        key: gives bytes that identify image ``i``, with the seed of the division.
        name: of the dataset, for the error message.
        note, known: attributes of the result.

    Raises:
        DownstreamError: a class has one image only.
    """
    tested = np.zeros(len(whole), bool)
    for label in np.unique(whole.labels):
        of_class = whole.showing(label)
        if len(of_class) < 2:
            raise DownstreamError(
                f"{name}: class '{whole.classes[label]}' has one image: it must have two, one to train and one to "
                "test on"
            )
        order = sorted(of_class.tolist(), key=lambda index: hashlib.sha256(key(index)).digest())
        tested[order[: min(max(round(share * len(order)), 1), len(order) - 1)]] = True
    note = f"{share:.0%} of each class put aside to test on{note}"
    return Sides(whole.part(~tested), whole.part(tested), note=note, divided=True, **known)


def spread_evenly(indices: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """All of the indices, or ``most`` of them at even distances, from the first to the last."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.int64)]
