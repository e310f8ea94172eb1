"""Time to draw and encode an image, and to find categories, beside what others offer for it in the same run.

    pip install noise
    pip install --no-deps --target DATUMARO datumaro==1.11.1 opencv-python-headless
    PYTHONPATH=DATUMARO python benchmarks/drawing.py

On one core: medians of 21 runs after a first one that compiles. Fractals differ in category and weights from run to
run, so that they share nothing, but for the average: that is of a whole category of FractalDB-1k in the order of
`generate`, where flips share a drawing and patch draws an orbit. FractalDB-1k takes its weights from the published
table and its orbit from the published draws; the other fractals are the default, with weights and orbits of their own.

Baselines, medians of 3 runs:

- the published procedure (points in float64 one after the other, a patch at a time, Pillow's RGB PNG) in Python and
  numpy;
- datumaro's FractalDB generator, which its releases held up to 1.11.1: its orbit and its patches at its own settings
  (200,000 points, random patches, a padding of 6; the size is the user's), and with fewer points. Not timed are its
  colours, from a network that it downloads, and its PNG. Its file is run by itself, since the package wants an older
  numpy and dozens of others;
- `noise.pnoise2` point by point, which is the Perlin generator's other backend.

The search for published categories takes all cores, that for default ones a single one; neither reads the cache.

A fractal of FractalDB-1k, another category each time, microseconds of a core of an AMD EPYC (Zen 5, registers of 512
bits): 145 for its orbit, 105 to mark its points, 75 for the bounds and the scaling of its points, 40 to shade, 33 for
masks, 28 to select transformations, 25 for owners; the rest is Python. Before: 200 for the orbit in quarters, each
coordinate by itself, 96 to scale by conversions to float32, 47 to select one sum at a time.

Lost on the way, microseconds for 200,000 points on 362 x 362:

    pasting rows of bits                 620    60 to 200 to mark the last point of each pixel, 55 for the owners, 60 to
                                                shade
    looking rows up for each chain       600    80 by permutations of registers, with the orbit computed twice
    blending four rows in registers      380    the same
    writing the float32 orbit down      +110    40 to compute it again
    Philox block by block                400    50 on vector registers
    marking inside the second pass       +70    over writing pixels down, then marking from the last point on
    marking from the first point on      190    110 from the last one on, since a pixel's line is written once
    marking with prefetches              165    the same; the stores' misses in the first cache are the limit, 3 cycles
    16-bit marks                         140    needs four images and their merging, 50 each
    partition by rows before marking    +195    more than it saves
    512-bit registers for all kernels     +8 %  LLVM's choice of 256 bits is better for the loops in Python
    512-bit registers, measured again      -4 %  of a default fractal, none of a published one
    exact products in place of divisions    0    of float64, where memory is the limit; float32 is slower
    owners in the points' memory, masks in
    that of the last points                0     less memory is touched, in no less time
    patches as nine bytes each         1,200    900 for three 64-bit words, both since replaced by owners
    Pillow for PNGs of 1 bit           1,100    750 with compress_type=3; see encoding.py for what is used now

Compacting the masks to those of owners gained nothing.

The same on a core of an AMD EPYC (Zen 3, registers of 256 bits), microseconds of the kernels, the best of many calls,
beside other work on the other core:

    masked writes of the points        2 x 245  2 x 82 without, where one table holds all rows: such writes cost a dozen
                                                cycles there, and what they wrote cannot be read at once
    permutations found by the compiler     700  0 more with the processor's own instruction: code that came from the
                                                cache had single bytes in their place
    marking, writes that wait for reads    310  200 with a loop that reads and one that writes; from the first point on
                                                160, but that lost on the processor above
    marking with a map of bits or bytes    310  250 to 310; with a list of new pixels 340
    an orbit in eighths or sixteenths      270  390 to 450 in loops over memory, 380 in registers; 190 to 210 with both
                                                coordinates in one register, as it is now
    ranks of the draws to select by         77  45, or 32 with 16 bits; on Zen 5 23 where four sums at a time take 28
    branches for an object's pixels        530  130 a scene of 8 objects, with bits in their place
    hues by 64-bit integers                252  154 a field of 224 x 224, with 32-bit ones
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
from formulavision_plugins.ifs.search_published import published_search
from numpy.typing import NDArray
from PIL import Image

from formulavision import ConfigError, Drawer, Recipe
from formulavision.rendering.compositing import compose
from formulavision.storage.png import encode_png

CONFIG = Path(__file__).parents[1] / "configs" / "fractaldb-1k.yaml"
RUNS = 21
SIZE, DOTS = 362, 200_000
CASES: dict[str, dict[str, Any]] = {
    "ifs, default, 362 x 362, 200,000 points": {
        "generator": "ifs", "categories": RUNS + 1, "canvas": {"size": SIZE},
    },
    "ifs, default, 256 x 256, 100,000 points": {
        "generator": {"name": "ifs", "dots": 100_000}, "categories": RUNS + 1,
    },
    "ifs, 2D-OFDB, 362 x 362, 200,000 points": {
        "generator": {
            "name": "ifs", "search": "published", "max_transformations": 7, "weights": "table", "table_rows": 1,
            "orbit": "published", "patches": "published", "flips": False,
        },
        "categories": RUNS + 1, "instances": 1, "canvas": {"size": SIZE}, "seed": 1,
    },
    "ifs, 1p-frac, 512 x 512, 100,000 points": {
        "generator": {
            "name": "ifs", "search": "one_base", "base_seed": 5, "perturbation": 0.1, "fill_rate": 0.05,
            "orbit": "published", "dots": 100_000, "patches": "published", "flips": False,
        },
        "categories": RUNS + 1, "instances": 1, "canvas": {"size": 512},
    },
    "ifs, one base, 362 x 362, 200,000 points": {
        "generator": {"name": "ifs", "search": "one_base"}, "categories": RUNS + 1, "canvas": {"size": SIZE},
    },
    "bezier, 256 x 256, 8 cubic curves": {"generator": "bezier"},
    "perlin, 256 x 256, frequencies 10 and 10": {"generator": "perlin"},
    "rcdb, 512 x 512": {
        "generator": "rcdb", "categories": 10 * RUNS + 1, "instances": 1, "canvas": {"size": 512},
    },
    "visual-atoms, 512 x 512": {
        "generator": "visual-atoms", "categories": 10 * RUNS + 1, "instances": 1, "canvas": {"size": 512},
    },
    "visual-atoms, published, 512 x 512": {
        "generator": {"name": "visual-atoms", "random": "published", "published_instances": 1},
        "categories": 10 * RUNS + 1, "instances": 1, "canvas": {"size": 512},
    },
    "ifs3d, a cloud and a view, 224 x 224": {
        "generator": "ifs3d", "categories": RUNS + 1, "instances": 12 * (RUNS + 1), "canvas": {"size": 224},
    },
    "ifs3d, published, a cloud and a view, 224 x 224": {
        "generator": {"name": "ifs3d", "random": "published"}, "categories": RUNS + 1, "canvas": {"size": 224},
    },
    "colored-ifs, 224 x 224, 100,000 points": {
        "generator": "colored-ifs", "categories": 1, "canvas": {"size": 224},
    },
    "colored-ifs, published, 224 x 224, 100,000 points": {
        "generator": {"name": "colored-ifs", "random": "published"}, "categories": 1, "canvas": {"size": 224},
    },
    "colored-ifs, scenes of 1 to 5 fractals, 224 x 224": {
        "generator": "colored-ifs", "scene": "own", "images": 100, "canvas": {"size": 224},
    },
    "diamond-square, 224 x 224": {"generator": "diamond-square", "canvas": {"size": 224}},
    "dead-leaves, 128 x 128": {
        "generator": "dead-leaves", "categories": 10 * RUNS + 1, "instances": 1, "canvas": {"size": 128},
    },
    "dead-leaves, published, 128 x 128": {
        "generator": {"name": "dead-leaves", "random": "published"}, "categories": 1, "instances": 10 * RUNS + 1,
        "canvas": {"size": 128},
    },
    "moire, 128 x 128": {"generator": "moire", "categories": RUNS + 1, "canvas": {"size": 128}},
    "moire, 224 x 224": {"generator": "moire", "categories": RUNS + 1, "canvas": {"size": 224}},
    "mandelbulb, 64 x 64": {"generator": "mandelbulb", "categories": 1037, "canvas": {"size": 64}},
    "segrcdb, scenes of 32 contours, 512 x 512": {
        "generator": "segrcdb", "scene": "own", "images": 100, "canvas": {"size": 512},
    },
    "scenes of 8 ifs objects of 10,000 points, 256 x 256": {
        "generator": {"name": "ifs", "dots": 10_000}, "scene": {"objects": 8}, "images": 100,
    },
}  # fmt: skip
CATEGORY = {"bezier": 19, "colored-ifs": 0, "dead-leaves": 0, "diamond-square": 0, "perlin": 99}
"""The one that is drawn; of other fractals, each run draws another."""


def median_ms(work: Callable[[int], object], runs: int = RUNS) -> float:
    work(0)
    times = []
    for i in range(1, runs + 1):
        started = time.perf_counter()
        work(i)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def report(drawing: float | None, encoding: float | None, size: int | None, name: str) -> None:
    columns = (f"{value:9.3f} ms" if value is not None else f"{'-':>12}" for value in (drawing, encoding))
    print(*columns, f"{size:8,}" if size is not None else f"{'-':>8}", f" {name}", flush=True)


def time_ours(recipe: Recipe, name: str, runs: int = RUNS) -> None:
    drawer = Drawer(recipe)
    category = CATEGORY.get(recipe.all_parts[0].generator.name)
    indices = list(range(runs + 1))
    if not recipe.is_scene and recipe.num_instances > 1:
        # Instance i of category i has a row of the table of its own, too.
        indices = [(i if category is None else category) * recipe.num_instances + i for i in range(runs + 1)]
    drawing = median_ms(lambda i: drawer.draw(indices[i]), runs)
    images = [drawer.draw(index)[0] for index in indices]
    encoding = median_ms(lambda i: encode_png(images[i]), runs)
    report(drawing, encoding, round(statistics.mean(len(encode_png(image)) for image in images)), name)


def time_composing(scenes: int = 64, objects: int = 8) -> None:
    """The step that draws objects, which are drawn already, over scenes: a third of their pixels is lit."""
    recipe = Recipe.from_dict({"generator": "ifs", "scene": {"objects": objects}, "images": scenes})
    composer = Drawer(recipe).composer
    assert composer is not None
    (chunk,) = composer.chunks(composer.planner.plan(np.arange(scenes)))
    pixels = (np.random.default_rng(0).random(chunk.pixel_bytes) < 1 / 3).astype(np.uint8) * np.uint8(127)
    images, maps = np.zeros((scenes, 256, 256, 1), np.uint8), np.zeros((scenes, 256, 256), np.uint16)
    masks = np.empty(0, np.uint8)
    composing = median_ms(lambda i: compose(pixels, masks, chunk.rows, chunk.objects.colors, images, maps))
    report(composing / scenes, None, None, f"of it, composing {objects} objects")


def time_views(random: str, views: int = 12) -> None:
    """A view of a cloud that is drawn from all sides at once."""
    drawer = Drawer(Recipe.from_dict({
        "generator": {"name": "ifs3d", "random": random}, "categories": RUNS + 1, "instances": views,
        "canvas": {"size": 224},
    }))  # fmt: skip
    drawing = median_ms(lambda i: drawer.draw_batch(range(views * i, views * (i + 1))))
    report(drawing / views, None, None, f"ifs3d, {random}, one of {views} views of a cloud, 224 x 224")


def time_category(recipe: Recipe) -> None:
    drawer = Drawer(recipe)
    count = recipe.num_instances
    images = np.empty((drawer.batch_size, *recipe.canvas.shape), np.uint8)
    drawing = encoding = 0.0
    size = 0
    for batch in drawer.batches(np.arange(count, 2 * count)):
        started = time.perf_counter()
        drawn, _ = drawer.draw_batch(batch, images[: len(batch)])
        drawing += time.perf_counter() - started
        started = time.perf_counter()
        size += sum(len(encode_png(image)) for image in drawn)
        encoding += time.perf_counter() - started
    report(
        1000 * drawing / count, 1000 * encoding / count, size // count, f"the same, average of a category of {count:,}"
    )


def published_procedure(system: NDArray[np.float64], points: int, size: int, padding: int = 6) -> bytes:
    draws, masks = np.random.RandomState(100).random_sample(points), np.random.RandomState(0).randint(1, 512, points)
    borders = np.cumsum(system[:, 6])
    x = y = 0.0
    xs, ys = [x], [y]
    for draw in draws[:-1]:
        j = 0
        while draw > borders[j]:
            j += 1
        a, b, c, d, e, f, _ = system[j]
        x, y = x * a + y * b + e, x * c + y * d + f
        xs.append(x)
        ys.append(y)
    columns, rows = (
        ((v - v.min()) / np.ptp(v) * (size - 2 * padding) + padding).astype(np.uint16)
        for v in (np.array(xs), np.array(ys))
    )
    image = np.zeros((size, size, 3), np.uint8)
    for row, column, mask in zip(rows, columns, masks, strict=True):
        for k in range(9):
            lit = 127 if (mask >> (8 - k)) & 1 else 0
            image[row + 1 + k // 3, column + 1 + k % 3] = (lit, lit, lit)
    buffer = io.BytesIO()
    Image.fromarray(image[::-1]).save(buffer, "PNG")
    return buffer.getvalue()


def load_datumaro() -> ModuleType | None:
    """The module that draws its fractals, which needs numpy and OpenCV."""
    package = importlib.util.find_spec("datumaro")
    if package is None or package.origin is None or importlib.util.find_spec("cv2") is None:
        return None
    path = Path(package.origin).parent / "plugins" / "synthetic_data" / "utils.py"
    spec = importlib.util.spec_from_file_location("datumaro_fractals", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw_with_datumaro(datumaro: ModuleType, system: NDArray[np.float64], points: int, size: int, seed: int) -> None:
    function = datumaro.IFSFunction(Random(seed), prev_x=0.0, prev_y=0.0)
    for row in system.astype(np.float32):
        function.add_param(row[:6], row[6], np.ones(6))
    function.calculate(points)
    function.draw(size, size, False)


def time_baselines(system: NDArray[np.float64]) -> None:
    both = median_ms(lambda i: published_procedure(system, DOTS, SIZE), runs=3)
    size = len(published_procedure(system, DOTS, SIZE))
    report(both, None, size, "the published procedure in Python, with encoding, 362 x 362, 200,000 points")
    datumaro = load_datumaro()
    if datumaro is None:
        print("datumaro: not here, or a release without its generator; the head of this file says how to get it")
    else:
        for side, dots in ((SIZE, DOTS), (256, 100_000)):
            work = lambda i, side=side, dots=dots: draw_with_datumaro(datumaro, system, dots, side, i)  # noqa: E731
            report(median_ms(work, runs=3), None, None, f"datumaro, {side} x {side}, {dots:,} points")
    try:
        perlin = Recipe.from_dict({"generator": {"name": "perlin", "backend": "noise"}})
    except ConfigError as error:
        print(error)
    else:
        time_ours(perlin, "perlin, the noise package, 256 x 256, frequencies 10 and 10", runs=3)


def time_search(count: int = 100) -> None:
    list(islice(published_search(1, 7, 0.2), 1))
    started = time.perf_counter()
    list(islice(published_search(1, 7, 0.2), count))
    seconds = time.perf_counter() - started
    print(f"{count / seconds:9.1f} categories a second, the first {count} published ones, {os.cpu_count()} cores")
    generator = Recipe.from_dict({"generator": "ifs"}).build()
    generator.category(count)
    started = time.perf_counter()
    for index in range(count):
        generator.category(index)
    print(f"{count / (time.perf_counter() - started):9.1f} categories a second, {count} default ones, one core")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{'draw':>12} {'encode':>12} {'bytes':>8}")
    fractaldb = Recipe.load(CONFIG, [f"categories={RUNS + 1}"])
    time_ours(fractaldb, "ifs, FractalDB-1k, 362 x 362, 200,000 points")
    time_category(fractaldb)
    for name, recipe in CASES.items():
        time_ours(Recipe.from_dict(recipe), name)
    for random in ("independent", "published"):
        time_views(random)
    time_composing()
    time_baselines(Drawer(fractaldb).categories[0].parameters)
    time_search()


if __name__ == "__main__":
    main()
