"""Pictures of every parameter of every generator at the ends of its range, for the reference pages.

    python benchmarks/parameters.py --out docs/images/parameters

One picture a generator: a row for each parameter, its images at the ends or choices, with the value below. Left out are
parameters that make no difference to this image (seeds, sizes of published sets, parameters of scenes). An end that the
generator refuses, or that takes longer than ``--seconds``, has a dash. The category is the fourth one, or the last of
fewer.
"""

from __future__ import annotations

import argparse
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from formulavision import ConfigError, Drawer, FormulaVisionError, Recipe, plugins
from formulavision.testing.ends import ends_of

SIZE, NAME, ROW = 64, 150, 84


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="generators; without them, all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, entry in sorted(plugins().generators.items()):
        if chosen.names and name not in chosen.names:
            continue
        draw_in_time(name, {}, 600)  # kernels are compiled now
        rows: dict[str, list[tuple[str, Image.Image | None]]] = {}
        for parameter, value in ends_of(entry.generator.Params):
            if value is not None:
                image = draw_in_time(name, with_its_pair(entry.generator.Params, parameter, value), chosen.seconds)
                rows.setdefault(parameter, []).append((shown(value), image))
        rows = {parameter: images for parameter, images in rows.items() if differ(images)}
        if rows:
            sheet(rows).save(chosen.out / f"{name}.png", optimize=True)
            print(f"{name}: {len(rows)} parameters", flush=True)


def differ(images: list[tuple[str, Image.Image | None]]) -> bool:
    return len({image.tobytes() for _, image in images if image is not None}) > 1


def with_its_pair(params: Any, name: str, value: Any) -> list[dict[str, Any]]:
    """The parameter alone; then with the other end of its range, ``x_min`` or ``x_max``, at the same value."""
    other = name.removesuffix("_min") + "_max" if name.endswith("_min") else name.removesuffix("_max") + "_min"
    both = [{name: value}, {name: value, other: value}]
    return both if other in params.model_fields else both[:1]


def shown(value: Any) -> str:
    if isinstance(value, float):
        return "above 0" if 0 < value < 1e-300 else f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def draw_in_time(name: str, choices: Any, seconds: float) -> Image.Image | None:
    """The image, or None where the generator refuses the parameters or is not done in time."""
    for params in choices or [{}]:
        here, there = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=draw, args=(name, params, there))
        process.start()
        pixels = here.recv() if here.poll(seconds) else None
        process.kill()
        process.join()
        if pixels is not None:
            return Image.fromarray(pixels)
    return None


def draw(name: str, params: dict[str, Any], there: Connection) -> None:
    entry = plugins()[name].generator
    settings = {"name": name, **params}
    canvas = {"size": SIZE, "channels": entry.default_channels}
    for categories in (4, 1):
        try:
            drawer = Drawer(
                Recipe.from_dict({"generator": settings, "categories": categories, "instances": 1, "canvas": canvas})
            )
            there.send(drawer.draw(len(drawer) - 1)[0].squeeze())
            return
        except ConfigError:  # perhaps there are fewer categories
            continue
        except FormulaVisionError:
            break
    there.send(None)


def sheet(rows: dict[str, list[tuple[str, Image.Image | None]]]) -> Image.Image:
    font = ImageFont.load_default(size=11)
    width = NAME + max(len(images) for images in rows.values()) * (SIZE + 12)
    picture = Image.new("RGB", (width, ROW * len(rows)), "white")
    pen = ImageDraw.Draw(picture)
    for row, (name, images) in enumerate(rows.items()):
        pen.text((4, row * ROW + SIZE // 2 - 6), name, "black", font)
        for column, (text, image) in enumerate(images):
            left, top = NAME + column * (SIZE + 12), row * ROW
            if image is None:
                pen.text((left + SIZE // 2, top + SIZE // 2), "-", "gray", font)
            else:
                picture.paste(image, (left, top))
                pen.rectangle((left, top, left + SIZE - 1, top + SIZE - 1), outline=(200, 200, 200))
            pen.text((left + SIZE / 2, top + SIZE + 8), text, (90, 90, 90), font, anchor="mm")
    colors = np.asarray(picture)
    gray = bool((colors[..., :1] == colors).all())
    return picture.convert("L") if gray else picture.quantize(128)


if __name__ == "__main__":
    main()
