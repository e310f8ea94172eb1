"""Time to encode and to decode one image, on one core, beside Pillow in the same run.

    python benchmarks/encoding.py

Means over four images of medians of 21 runs after a first one that compiles. Pillow writes each image as RGB with its
defaults, as the published scripts did; as RGB or gray with compress_level=1; and where there are two values as 1 bit a
pixel with compress_level=1. It reads back what was written here. The same lines are compressed by zlib's run-length
strategy and by ISA-L alone; of ISA-L's levels, 1 is the smallest, and gives other bytes in some processes; 0 is what is
used where there are more than two values.

Lost on the way, when images of two values had 1 bit a pixel, microseconds and bytes a stream, means over 8 fractals of
362 x 362 in bits / 12 filtered Perlin and 12 Bezier images of 256 x 256 / 4 coloured fractals:

                      fractal         Perlin        Bezier       coloured fractal
    ISA-L level 1     29   7,292      86  13,429    29   4,540     140  26,858    (what was used)
    own run lengths   21   6,825      75  14,632    18   3,732     128  26,102    (230 lines, 7 s to compile)
    zlib-ng Z_RLE     29   6,836     219  14,570    26   3,742     317  26,192
    zlib-ng level 1   31   7,915     107  22,256    24   5,183     221  36,992
    zlib Z_RLE        44   6,836     340  14,570    73   3,742     787  26,192
    libdeflate 1      36   7,208     158  12,029   152   4,217   1,003  24,575
    zlib level 1      59   7,370     410  14,766    83   4,797     916  28,847
    inflate: ISA-L    26              88            38             201
    zlib-ng           19              92            14             143
    zlib              32             130           121             462

Lost too: Paeth among the filters (Perlin 7 % smaller, but 0.16 ms to undo, Sub 0.02, Up 0.003); a filter for each line
(Perlin 1 % smaller, Bezier 1 % larger).
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from formulavision import Drawer, Recipe
from formulavision.storage.png import ENCODINGS, decode_image, encode_png

CASES: dict[str, dict[str, Any]] = {
    "fractal, 362 x 362": {"generator": {"name": "ifs"}, "categories": 4, "canvas": {"size": 362}},
    "fractal, 362 x 362, RGB": {"generator": {"name": "ifs"}, "categories": 4, "canvas": {"size": 362, "channels": 3}},
    "perlin, 256 x 256": {"generator": {"name": "perlin"}},
    "perlin, 256 x 256, RGB": {"generator": {"name": "perlin"}, "canvas": {"channels": 3}},
    "bezier, 256 x 256": {"generator": {"name": "bezier"}, "categories": 24},
    "bezier, 256 x 256, RGB": {"generator": {"name": "bezier"}, "categories": 24, "canvas": {"channels": 3}},
}


def mean_us(work: Callable[[Any], object], items: list[Any], runs: int = 21) -> float:
    medians = []
    for item in items:
        work(item)
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            work(item)
            times.append(time.perf_counter() - started)
        medians.append(1e6 * statistics.median(times))
    return statistics.mean(medians)


def save(picture: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def filtered_lines(png: bytes) -> bytes:
    """What is compressed in a PNG of ours, which has one chunk of it, the last but one."""
    return isal_zlib.decompress(png[png.index(b"IDAT") + 4 : -16])


def run_lengths(lines: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return deflate.compress(lines) + deflate.flush()


def plain(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, :, 0] if image.shape[2] == 1 else image


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def read_with_pillow(data: bytes, channels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB" if channels == 3 else "L"))


WRITERS: dict[str, Callable[[NDArray[np.uint8]], bytes]] = {
    "here": encode_png,
    "here, compact": partial(encode_png, encoding="compact"),
    "Pillow, RGB": lambda image: save(Image.fromarray(as_rgb(image))),
    "Pillow, level 1": lambda image: save(Image.fromarray(plain(image)), compress_level=1),
    "Pillow, 1 bit": lambda image: save(Image.fromarray(plain(image) > 0), compress_level=1),
}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib, run lengths": run_lengths,
    **{f"ISA-L level {level}": partial(isal_zlib.compress, level=level) for level in (0, 1, 3)},
}
READERS: dict[str, Callable[..., NDArray[np.uint8]]] = {"here": decode_image, "Pillow": read_with_pillow}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, recipe in CASES.items():
        drawer = Drawer(Recipe.from_dict(recipe))
        images = [drawer.draw(len(drawer) * (2 * k + 1) // 8)[0] for k in range(4)]
        written = [encode_png(image) for image in images]
        print(name)
        for way, write in WRITERS.items():
            if way != "Pillow, 1 bit" or all(len(np.unique(image)) == 2 for image in images):
                size = statistics.mean(len(write(image)) for image in images)
                print(f"{mean_us(write, images):9.1f} us {size:8,.0f} bytes  {way}")
        streams = [filtered_lines(data) for data in written]
        for way, compress in COMPRESSORS.items():
            size = statistics.mean(len(compress(stream)) for stream in streams)
            print(f"{mean_us(compress, streams):9.1f} us {size:8,.0f} bytes  of these lines, deflate alone: {way}")
        for encoding in ENCODINGS:
            files = [encode_png(image, encoding) for image in images]
            for way, read in READERS.items():
                channels = images[0].shape[2]
                reading = mean_us(partial(read, channels=channels), files)
                print(f"{reading:9.1f} us {'':14}  read back, {encoding}, {way}")


if __name__ == "__main__":
    main()
