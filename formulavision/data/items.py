"""The items of a dataset, an image and its target each: what they may be, and checks of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torchvision import tv_tensors

from formulavision.recipes.targets import IGNORED, IGNORED_16
from formulavision.util.errors import ConfigError

__all__ = [
    "ImageDataset",
    "Transform",
    "apply_transform",
    "as_mask",
    "check_class_labels",
    "check_labels",
    "check_mask",
    "check_targets",
    "has_tensors",
    "target_of",
]

Transform = Callable[..., Any]
"""A user's transform of a training image: uint8 [c, h, w] -> uint8 [c, h', w']. Of an image with a mask: (image, mask),
torchvision's ``tv_tensors.Image`` and ``tv_tensors.Mask`` -> (image, mask), so that its transforms move both alike."""

_CHECKED = 32


class ImageDataset(Protocol):
    """A dataset to train on: index -> (uint8 tensor [c, h, w], target); c is 1 or 3 and the same for all images.

    The target is a label (int), several labels (int8 tensor [classes]) or a mask (tensor [h, w], see
    :func:`target_of`).
    """

    @property
    def num_classes(self) -> int: ...
    @property
    def classes(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[torch.Tensor, Any]: ...


def target_of(dataset: ImageDataset) -> str:
    """The target of a dataset: its attribute ``target``, or that of its first item.

    A number is one class (``class``), a tensor [classes] several labels (``labels``), a tensor [h, w] a mask
    (``semantic``): the class of each pixel, of which 255 is ignored where the tensor is uint8, and 65535 where it is
    int32 or int64. A mapping has boxes (``objects``).
    """
    named = getattr(dataset, "target", None)
    if isinstance(named, str):
        return named
    target = dataset[0][1]
    return "objects" if isinstance(target, Mapping) else ("class", "labels", "semantic")[np.ndim(target)]


def as_mask(mask: torch.Tensor) -> torch.Tensor:
    """A mask as uint8, if it is, otherwise as int32."""
    return mask if mask.dtype == torch.uint8 else mask.to(torch.int32)


def check_mask(image: torch.Tensor, mask: Any, classes: int) -> torch.Tensor:
    """The mask of an image, uint8 [h, w] with 255 for ignored pixels, or int32 with 65535.

    Args:
        image: uint8 [c, h, w].
        mask: integers [h, w].
        classes: number of classes.

    Raises:
        ConfigError: the mask has another size or type, or a value that is no class.
    """
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2 or mask.is_floating_point() or mask.dtype == torch.bool:
        raise ConfigError(f"masks: must be tensors of integers [h, w], found {_kind(mask)}")
    if mask.shape != image.shape[1:]:
        raise ConfigError(f"masks: a mask is {_size(mask)} pixels, and its image {_size(image)}: sizes must be equal")
    ignored = IGNORED if mask.dtype == torch.uint8 else IGNORED_16
    values = mask.numpy()
    wrong = values[((values < 0) | (values >= classes)) & (values != ignored)]
    if wrong.size:
        raise ConfigError(
            f"masks: a pixel has the value {wrong.flat[0]}, and there are {classes} classes: must be 0 to "
            f"{classes - 1}, or {ignored} for ignored pixels"
        )
    return as_mask(mask)


def check_class_labels(labels: Sequence[Any], classes: int, *, unknown: bool = False) -> torch.Tensor:
    """The labels of images with one class each, int64 [b].

    Args:
        labels: whole numbers, or tensors or arrays with one.
        classes: number of classes.
        unknown: labels may be -1, too.

    Raises:
        ConfigError: a label is no whole number, or no class.
    """
    found = torch.tensor(labels)
    if found.is_floating_point():
        raise ConfigError(f"data: items have labels of {found.dtype}: must be whole numbers")
    if outside := [label for label in found.tolist() if not (-1 if unknown else 0) <= label < classes]:
        raise ConfigError(f"data: an item has the label {outside[0]}: there are {classes} classes, from 0")
    return found.to(torch.int64)


def check_labels(labels: Any, classes: int) -> torch.Tensor:
    """The labels of an image with several: int8 [classes], 1 present, 0 absent, -1 not counted.

    Raises:
        ConfigError: they are something else, or not as many as there are classes.
    """
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.shape != (classes,):
        raise ConfigError(
            f"labels: must be integers [{classes}], one for each class, in a tensor, found {_kind(labels)}"
        )
    if labels.min() < -1 or labels.max() > 1:
        raise ConfigError(
            f"labels: an image has {labels.tolist()}: must be 1 (present), 0 (absent) or -1 (not counted) of each class"
        )
    return labels.to(torch.int8)


def has_tensors(dataset: Any) -> bool:
    """Whether the first item of a dataset is (uint8 [c, h, w], target), c being 1 or 3: others are to be converted."""
    item = dataset[0] if len(dataset) else None
    return isinstance(item, tuple | list) and len(item) == 2 and _is_image(item[0])


def _is_image(image: Any) -> bool:
    tensor = isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3
    return tensor and len(image) in (1, 3)


def check_targets(dataset: ImageDataset, *, learnt: bool = True) -> None:
    """Check some of a dataset's masks, or of its images' several labels, at even distances.

    Args:
        learnt: a model learns from them. Then the masks must have two classes at least; all are read if those looked at
            have one.

    Raises:
        ConfigError: as of :func:`check_mask` and :func:`check_labels`; or nothing counts; or there is nothing to learn.
    """
    target, classes = target_of(dataset), len(dataset.classes)
    if target not in ("labels", "semantic"):
        return
    found: set[int] = set()
    looked_at = np.unique(np.linspace(0, len(dataset) - 1, _CHECKED).astype(int)).tolist()
    for index in looked_at:
        found |= _counted(dataset, index, target, classes)
    if not found:
        what = "pixels of the masks" if target == "semantic" else "labels of the images"
        raise ConfigError(f"{target}: all {what} that were looked at are ignored: there is nothing to learn")
    if not learnt or target == "labels":
        return
    others = (index for index in range(len(dataset)) if index not in looked_at)
    while len(found) < 2:
        if (index := next(others, None)) is None:
            only = dataset.classes[found.pop()]
            raise ConfigError(
                f"masks: all pixels are '{only}' or ignored: there is nothing to learn; masks of 0 and 255 must hold 0 "
                "and 1, since 255 is ignored"
            )
        found |= _counted(dataset, index, target, classes)


def _counted(dataset: ImageDataset, index: int, target: str, classes: int) -> set[int]:
    """The labels or the classes of pixels that count in an item, which is checked."""
    image, found = dataset[index]
    if target == "labels":
        return set(np.flatnonzero(check_labels(found, classes) >= 0).tolist())
    mask = check_mask(image, found, classes)
    return set(mask.unique().tolist()) - {IGNORED if mask.dtype == torch.uint8 else IGNORED_16}


def _size(image: torch.Tensor) -> str:
    return " x ".join(str(side) for side in image.shape[-2:])


def apply_transform(transform: Transform, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
    """A user's transform of an image, uint8 [c, h, w], and of its mask, if the target is one; both are not changed.

    Raises:
        ConfigError: the result is no uint8 tensor [c, h', w'] with c 1 or 3, or no mask of this size.
    """
    has_mask = isinstance(target, torch.Tensor) and target.ndim == 2
    if has_mask:
        result: Any = transform(tv_tensors.Image(image.clone()), tv_tensors.Mask(target.clone()))
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise ConfigError(f"transform: must give (image, mask) for an image and its mask, gave {_kind(result)}")
        result, target = result
        if not isinstance(target, torch.Tensor) or target.ndim != 2 or target.is_floating_point():
            raise ConfigError(f"transform: must give a mask [h, w] of integers, gave {_kind(target)}")
        target = target.as_subclass(torch.Tensor)
    else:
        result = transform(image.clone())
    if not isinstance(result, torch.Tensor):
        raise ConfigError(f"transform: must give a uint8 tensor [c, h, w], gave {_kind(result)}")
    if result.dtype != torch.uint8 or result.ndim != 3 or len(result) not in (1, 3) or 0 in result.shape:
        raise ConfigError(f"transform: must give a uint8 tensor [c, h, w], c being 1 or 3, gave {_kind(result)}")
    if has_mask and target.shape != result.shape[1:]:
        raise ConfigError(f"transform: gives an image of {_size(result)} pixels with a mask of {_size(target)}")
    return result.as_subclass(torch.Tensor), target  # torchvision's transforms may give a tv_tensors.Image


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"
