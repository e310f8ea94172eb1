"""How long a dataset of ImageNet's size takes to open, and an image of it to be read, beside torchvision's ImageFolder.

    python benchmarks/downstreams.py
    python benchmarks/downstreams.py --images 100

Opening: folders of 1,000 classes as ImageNet's, with 1,281 images each for training and 50 for validation (all of them
names of one file a class, so that they fit anywhere), after a first pass that fills the cache of the file system.
ImageFolder only lists them; ours also looks at 100,000 sizes and at 2,000 headers a side.

Reading: JPEGs of 32 x 32 and of 500 x 375 pixels, decoded to a tensor and resized to 256 x 256, by one thread of torch;
ImageFolder with PILToTensor and the same resize. Medians of five passes, in seconds of the processor, which other
programs on the machine change little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import Compose, PILToTensor, Resize, functional

from formulavision.data.downstream import open_downstream

CLASSES = 1000
VALIDATION = 50
SIDE = 256
PASSES = 5


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Soft shapes with some noise, which as a JPEG takes about as many bytes as a photograph."""
    rng = np.random.default_rng(seed)
    shapes = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(shapes).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    return Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


def write(root: Path, classes: int, images: int, size: tuple[int, int]) -> None:
    for label in range(classes):
        wnid = f"n{label:08d}"
        for side, count in (("train", images), ("val", VALIDATION)):
            folder = root / side / wnid
            folder.mkdir(parents=True)
            first = folder / f"{wnid}_0.JPEG"
            photo(*size, seed=label).save(first, quality=90)
            for i in range(1, count):
                os.link(first, folder / f"{wnid}_{i}.JPEG")


def timed(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    run()
    return clock() - started


def opening(images: int, folder: Path) -> None:
    write(folder, CLASSES, images, (64, 48))
    sides = [str(folder / side) for side in ("train", "val")]
    ways = {
        "torchvision's ImageFolder": lambda: [ImageFolder(side) for side in sides],
        "open_downstream": lambda: open_downstream(f"imagenet:{folder}"),
    }
    for way in ways.values():
        way()
    print(f"\nopening {CLASSES * (images + VALIDATION):,} images")
    for name, way in ways.items():
        print(f"  {name:27} {timed(way):6.1f} s")


def reading(size: tuple[int, int], folder: Path) -> None:
    write(folder, 20, 10, size)
    ours = open_downstream(f"imagenet:{folder}").train
    theirs = ImageFolder(str(folder / "train"), Compose([PILToTensor(), Resize([SIDE, SIDE], antialias=True)]))
    ways: dict[str, Callable[[], Any]] = {
        "torchvision's ImageFolder": lambda: [theirs[i] for i in range(len(theirs))],
        "LabelledImages": lambda: [functional.resize(image, [SIDE, SIDE], antialias=True) for image, _ in ours],
    }
    print(f"\nreading and resizing an image of {size[0]} x {size[1]}")
    for name, way in ways.items():
        way()
        seconds = statistics.median(timed(way, time.process_time) for _ in range(PASSES))
        print(f"  {name:27} {seconds / len(ours) * 1e6:6,.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1281, help="training images a class to open")
    images = parser.parse_args().images
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        reading((32, 32), Path(folder) / "small")
        reading((500, 375), Path(folder) / "large")
        opening(images, Path(folder) / "imagenet")


if __name__ == "__main__":
    main()
