"""Random changes of single training images that timm makes with Pillow, so on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import ColorJitter

__all__ = ["Augmentation"]


class Augmentation:
    """Random changes of training images. Their random numbers are the global ones of Python, numpy and torch.

    The order is that of timm's ``create_transform``: a resized crop, flips (which are not made here), RandAugment,
    colour jitter.

    Args:
        crop: side of the resulting images in pixels.
        area: smallest and largest share of an image's area that a resized crop takes, of an aspect ratio of 3/4 to 4/3
            (timm's RandomResizedCropAndInterpolation); None: no resized crop.
        rand_augment: RandAugment in timm's words, such as ``rand-m9-mstd0.5-inc1``; None: none.
        color_jitter: largest relative change of brightness, contrast and saturation; 0: none.
        interpolation: of all resizing and turning: bilinear or bicubic.
        fill: red, green and blue of pixels that RandAugment moves in from outside, 0 to 255.
    """

    def __init__(
        self,
        *,
        crop: int,
        area: tuple[float, float] | None,
        rand_augment: str | None,
        color_jitter: float,
        interpolation: str,
        fill: Sequence[int],
    ) -> None:
        self._crop: Any = None
        if area is not None:
            self._crop = RandomResizedCropAndInterpolation(crop, scale=area, interpolation=interpolation)
        self._changes: list[Any] = []
        if rand_augment is not None:
            # As in timm's create_transform.
            words = {
                "translate_const": int(crop * 0.45),
                "img_mean": tuple(fill),
                "interpolation": Image.Resampling[interpolation.upper()],
            }
            self._changes.append(rand_augment_transform(rand_augment, words))
        if color_jitter:
            self._changes.append(ColorJitter(color_jitter, color_jitter, color_jitter))

    @property
    def crops(self) -> bool:
        """Whether images are cropped and resized at random."""
        return self._crop is not None

    @property
    def changes(self) -> bool:
        """Whether cropped images are changed."""
        return bool(self._changes)

    def cut(self, image: torch.Tensor) -> torch.Tensor:
        """A random part of an image, uint8 [c, h, w], resized to uint8 [c, crop, crop]; c is 1 or 3."""
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        return _tensor(self._crop(Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)))

    def change(self, image: torch.Tensor) -> torch.Tensor:
        """A cropped image, uint8 [c, crop, crop], changed by RandAugment and colour jitter: uint8 [3, crop, crop]."""
        picture = Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
        for change in self._changes:
            picture = change(picture)
        return _tensor(picture)


def _tensor(picture: Image.Image) -> torch.Tensor:
    pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
