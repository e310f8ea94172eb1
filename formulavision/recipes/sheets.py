"""Contact sheets: pictures that show a recipe's images in rows and columns.

Without a scene, a row is a category and a column an instance. A scene has its objects beside it, each in a colour.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from formulavision.generators.contract import Scene
from formulavision.recipes.drawing import Drawer, scene_name
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe
from formulavision.util.errors import ConfigError
from formulavision.util.files import check_new_file, write_png
from formulavision.util.progress import is_watched, progress_bars
from formulavision.util.text import counted

__all__ = ["color_objects", "contact_sheet", "preview"]

_WIDEST = 2000
"""Width of a sheet in pixels; images shrink to fit."""
_SMALLEST = 64
"""Side of a shown image in pixels, below which small images are enlarged by a whole factor."""
_GAP = 4
_MARGIN = 12
_INK = (20, 20, 20)
_PAPER = (255, 255, 255)


def contact_sheet(drawer: Drawer | RecipeLike, *, categories: int = 8, instances: int = 10) -> Image.Image:
    """Images of a recipe on one sheet, labelled with category names and instance numbers, or with scene numbers.

    Args:
        drawer: draws the recipe's images; or the recipe, in any form that :func:`preview` takes.
        categories: rows, spread evenly over the categories of each part of the recipe; or over its scenes.
        instances: columns, spread evenly over a category's instances. A scene takes two, one for its objects, and a row
            has scenes that follow each other.

    Returns:
        An RGB image about 2,000 pixels wide at most; images are shown at their size, shrunk to fit, or enlarged by a
        whole factor if they are smaller than 64 pixels.

    Raises:
        ConfigError: fewer than one row or column is asked for, or there is no such recipe.
        PluginError: a generator raised.
    """
    drawer = drawer if isinstance(drawer, Drawer) else Drawer(drawer)
    grid = (_grid_of_scenes if drawer.recipe.is_scene else _grid_of_instances)(drawer, categories, instances)
    return _draw_grid(grid, _title(drawer.recipe), drawer.recipe.canvas.size)


def color_objects(scene: Scene) -> UInt8[np.ndarray, "size size 3"]:
    """A picture of a scene's objects: the hue says the category, the brightness tells objects of one category apart."""
    colors = np.zeros((len(scene.categories) + 1, 3))
    categories = scene.categories.tolist()
    for k, category in enumerate(categories, 1):
        # Multiples of the golden ratio spread any number of hues.
        darkness = 0.6 * categories[: k - 1].count(category) / max(2, categories.count(category) - 1)
        colors[k] = colorsys.hsv_to_rgb(category * 0.618034 % 1, 0.75, 1 - darkness)
    return (255 * colors).astype(np.uint8)[scene.object_map]


@dataclass(frozen=True)
class _Grid:
    """Names of rows and columns, and the images of each row: uint8 [size, size, channels]."""

    rows: list[str]
    columns: list[str]
    images: Iterator[list[UInt8[np.ndarray, "size size channels"]]]


def _grid_of_instances(drawer: Drawer, categories: int, instances: int) -> _Grid:
    parts = drawer.recipe.all_parts
    labels = _spread_over_parts([part.num_categories for part in parts], categories)
    columns = _spread(min(part.num_instances for part in parts), instances, "instances")
    return _Grid(
        rows=[drawer.categories[label].name for label in labels],
        columns=[str(column) for column in columns],
        images=(list(drawer.draw_instances(np.full(len(columns), label), np.array(columns))) for label in labels),
    )


