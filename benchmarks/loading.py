"""Images a second that a loader delivers, and how long a training step waits for them.

    python benchmarks/loading.py

Loading: shuffled batches of 256 from a DataLoader without workers (all in this process, so without the way from one
process to another) and with 1 and 2 of them, torch with one thread in each process; medians of the passes after a first
one, which compiles and fills the page cache. The images on disk are the same ones of FractalDB-1k, 362 x 362:

- as published: 8-bit RGB PNGs that Pillow wrote with its defaults, read by torchvision's ImageFolder;
- our imagefolder store (8-bit gray PNGs), read by torchvision's ImageFolder;
- our stores, read by StoredDataset.

ImageFolder delivers three channels, the others one. On demand, the same recipe draws images at random from all of its
1,000,000, so that hardly any two share an orbit; fresh images are the default `ifs` with 100,000 dots at 256 x 256,
other weights in each, cropped to 224 and mirrored as in pre-training.

From a URL: the parquet store from disk, and from the cache of a store at a URL (`memory://`) after the first pass fills
it: shuffled batches in this process, median ratio of five alternating pairs, and the bytes that a pass fetches.

Training: a step of ResNet-18 in float32 on 224 x 224 pixels with 1,000 classes, and the share of time that this process
waits for its batch: for one constant batch; for the parquet store, resized from 362 to 256; for fresh images as above.
Medians after two steps that do not count. What a worker takes from the processor is in the seconds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import PILToTensor

from formulavision import Drawer, FormulaDataset, Recipe, StoredDataset, generate
from formulavision.data.items import ImageDataset
from formulavision.data.loading import Batch, Prepared, make_loader
from formulavision.training.models import build_model, to_input
from formulavision.training.optimization import make_optimizer
from formulavision.training.settings import TrainSettings

CONFIG = Path(__file__).parents[1] / "configs" / "fractaldb-1k.yaml"
FORMATS = ("parquet", "webdataset", "imagefolder")
RESIZE, CROP = 256, 224
WORKERS = (0, 1, 2)
WARM_UP = 2

Loader = Callable[[int], DataLoader[Any]]
"""Makes a loader with so many workers."""


def write_as_published(drawer: Drawer, folder: Path) -> None:
    def save(index: int) -> None:
        path = folder / f"{drawer.name(index)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(drawer.draw(index)[0], 3, axis=2)).save(path)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(save, range(len(drawer))))


def shuffled(dataset: Dataset[Any], batch: int) -> Loader:
    return lambda workers: DataLoader(dataset, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def prepared(source: ImageDataset, batch: int, *, fresh: bool) -> Loader:
    images = Prepared(source, resize=RESIZE, crop=CROP, augment=True, flip=True, seed=1, cache=None, fresh=fresh)
    return lambda workers: make_loader(images, batch_size=batch, shuffle=True, workers=workers, pin=False)


def images_per_second(loader: DataLoader[Any], least_s: float) -> float:
    images = sum(len(labels) for _, labels in loader)
    passes: list[float] = []
    while sum(passes) < least_s:
        started = time.perf_counter()
        for _ in loader:
            pass
        passes.append(time.perf_counter() - started)
    return images / statistics.median(passes)


def compare_loading(cases: dict[str, tuple[Loader, Path | None]], images: int, least_s: float) -> None:
    print(f"{'':46} {'bytes':>7} {'in process':>15} {'1 worker':>15} {'2 workers':>9}")
    print(f"{'':46} {'':>7} {'images/s':>8} {'ms':>6} {'images/s':>8} {'ms':>6} {'images/s':>9}")
    for name, (loader, folder) in cases.items():
        size = "-"
        if folder:
            size = f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / images:,.0f}"
        here, one, two = (images_per_second(loader(workers), least_s) for workers in WORKERS)
        print(
            f"{name:46} {size:>7} {here:8,.0f} {1000 / here:6.2f} {one:8,.0f} {1000 / one:6.2f} {two:9,.0f}", flush=True
        )


def compare_with_cache(folder: Path, batch: int, pairs: int = 5) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/store", recursive=True)
    fetched: list[int] = []
    with mock.patch.object(type(memory), "get_file", noted(type(memory).get_file, fetched)):
        loaders = [shuffled(StoredDataset(place), batch)(0) for place in (folder, "memory://store")]
        ratios, _ = [], [images_per_second(loader, 1e-9) for loader in loaders]
        first = sum(fetched)
        for _ in range(pairs):
            disk, cache = (images_per_second(loader, 1e-9) for loader in loaders)
            ratios.append(disk / cache)
    stored = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    print(
        f"\nparquet from the cache of a URL: {statistics.median(ratios):.2f} of the time from disk "
        f"({', '.join(f'{ratio:.2f}' for ratio in ratios)}); bytes fetched, of the store's: {first / stored:.2f} in "
        f"the first passes, {(sum(fetched) - first) / stored:.2f} in the others"
    )


def noted(get_file: Callable[..., None], sizes: list[int]) -> Callable[..., None]:
    """``get_file`` of a file system, with the size of each file that it fetched."""

    def get(self: Any, remote: str, local: str, **settings: Any) -> None:
        get_file(self, remote, local, **settings)
        sizes.append(Path(local).stat().st_size)

    return get


def train(batches: Iterator[Batch], steps: int) -> tuple[float, float]:
    """Seconds a step, and the share of them that passes in waiting for batches."""
    settings = TrainSettings(model="resnet18", resize=RESIZE, crop=CROP)
    torch.manual_seed(1)
    model = build_model(settings, 1000)
    optimizer = make_optimizer(model, settings)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (settings.mean, settings.std))
    seconds, waits = [], []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        images, labels = next(batches)
        waits.append(time.perf_counter() - started)
        optimizer.zero_grad()
        cross_entropy(model(to_input(images, mean, std)), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:]), sum(waits[WARM_UP:]) / sum(seconds[WARM_UP:])


def batches_of(loader: Loader, workers: int) -> Iterator[Batch]:
    return iter(loader(workers))


def compare_training(sources: dict[str, Loader], steps: int) -> None:
    print(f"{'':46} {'workers':>7} {'s a step':>8} {'waiting':>9}")
    first = next(iter(next(iter(sources.values()))(0)))
    runs: list[tuple[str, str, Callable[[], Iterator[Batch]]]] = [
        ("one constant batch", "-", lambda: itertools.repeat(first))
    ]
    for name, loader in sources.items():
        runs += [(name, str(n), partial(batches_of, loader, n)) for n in (0, 1)]
    for name, workers, batches in runs:
        seconds, share = train(batches(), steps)
        print(f"{name:46} {workers:>7} {seconds:8.3f} {share:9.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="on disk, and on demand; a multiple of 100")
    parser.add_argument("--batch", type=int, default=256, help="images a batch in loading")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each figure of loading, at least")
    parser.add_argument("--steps", type=int, default=12, help="of training for each source; 0: none")
    parser.add_argument("--training-batch", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.images // arguments.training_batch < WARM_UP + arguments.steps:
        parser.error("--images: too few for so many --steps")
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments, Path(temporary))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    images, batch = arguments.images, arguments.batch
    stored = Recipe.load(CONFIG, ["categories=4", f"instances={images // 4}"])
    write_as_published(Drawer(stored), folder / "published")
    for name in FORMATS:
        generate(stored, folder / name, format=name)
    on_demand = FormulaDataset(CONFIG)
    chosen = np.random.default_rng(1).choice(len(on_demand), images, replace=False).tolist()
    default = {"generator": {"name": "ifs", "dots": 100_000}, "categories": 100, "instances": images // 100}
    fresh = FormulaDataset(Recipe.from_dict(default))

    def image_folder(name: str) -> tuple[Loader, Path]:
        return shuffled(ImageFolder(folder / name, PILToTensor()), batch), folder / name

    # As in a worker.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    compare_loading(
        {
            "torchvision ImageFolder, as published": image_folder("published"),
            "torchvision ImageFolder, our imagefolder": image_folder("imagefolder"),
            **{name: (shuffled(StoredDataset(folder / name), batch), folder / name) for name in FORMATS},
            "on demand, FractalDB-1k": (shuffled(Subset(on_demand, chosen), batch), None),
            "on demand, fresh ifs, 256 x 256, 100,000 dots": (prepared(fresh, batch, fresh=True), None),
        },
        images,
        arguments.seconds,
    )
    with mock.patch.dict(os.environ, FORMULAVISION_CACHE=str(folder / "cache")):
        compare_with_cache(folder / "parquet", batch)
    torch.set_num_threads(threads)
    if arguments.steps:
        print(f"\nResNet-18, batches of {arguments.training_batch}, {threads} threads")
        sources = {
            "parquet, resized from 362 to 256": prepared(
                StoredDataset(folder / "parquet"), arguments.training_batch, fresh=False
            ),
            "on demand, fresh ifs, 256 x 256, 100,000 dots": prepared(fresh, arguments.training_batch, fresh=True),
        }
        compare_training(sources, arguments.steps)


if __name__ == "__main__":
    main()
