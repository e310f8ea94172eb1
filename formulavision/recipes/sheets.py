"""Contact sheets: pictures that show a recipe's images, a row for each category and a column for each instance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import RecipeLike, as_recipe
from formulavision.util.errors import ConfigError
from formulavision.util.files import check_new_file, write_png
from formulavision.util.progress import is_watched, progress_bars

__all__ = ["contact_sheet", "preview"]

_WIDEST = 2000
"""Width of a sheet in pixels; images shrink to fit."""
_SMALLEST = 64
"""Side of a shown image in pixels, below which small images are enlarged by a whole factor."""
_GAP = 4
_MARGIN = 12
_INK = (20, 20, 20)
_PAPER = (255, 255, 255)


def contact_sheet(drawer: Drawer | RecipeLike, *, categories: int = 8, instances: int = 10) -> Image.Image:
    """Images of a recipe on one sheet, labelled with category names and instance numbers.

    Args:
        drawer: draws the recipe's images; or the recipe, in any form that :func:`preview` takes.
        categories: rows, spread evenly over the recipe's categories.
        instances: columns, spread evenly over a category's instances.

    Returns:
        An RGB image about 2,000 pixels wide at most; images are shown at their size, shrunk to fit, or enlarged by a
        whole factor if they are smaller than 64 pixels.

    Raises:
        ConfigError: fewer than one row or column is asked for, or there is no such recipe.
        PluginError: the generator raised.
    """
    drawer = drawer if isinstance(drawer, Drawer) else Drawer(drawer)
    recipe = drawer.recipe
    rows = _spread(recipe.num_categories, categories, "categories")
    columns = _spread(recipe.num_instances, instances, "instances")

    font_size = int(np.clip(recipe.canvas.size // 8, 12, 20))
    font = ImageFont.load_default(size=font_size)
    # Instance numbers must not run into each other, however small the images are.
    narrowest = max(_width(font, str(column)) for column in columns) + _GAP
    left = _MARGIN + max(_width(font, drawer.categories[row].name) for row in rows) + 2 * _GAP
    room = (_WIDEST - left - _MARGIN) // len(columns) - _GAP
    size = recipe.canvas.size
    side = max(1, min(size * max(1, min(_SMALLEST, room) // size), room))
    pitch = max(side + _GAP, narrowest)

    generator = recipe.all_parts[0].generator
    title = [
        f"{generator.name}, version {generator.version}, recipe {recipe.id}",
        f"{recipe.num_categories:,} categories x {recipe.num_instances:,} instances, "
        f"{recipe.canvas.size} x {recipe.canvas.size} pixels, seed {recipe.seed}",
    ]
    line = font_size + _GAP
    top = _MARGIN + (len(title) + 1) * line + _GAP
    width = max(left + len(columns) * pitch, _MARGIN + max(_width(font, text) for text in title)) + _MARGIN
    # A row is at least as high as its label.
    row_pitch = max(side + _GAP, line)
    sheet = Image.new("RGB", (width, top + len(rows) * row_pitch + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, text in enumerate(title):
        pen.text((_MARGIN, _MARGIN + i * line), text, fill=_INK, font=font)
    for j, column in enumerate(columns):
        pen.text((left + j * pitch + side // 2, top - _GAP), str(column), fill=_INK, font=font, anchor="ms")
    for i, row in enumerate(rows):
        y = top + i * row_pitch
        pen.text((left - 2 * _GAP, y + side // 2), drawer.categories[row].name, fill=_INK, font=font, anchor="rm")
        images, _ = drawer.draw_batch([row * recipe.num_instances + column for column in columns])
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
        categories: rows, spread evenly over the recipe's categories.
        instances: columns, spread evenly over a category's instances.
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


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return int(np.ceil(font.getlength(text)))