def _grid_of_scenes(drawer: Drawer, categories: int, instances: int) -> _Grid:
    scenes = len(drawer.recipe)
    if instances < 1:
        raise ConfigError(f"instances: {instances} is not allowed: must be at least 1")
    columns = range(min(max(1, instances // 2), scenes))
    # No scene is shown twice, also where there are few: what rows leave over lies between them.
    rows = _spread(scenes // len(columns), categories, "categories")
    between = (scenes % len(columns)) / max(1, scenes // len(columns) - 1)
    starts = [row * len(columns) + int(row * between) for row in rows]

    def row(start: int) -> list[UInt8[np.ndarray, "size size channels"]]:
        drawn = drawer.draw_scenes(start + np.arange(len(columns)))
        return [panel for scene in drawn for panel in (scene.image, color_objects(scene))]

    return _Grid(
        rows=[scene_name(start) for start in starts],
        columns=[name for column in columns for name in (f"+{column}", "objects")],
        images=map(row, starts),
    )


def _title(recipe: Recipe) -> list[str]:
    generators = [f"{part.generator.name}, version {part.generator.version}" for part in recipe.all_parts]
    facts = f"{recipe.facts()}, seed {recipe.seed}"
    if not recipe.is_scene and not recipe.parts:
        size = recipe.canvas.size
        facts = (
            f"{counted(recipe.num_categories, 'category')} x {counted(recipe.num_instances, 'instance')}, "
            f"{size} x {size} pixels, seed {recipe.seed}"
        )
    return [f"{'; '.join(dict.fromkeys(generators))}, recipe {recipe.id}", facts]


def _draw_grid(grid: _Grid, title: list[str], size: int) -> Image.Image:
    font_size = int(np.clip(size // 8, 12, 20))
    font = ImageFont.load_default(size=font_size)
    # Names of columns must not run into each other, however small the images are.
    narrowest = max(_width(font, column) for column in grid.columns) + _GAP
    left = _MARGIN + max(_width(font, row) for row in grid.rows) + 2 * _GAP
    room = (_WIDEST - left - _MARGIN) // len(grid.columns) - _GAP
    side = max(1, min(size * max(1, min(_SMALLEST, room) // size), room))
    pitch = max(side + _GAP, narrowest)

    line = font_size + _GAP
    top = _MARGIN + (len(title) + 1) * line + _GAP
    width = max(left + len(grid.columns) * pitch, _MARGIN + max(_width(font, text) for text in title)) + _MARGIN
    # A row is at least as high as its label.
    row_pitch = max(side + _GAP, line)
    sheet = Image.new("RGB", (width, top + len(grid.rows) * row_pitch + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, text in enumerate(title):
        pen.text((_MARGIN, _MARGIN + i * line), text, fill=_INK, font=font)
    for j, column in enumerate(grid.columns):
        pen.text((left + j * pitch + side // 2, top - _GAP), column, fill=_INK, font=font, anchor="ms")
    for i, (row, images) in enumerate(zip(grid.rows, grid.images, strict=True)):
        y = top + i * row_pitch
        pen.text((left - 2 * _GAP, y + side // 2), row, fill=_INK, font=font, anchor="rm")
        for j, pixels in enumerate(images):
            image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
            if side != size:
                image = image.resize(
                    (side, side), Image.Resampling.LANCZOS if side < size else Image.Resampling.NEAREST
                )
            sheet.paste(image, (left + j * pitch, y))
    return sheet


def preview(
    recipe: RecipeLike,
    out: str | Path,
    *,
    categories: int = 8,
    instances: int = 10,
    overwrite: bool = False,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    device: str = "cpu",
    note: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a recipe's contact sheet as a PNG.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        out: the PNG to write; its folder is made where it is missing.
        categories, instances: rows and columns, as of :func:`contact_sheet`.
        overwrite: replace a file that is there.
        workers: processes to search categories with.
        progress: called with the number of categories found so far; None: a bar on a terminal and in a notebook.
        device: what draws: cpu, or cuda (cuda:N), where the generator can draw there.
        note: called with a line of text where the generator cannot draw there, and the CPU draws.

    Returns:
        The path of the PNG.

    Raises:
        ConfigError: fewer than one row or column is asked for, or there is no such device.
        PluginError: the generator raised.
        FolderError: the file exists, or cannot be written.
    """
    out = Path(out)
    check_new_file(out, overwrite=overwrite)
    recipe = as_recipe(recipe)
    with progress_bars(show=progress is None and is_watched()) as bars:
        total = recipe.num_categories
        found = progress or (lambda n: bars.categories(n, total))
        drawer = Drawer(recipe, workers=workers, progress=found, device=device, note=note)
    write_png(out, contact_sheet(drawer, categories=categories, instances=instances))
    return out


def _spread(available: int, wanted: int, what: str) -> list[int]:
    if wanted < 1:
        raise ConfigError(f"{what}: {wanted} is not allowed: must be at least 1")
    return [int(i) for i in np.linspace(0, available - 1, min(wanted, available)).round()]


def _spread_over_parts(available: list[int], wanted: int) -> list[int]:
    """Labels that are spread evenly over the categories of each part. Every part has one, if there are enough rows."""
    if wanted < len(available):
        chosen = _spread(len(available), wanted, "categories")
        return [sum(available[:part]) for part in chosen]
    rows = [1] * len(available)
    for _ in range(min(wanted, sum(available)) - len(available)):
        # The next row goes to the part with the most categories a row (D'Hondt's method).
        shares = [count / (given + 1) if given < count else 0 for count, given in zip(available, rows, strict=True)]
        rows[int(np.argmax(shares))] += 1
    firsts = np.cumsum(available) - available
    pairs = zip(firsts.tolist(), available, rows, strict=True)
    return [first + row for first, count, given in pairs for row in _spread(count, given, "categories")]


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return int(np.ceil(font.getlength(text)))
