"""Mixing of training images with pictures that a recipe draws: PixMix, in Pillow and torch, so on the CPU."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp

from formulavision.data.resizing import Interpolation, to_square
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.drawing import Drawer

__all__ = ["Mixing", "add", "multiply"]

_CHANGES = (
    *("AutoContrast", "Equalize", "PosterizeIncreasing", "Rotate", "SolarizeIncreasing"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)
"""timm's names of AugMix's operations without those that are like corruptions of CIFAR-10-C and ImageNet-C."""


class Mixing:
    """PixMix (Hendrycks et al., "PixMix: Dreamlike Pictures Comprehensively Improve Safety Measures", CVPR 2022).

    As in the published program (github.com/andyzoujm/pixmix): an image is changed with probability 0.5. Then come 0 to
    ``rounds`` rounds, each number equally likely. Each round adds or multiplies, with equal chance, either a changed
    copy of the image or a picture, with equal chance, and clips the result to 0..1. All rounds of an image have the
    same picture, an image of the recipe that is drawn for it, at a random place. Labels stay.

    Here pictures are images of a recipe, and the result is rounded to 8 bits. Changes are timm's: their angles and
    shifts are not rounded to whole degrees and pixels.

    Args:
        drawer: of the recipe; its images are at least ``crop`` x ``crop``, and larger ones are resized to ``resize``.
        rounds: largest number of rounds.
        beta: of the Beta distributions of :func:`coefficients`; the larger, the weaker the mixing.
        severity: largest level of a change, of 10.
        resize, crop, interpolation: as of :class:`formulavision.data.loading.Prepared`.
    """

    def __init__(
        self,
        drawer: Drawer,
        *,
        rounds: int,
        beta: float,
        severity: float,
        resize: int,
        crop: int,
        interpolation: Interpolation,
    ) -> None:
        self.drawer = drawer
        self.rounds = rounds
        self.beta = beta
        self.side = min(resize, drawer.recipe.canvas.size)
        self.crop = crop
        self.interpolation = interpolation
        hparams = {
            "magnitude_std": float("inf"),  # the level is uniform from 0 to the magnitude
            "translate_pct": 1 / 3,
            "img_mean": (0, 0, 0),
            "interpolation": Image.Resampling.BILINEAR,
        }
        self._changes: list[Any] = [AugmentOp(name, prob=1.0, magnitude=severity, hparams=hparams) for name in _CHANGES]

    def describe(self) -> str:
        """The pictures in one line."""
        size = self.drawer.recipe.canvas.size
        resized = f", resized to {self.side} x {self.side}" if self.side < size else ""
        return f"mixing: {self.drawer.recipe.facts()}{resized}"

    def sources(self, seed: int, keys: Sequence[tuple[int, int]]) -> list[list[torch.Tensor | None]]:
        """The source of each round of each image: its picture, uint8 [c, crop, crop], c being 1 or 3; None for a
        changed copy of the image.

        Args:
            seed: of the augmentation.
            keys: (epoch, index) of each image.
        """
        streams = [random_stream(seed, Stream.MIXING, *key, 1) for key in keys]
        drawn = [stream.random(stream.integers(self.rounds + 1)) < 0.5 for stream in streams]
        wanted = [number for number, rounds in enumerate(drawn) if rounds.any()]
        pictures = dict(zip(wanted, self._pictures([streams[number] for number in wanted]), strict=True))
        return [[pictures[number] if own else None for own in rounds] for number, rounds in enumerate(drawn)]

    def _pictures(self, streams: Sequence[np.random.Generator]) -> list[torch.Tensor]:
        if not streams:
            return []
        indices = [int(stream.integers(len(self.drawer))) for stream in streams]
        scenes = self.drawer.recipe.is_scene
        images = self.drawer.draw_scenes(indices).images if scenes else self.drawer.draw_batch(indices)[0]
        whole = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        whole = to_square(whole, self.side, self.crop, "squash", self.interpolation, (0, 0, 0))
        corners = [stream.integers(self.side - self.crop + 1, size=2).tolist() for stream in streams]
        return [
            image[:, top : top + self.crop, left : left + self.crop]
            for image, (top, left) in zip(whole, corners, strict=True)
        ]

    def mix(self, item: tuple[torch.Tensor, Sequence[torch.Tensor | None]]) -> torch.Tensor:
        """An image, mixed by as many rounds as it has sources. The random numbers are the global ones of Python.

        Args:
            item: the image, uint8 [c, crop, crop], c being 1 or 3, and its :meth:`sources`.

        Returns:
            uint8 [3, crop, crop].
        """
        image, sources = item
        image = image.expand(3, -1, -1)
        mixed = _unit(self._changed(image) if random.random() < 0.5 else image)
        for source in sources:
            other = _unit(self._changed(image) if source is None else source.expand(3, -1, -1))
            mixed = random.choice((add, multiply))(mixed, other, *coefficients(self.beta)).clamp(0, 1)
        return (mixed * 255).round().to(torch.uint8)

    def _changed(self, image: torch.Tensor) -> torch.Tensor:
        picture = random.choice(self._changes)(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _unit(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 255


def coefficients(beta: float) -> tuple[float, float]:
    """Random coefficients of an image and of its partner, as of the published program.

    Half of them are Beta(beta, 1) and Beta(1, beta), the others 1 + Beta(1, beta) and -Beta(1, beta).
    """
    if random.random() < 0.5:
        return random.betavariate(beta, 1), random.betavariate(1, beta)
    return 1 + random.betavariate(1, beta), -random.betavariate(1, beta)


def add(image: torch.Tensor, other: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """Sum of two images with values 0..1, taken as -1..1, with the coefficients a and b."""
    return (a * (2 * image - 1) + b * (2 * other - 1) + 1) / 2


def multiply(image: torch.Tensor, other: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """Product of two images with values 0..1, taken as 0..2, to the powers a and b."""
    return (2 * image) ** a * (2 * other).clamp(min=1e-37) ** b / 2
