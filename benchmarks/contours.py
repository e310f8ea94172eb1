"""Time to draw radial contours on one core, and to walk the random streams of the published sets.

    python benchmarks/contours.py               2 minutes
    python benchmarks/contours.py --walk 1000   also walks the streams of RCDB with so many categories

Drawing alone, 512 x 512: the median over 200 categories of rcdb, five instances each, and over 100 scenes of segrcdb,
after a first call that compiles. Times are those of the drawing thread on the processor, so other work on the machine
counts less. The cache folder is a new one, and its size after a walk is printed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from formulavision import Drawer, Recipe, find_categories

CANVAS = {"size": 512, "padding": 0}


def times_ms(work: Callable[[Any], object], things: Iterable[Any]) -> list[float]:
    times = []
    for thing in things:
        work(thing)
        started = time.thread_time()
        work(thing)
        times.append(1000 * (time.thread_time() - started))
    return times


def report(name: str, times: list[float]) -> None:
    low, middle, high = np.percentile(times, [5, 50, 95])
    print(
        f"{middle:8.2f} ms median, mean {np.mean(times):.2f}, 5 % to 95 %: {low:.2f} to {high:.2f}   {name}", flush=True
    )


def time_contours(**settings: Any) -> None:
    recipe = Recipe.from_dict(
        {"generator": {"name": "rcdb", **settings}, "categories": 200, "instances": 1000, "canvas": CANVAS}
    )
    drawer = Drawer(recipe)
    out = np.zeros((5, *recipe.canvas.shape), np.uint8)
    first = np.arange(5)
    times = times_ms(lambda category: drawer.generator.render_batch(category, first, out), drawer.categories)
    report(f"rcdb {settings}", [each / len(out) for each in times])


def time_scenes(**settings: Any) -> None:
    recipe = Recipe.from_dict({"generator": {"name": "segrcdb", **settings}, "scene": "own", "canvas": CANVAS})
    generator, categories = recipe.build(), find_categories(recipe)
    report(f"segrcdb {settings}", times_ms(lambda number: generator.scene(categories, number), range(100)))


def time_walk(categories: int) -> None:
    """Walk all streams of RCDB, then draw images in random order, each in a category that was not held in memory."""
    settings = {"random": "published", "published_categories": categories}
    recipe = Recipe.from_dict(
        {"generator": {"name": "rcdb", **settings}, "categories": categories, "instances": 1000, "canvas": CANVAS}
    )
    started, used = time.perf_counter(), time.process_time()
    drawer = Drawer(recipe)
    seconds, core = time.perf_counter() - started, time.process_time() - used
    cache = Path(os.environ["FORMULAVISION_CACHE"])
    size = sum(file.stat().st_size for file in (cache / "streams").rglob("*.npy"))
    print(
        f"{core:8.1f} s of a core ({seconds:.1f} s) for {categories:,} x 1,000 images, {size / 1e6:.0f} MB", flush=True
    )
    order = np.random.default_rng(0).permutation(len(recipe))[:300]
    times = []
    for index in order:
        started = time.thread_time()
        drawer.draw(index)
        times.append(1000 * (time.thread_time() - started))
    report("one image at random, its walk included", times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walk", type=int, default=0, metavar="CATEGORIES", help="a multiple of 40")
    walk = parser.parse_args().walk
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORMULAVISION_CACHE"] = folder
        for outline in ("lines", "ring", "filled"):
            time_contours(outline=outline)
        for mask in ("M1", "M2", "M3"):
            time_scenes(mask=mask)
        time_contours(random="published")
        time_scenes(random="published")
        if walk:
            time_walk(walk)


if __name__ == "__main__":
    main()
