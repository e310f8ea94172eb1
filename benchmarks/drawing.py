"""Time to draw and encode one image that shares nothing with others, on one core, beside the published procedure.

    python benchmarks/one_image.py

Medians of 21 runs after a first one that compiles. The baseline is the published procedure (points in float64 one after
the other, a patch at a time, Pillow's RGB PNG) in Python and numpy, at a tenth of the points and multiplied by ten.

Lost on the way: patches as nine bytes each (1.2 ms against 0.9 ms for three 64-bit words); filling masks block by block
through an array of Philox words (0.8 ms against 0.57 ms word by word); Pillow for 1-bit PNGs (1.1 ms, or 0.75 ms with
compress_type=3, against 0.19 ms for packbits and zlib's Z_RLE, which is also 5 % smaller).
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from formulavision import Drawer, Recipe
from formulavision.rendering.encoding import encode_png

PUBLISHED = {"search": "published", "max_transformations": 7, "orbit": "published"}
CASES: dict[str, dict[str, Any]] = {
    "ifs, published orbit, 362 x 362, 200,000 dots, random patches": {
        "generator": {"name": "ifs", **PUBLISHED}, "categories": 2, "canvas": {"size": 362},
    },
    "ifs, independent orbit, 362 x 362, 200,000 dots, random patches": {
        "generator": {"name": "ifs"}, "categories": 2, "canvas": {"size": 362},
    },
    "ifs, independent orbit, 256 x 256, 100,000 dots, random patches": {
        "generator": {"name": "ifs", "dots": 100_000}, "categories": 2,
    },
    "bezier, 256 x 256, 8 cubic curves": {"generator": {"name": "bezier"}, "categories": 24},
    "perlin, 256 x 256, one octave, frequency 10 x 10": {"generator": {"name": "perlin"}},
}  # fmt: skip
CATEGORY = {"bezier": 19, "perlin": 99}


def median_ms(work: Callable[[int], object], runs: int = 21) -> float:
    work(0)
    times = []
    for i in range(1, runs + 1):
        started = time.perf_counter()
        work(i)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def published_procedure(system: np.ndarray, points: int, size: int = 362, padding: int = 6) -> bytes:
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
        (np.uint16((v - v.min()) / np.ptp(v) * (size - 2 * padding) + padding)) for v in (np.array(xs), np.array(ys))
    )
    image = np.zeros((size, size, 3), np.uint8)
    for row, column, mask in zip(rows, columns, masks, strict=True):
        for k in range(9):
            lit = 127 if (mask >> (8 - k)) & 1 else 0
            image[row + 1 + k // 3, column + 1 + k % 3] = (lit, lit, lit)
    buffer = io.BytesIO()
    Image.fromarray(image[::-1]).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    print(f"{'draw':>9} {'encode':>9} {'bytes':>8}")
    for name, recipe in CASES.items():
        drawer = Drawer(Recipe.from_dict(recipe))
        first = CATEGORY.get(recipe["generator"]["name"], 0) * drawer.recipe.num_instances
        image = drawer.draw(first + 2)[0]
        drawing = median_ms(lambda i, drawer=drawer, first=first: drawer.draw(first + i))
        encoding = median_ms(lambda i, image=image: encode_png(image))
        print(f"{drawing:6.2f} ms {encoding:6.2f} ms {len(encode_png(image)):8,}  {name}")
    system = Drawer(Recipe.from_dict(next(iter(CASES.values())))).categories[0].parameters
    baseline = 10 * median_ms(lambda i: published_procedure(system, 20_000), runs=1)
    print(f"{baseline:6.0f} ms    (both) {len(published_procedure(system, 200_000)):8,}  the published procedure")


if __name__ == "__main__":
    main()
