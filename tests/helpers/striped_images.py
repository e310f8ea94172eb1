"""Images to train on, in a module that processes of their own can import: several files are called conftest."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from formulavision.util.errors import FormulaVisionError


class Stripes:
    """Images of four classes that a small model tells apart: noise with a bright stripe, the class says where."""

    num_classes = 4
    classes = ("left", "inner left", "inner right", "right")

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
    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.tensor([index % 2, index % 3 == 0, (index % 5 == 0) - (index % 4 == 0)], dtype=torch.int8)
        return torch.full((3, 36, 36), 100 * (index % 2) + 50 + index, dtype=torch.uint8), labels


class Squares:
    """Noise with a brighter square, and its mask: value 1 or 2 in the square, 255 in one row of every third mask."""

    target = "semantic"
    num_classes = 3
    classes = ("background", "dark", "bright")

    def __init__(self, images: int = 24, size: int = 36) -> None:
        self.images = images
        self.size = size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 60, (1, self.size, self.size), generator=random, dtype=torch.uint8)
        top, left = torch.randint(0, self.size // 2, (2,), generator=random).tolist()
        value, side = 1 + index % 2, self.size // 2
        mask = torch.zeros(self.size, self.size, dtype=torch.uint8)
        mask[top : top + side, left : left + side] = value
        image[0][mask > 0] += 80 * value
        if index % 3 == 0:
            mask[index % self.size] = 255
        return image, mask


def write_squares(root: Path, train: int = 16, test: int = 8) -> None:
    """Write :class:`Squares` as a folder of images and masks."""
    squares = Squares(train + test)
    for index in range(train + test):
        for name, pixels in zip(("images", "masks"), squares[index], strict=True):
            folder = root / name / ("train" if index < train else "test")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.squeeze().numpy()).save(folder / f"{index:03}.png")
    (root / "classes.txt").write_text("\n".join(squares.classes))


class SlowStripes(Stripes):
    """Stripes, one of which waits until a signal was sent, and then takes its time.

    Args:
        folder: a file ``reached`` in it says that the image is waited for; a file ``sent`` ends the waiting.
        slow: the image.
        seconds: the time that it takes after that.
    """

    def __init__(self, folder: Path, slow: int, seconds: float) -> None:
        super().__init__()
        self.folder = folder
        self.slow = slow
        self.seconds = seconds

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.slow:
            (self.folder / "reached").touch()
            deadline = time.monotonic() + 300
            while not (self.folder / "sent").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(self.seconds)
        return super().__getitem__(index)


class SignallingStripes(Stripes):
    """Stripes: the process that reads one of them receives a signal."""

    def __init__(self, signalling: int, number: int) -> None:
        super().__init__()
        self.signalling = signalling
        self.number = number

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.signalling:
            signal.raise_signal(self.number)
        return super().__getitem__(index)


def pretrain_slowly(out: str, slow: str, seconds: str, settings: str) -> None:
    """Pre-train on :class:`SlowStripes`; the settings are JSON."""
    from formulavision.training import pretrain

    images = SlowStripes(Path(out).parent, int(slow), float(seconds))
    pretrain(images, out=out, settings=json.loads(settings))


def status_after_signal(out: Path, signalling: int, number: int, settings: dict[str, Any], **options: Any) -> int:
    """Pre-train on :class:`SignallingStripes`; the status with which the signal ends the process."""
    from formulavision.training import pretrain

    try:
        pretrain(SignallingStripes(signalling, number), out=out, settings=settings, **options)
    except KeyboardInterrupt as stop:
        return int(stop.code) if isinstance(stop, SystemExit) else -signal.SIGINT  # type: ignore[arg-type]
    raise AssertionError("the run was not stopped")


if __name__ == "__main__":
    pretrain_slowly(*sys.argv[1:])
