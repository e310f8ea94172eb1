"""Images to train on, in a module that processes of their own can import: several files are called conftest."""

from __future__ import annotations

import torch


class Stripes:
    """Images of four classes that a small model tells apart: noise with a bright stripe, the class says where."""

    num_classes = 4
    class_names = ("left", "inner left", "inner right", "right")

    def __init__(self, images: int = 48, channels: int = 1, size: int = 32) -> None:
        self.images = images
        self.channels = channels
        self.size = size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = index % 4
        random = torch.Generator().manual_seed(index)
        shape = (self.channels, self.size, self.size)
        image = torch.randint(0, 100, shape, generator=random, dtype=torch.uint8)
        width = self.size // 4
        image[:, :, label * width : (label + 1) * width] += 100
        return image, label
