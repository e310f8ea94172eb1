"""Images and masks at the size that a model sees: resized to a square, and cropped centrally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

from formulavision.recipes.targets import IGNORED, IGNORED_16

__all__ = ["Interpolation", "ResizeMode", "centre", "mask_to_square", "to_square"]

ResizeMode = Literal["squash", "center", "border"]
Interpolation = Literal["bilinear", "bicubic"]


def to_square(
    images: torch.Tensor,
    resize: int,
    crop: int,
    mode: ResizeMode,
    interpolation: Interpolation,
    fill: Sequence[int],
) -> torch.Tensor:
    """Images at the size from which crops are cut, always with antialiasing.

    The central crop of the result (see :func:`centre`) is what timm's ``create_transform`` gives with the same
    ``crop_mode`` and ``interpolation`` and with ``crop_pct`` = crop / resize. Pillow resizes as it does there, so that
    pixels are equal; only squashing bilinearly is torchvision's for tensors, whose values differ from Pillow's by at
    most 2 of 255. On other devices than the CPU torchvision resizes in every mode.

    Args:
        images: uint8 [n, c, h, w] or [c, h, w].
        resize: side of the result in pixels.
        crop: side of the central crop, on which the rounding of odd margins depends.
        mode: ``squash``: both sides become ``resize``, whatever the aspect ratio. ``center``: the shorter side becomes
            ``resize``, and the longer one is cut. ``border``: the longer side becomes ``resize``, and the rest is
            filled.
        fill: red, green and blue of the border, 0 to 255.

    Returns:
        uint8, of the same dimensions, ``resize`` x ``resize``; of three channels with ``border`` on the CPU.
    """
    size = [resize, resize]
    if images.device.type != "cpu" or (mode == "squash" and interpolation == "bilinear"):
        if list(images.shape[-2:]) == size:
            return images
        return functional.resize(images, size, InterpolationMode(interpolation), antialias=True)
    if images.ndim == 4:
        return torch.stack([to_square(image, resize, crop, mode, interpolation, fill) for image in images])
    size = _resized_sides(images, resize, mode)
    resized = _resized_by_pillow(images, size, interpolation)
    border = torch.tensor(fill, dtype=torch.uint8).view(3, 1, 1) if mode == "border" else None
    return _cut_square(resized, resize, crop, border)


def mask_to_square(masks: torch.Tensor, resize: int, crop: int, mode: ResizeMode) -> torch.Tensor:
    """Masks at the size from which crops are cut, moved as their images are by :func:`to_square`.

    A pixel has the value of the pixel at its centre (nearest neighbour). Pixels of a border are ignored.

    Args:
        masks: uint8 or int32 [n, 1, h, w] or [1, h, w].
        resize, crop, mode: as of :func:`to_square`.

    Returns:
        Of the same type and dimensions, ``resize`` x ``resize``.
    """
    resized = masks
    for dim, side in zip((-2, -1), _resized_sides(masks, resize, mode), strict=True):
        # In whole numbers: torchvision's "nearest" is half a pixel beside the image's grid, and its "nearest-exact"
        # rounds a centre that lies between two pixels by chance.
        places = (2 * torch.arange(side, device=masks.device) + 1) * masks.shape[dim] // (2 * side)
        resized = resized.index_select(dim, places)
    ignored = masks.new_tensor(IGNORED if masks.dtype == torch.uint8 else IGNORED_16)
    return _cut_square(resized, resize, crop, ignored if mode == "border" else None)


def _resized_sides(images: torch.Tensor, resize: int, mode: ResizeMode) -> list[int]:
    """Height and width of images before a square is cut out of them, or put around them."""
    height, width = images.shape[-2:]
    if mode == "center":
        # As torchvision's Resize(int) rounds.
        return [max(resize, int(resize * side / min(height, width))) for side in (height, width)]
    if mode == "border":
        return [max(1, round(side / (max(height, width) / resize))) for side in (height, width)]
    return [resize, resize]


def _cut_square(images: torch.Tensor, resize: int, crop: int, border: torch.Tensor | None) -> torch.Tensor:
    """The square from which crops are cut; larger than the images where there is a ``border``, its value."""
    height, width = images.shape[-2:]
    top, left = (_start_of_square(side, resize, crop) for side in (height, width))
    if border is None:
        return images[..., top : top + resize, left : left + resize]
    channels = max(images.shape[-3], border.numel())
    square = border.expand(*images.shape[:-3], channels, resize, resize).clone()
    square[..., -top : height - top, -left : width - left] = images
    return square


def centre(images: torch.Tensor, crop: int) -> torch.Tensor:
    """The central crop of square images [n, c, side, side], as torchvision's ``CenterCrop`` rounds."""
    start = _half(images.shape[-1] - crop)
    return images[:, :, start : start + crop, start : start + crop].contiguous()


def _half(margin: int) -> int:
    return round(margin / 2)


def _start_of_square(side: int, resize: int, crop: int) -> int:
    """Start of the square on a side of an image, in pixels; negative where the square is larger than the image.

    The central crop of the square is the image's own central crop, to the pixel.
    """
    first = _half(side - crop) if side >= crop else -((crop - side) // 2)
    return first - _half(resize - crop)


def _resized_by_pillow(image: torch.Tensor, size: Sequence[int], interpolation: Interpolation) -> torch.Tensor:
    """An image uint8 [c, h, w] at [height, width], c is 1 or 3."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)
    resized = picture.resize((size[1], size[0]), Image.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(resized).reshape(*size, -1)).permute(2, 0, 1)
