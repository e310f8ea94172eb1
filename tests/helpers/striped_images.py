"""Images to train on, in a module that processes of their own can import: several files are called conftest."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from formulavision.util.errors import FormulaVisionError


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


class TornStripes(Stripes):
    """Stripes, one of which cannot be read."""

    def __init__(self, torn: int, images: int = 48) -> None:
        super().__init__(images)
        self.torn = torn

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.torn:
            raise FormulaVisionError(f"image {index}: is torn")
        return super().__getitem__(index)


class SeveralLabels:
    """Dark and bright images with three labels each, the last of which does not always count."""

    num_classes = 3
    class_names = ("a", "b", "c")

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.tensor([index % 2, index % 3 == 0, (index % 5 == 0) - (index % 4 == 0)], dtype=torch.int8)
        return torch.full((3, 36, 36), 100 * (index % 2) + 50 + index, dtype=torch.uint8), labels


class SlowStripes(Stripes):
    """Stripes, one of which takes its time; a file ``reached`` says that it is waited for.

    Run as a program, ``striped_images.py OUT SLOW SECONDS SETTINGS`` (JSON), a model is pre-trained on them.
    """

    def __init__(self, file: Path, slow: int, seconds: float) -> None:
        super().__init__()
        self.file = file
        self.slow = slow
        self.seconds = seconds

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.slow:
            self.file.touch()
            time.sleep(self.seconds)
        return super().__getitem__(index)


if __name__ == "__main__":
    from formulavision.training import pretrain

    out, slow, seconds, settings = sys.argv[1:]
    images = SlowStripes(Path(out).with_name("reached"), int(slow), float(seconds))
    pretrain(images, out=out, settings=json.loads(settings))
