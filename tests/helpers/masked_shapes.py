"""Small photographs' stand-in for segmentation: bright shapes on noise, with their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ["background", "square", "stripe"]


def write_shapes(root: Path, train: int = 12, test: int = 4, size: tuple[int, int] = (48, 36)) -> Path:
    """A folder of kind ``masks``: in each image a red square and a green stripe, and a column of ignored pixels."""
    random = np.random.default_rng(0)
    width, height = size
    for split, count in (("train", train), ("test", test)):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for number in range(count):
            image = random.integers(0, 70, (height, width, 3))
            mask = np.zeros((height, width), np.uint8)
            top = int(random.integers(0, height - 6))
            image[top : top + 6, :, 1] += 150
            mask[top : top + 6] = 2
            top, left = (int(random.integers(0, side - 14)) for side in (height, width))
            image[top : top + 14, left : left + 14] = [220, 30, 40]
            mask[top : top + 14, left : left + 14] = 1
            mask[:, -2:] = 255
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root
