"""A whole dataset into a store: images a second over time, memory, bytes; then verified, then read once.

    python benchmarks/generation.py configs/fractaldb-1k.yaml --results docs/results/generation/fractaldb-1k

Writes RESULTS.json and RESULTS.png. The store goes to a temporary folder (or --out) and is deleted afterwards. Memory
is the highest resident set of any worker process, from /proc: it needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import formulavision
from formulavision import Recipe, generate, verify
from formulavision.recipes.categories import find_categories


class Watch:
    """Notes the images that are done, and the memory of the worker processes."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.times, self.done, self.peaks = [0.0], [0], [0.0]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)
        self.thread.start()

    def categories(self, found: int, total: int) -> None:
        pass

    def images(self, done: int, total: int) -> None:
        if time.perf_counter() - self.started - self.times[-1] > 0.25:
            self.times.append(time.perf_counter() - self.started)
            self.done.append(done)
            self.peaks.append(self.peak)

    def note(self, line: str) -> None:
        print(line)

    peak = 0.0

    def _poll(self) -> None:
        while not self.stop.wait(0.2):
            for process in descendants(os.getpid()):
                try:
                    status = Path(f"/proc/{process}/status").read_text()
                except OSError:  # it has ended
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM"):
                        self.peak = max(self.peak, int(line.split()[1]) / 1000)


def descendants(process: int) -> Iterator[int]:
    """A process's children, and theirs."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return
    for child in children:
        yield int(child)
        yield from descendants(int(child))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def read_all(path: Path, workers: int) -> float:
    """Seconds that a DataLoader takes for one epoch in random order."""
    # Here, since the processes that draw import this file.
    from torch.utils.data import DataLoader

    from formulavision import StoredDataset

    loader = DataLoader(StoredDataset(path), batch_size=256, num_workers=workers, shuffle=True)
    started = time.perf_counter()
    images = sum(len(labels) for _, labels in loader)
    assert images == len(loader.dataset)  # type: ignore[arg-type]
    return time.perf_counter() - started


def plot(watch: Watch, total: int, name: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    times, done = np.array(watch.times), np.array(watch.done)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    # Every five seconds: workers report batches.
    edges = np.arange(0, times[-1] + 5, 5)
    rate = np.diff(np.interp(edges, times, done)) / 5
    left.stairs(rate[:-1], edges[:-1])
    left.set(title=f"{name}: {total:,} images", xlabel="seconds", ylabel="images a second", ylim=0)
    right.plot(times, watch.peaks)
    right.set(title="highest memory of a worker so far", xlabel="seconds", ylabel="MB", ylim=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], help="any setting of the recipe, as in generate")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--png", default="plain", help="plain or compact, as in generate")
    parser.add_argument("--out", type=Path, help="an empty or new folder")
    parser.add_argument("--results", type=Path, help="where to write .json and .png, without suffix")
    arguments = parser.parse_args()
    recipe = Recipe.load(arguments.config, arguments.set)
    out = arguments.out or Path(tempfile.mkdtemp()) / "store"
    started = time.perf_counter()
    find_categories(recipe, workers=arguments.workers)
    search = time.perf_counter() - started
    watch = Watch()
    store = generate(recipe, out, format=arguments.format, png=arguments.png, workers=arguments.workers, progress=watch)
    seconds = time.perf_counter() - watch.started
    watch.stop.set()
    watch.images(len(recipe), len(recipe))
    started = time.perf_counter()
    verification = verify(out, sample=2000)
    figures: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "images": len(recipe),
        "format": arguments.format,
        "png": arguments.png,
        "workers": arguments.workers,
        "search_seconds": round(search, 2),
        "seconds": round(seconds, 2),
        "images_per_second": round(len(recipe) / seconds),
        "gigabytes": round(store.manifest.bytes / 1e9, 3),
        "bytes_per_image": round(store.manifest.bytes / len(recipe)),
        "peak_megabytes_of_a_worker": round(watch.peak),
        "verified": {
            "pieces": verification.pieces, "images_drawn_again": verification.images,
            "problems": len(verification.problems), "seconds": round(time.perf_counter() - started, 2),
        },
        "read_images_per_second": {f"{n} loaders": round(len(recipe) / read_all(out, n)) for n in (1, 2)},
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "formulavision": formulavision.__version__,
    }  # fmt: skip
    print(json.dumps({name: value for name, value in figures.items() if name != "recipe"}, indent=1))
    if arguments.results:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
        name = f"{arguments.config.stem}, {arguments.workers} workers"
        plot(watch, len(recipe), name, arguments.results.with_suffix(".png"))
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
