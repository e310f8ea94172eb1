"""CamVid's frames and masks -> a folder of patches with one class each, for comparisons with photographs of few pixels.

    python benchmarks/camvid_patches.py CAMVID OUT

CAMVID holds ``images/{train,test}/*.jpg`` and ``masks/{train,test}/*.png``. A patch of 48 x 48 pixels, on a grid of 24,
counts where at least 80 % of its pixels are of one class. Of each class and split at most 200 are kept, in random order
(seed 0); classes with fewer than 40 are left out. OUT gets ``train/`` and ``test/``, each with a folder a class.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
SIZE, STEP, SHARE = 48, 24, 0.8
MOST, FEWEST = 200, 40


def patches(root: Path, split: str) -> dict[int, list[tuple[str, Image.Image]]]:
    """Name and pixels of the patches of each class, in the order of their frames."""
    found = defaultdict(list)
    for path in sorted((root / "images" / split).glob("*.jpg")):
        image, mask = Image.open(path), np.asarray(Image.open(root / "masks" / split / f"{path.stem}.png"))
        for y in range(0, mask.shape[0] - SIZE + 1, STEP):
            for x in range(0, mask.shape[1] - SIZE + 1, STEP):
                counts = np.bincount(mask[y : y + SIZE, x : x + SIZE].ravel(), minlength=256)[: len(CLASSES)]
                if counts.max() >= SHARE * SIZE * SIZE:
                    name = f"{path.stem}-{x}-{y}.png"
                    found[int(counts.argmax())].append((name, image.crop((x, y, x + SIZE, y + SIZE))))
    return found


def main(root: Path, out: Path) -> None:
    found = {split: patches(root, split) for split in ("train", "test")}
    random = np.random.default_rng(0)
    for label in sorted(found["test"]):
        if any(len(of_class[label]) < FEWEST for of_class in found.values()):
            continue
        for split, of_class in found.items():
            folder = out / split / CLASSES[label]
            folder.mkdir(parents=True)
            for i in random.permutation(len(of_class[label]))[:MOST]:
                name, patch = of_class[label][i]
                patch.save(folder / name)
        print(CLASSES[label], *(min(MOST, len(of_class[label])) for of_class in found.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    main(chosen.camvid, chosen.out)
