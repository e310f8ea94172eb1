"""A sheet of pictures: columns of equal length side by side, each picture with a line below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["INK", "Colour", "Column", "channels_last", "side_by_side"]

Colour = tuple[int, int, int]

INK: Colour = (20, 20, 20)
_PAPER: Colour = (255, 255, 255)
_CELL = 160
_GAP = 8
_MARGIN = 16
_FONT = 15


@dataclass(frozen=True)
class Column:
    """Images, uint8 [n, h, w, 3], and below each a line: its text and its colour.

    Attributes:
        smooth: whether images are resized with interpolation; otherwise colours stay as they are.
    """

    title: str
    images: NDArray[np.uint8]
    captions: list[tuple[str, Colour]] = field(default_factory=list)
    smooth: bool = True


def channels_last(images: torch.Tensor) -> NDArray[np.uint8]:
    """uint8 [n, c, h, w] as [n, h, w, c]."""
    result: NDArray[np.uint8] = images.permute(0, 2, 3, 1).numpy()
    return result


def side_by_side(columns: Sequence[Column], legend: Mapping[str, Colour] | None = None) -> Image.Image:
    """The columns as an RGB image; below them a legend of names by their colours."""
    font = ImageFont.load_default(size=_FONT)
    line = _FONT + _GAP
    below = line if any(column.captions for column in columns) else 0
    across, down = _CELL + _GAP, _CELL + below + _GAP
    rows = len(columns[0].images)
    width = 2 * _MARGIN + len(columns) * across - _GAP
    lines = _legend_lines(legend or {}, font, width - 2 * _MARGIN)
    top_of_legend = _MARGIN + line + rows * down
    sheet = Image.new("RGB", (width, top_of_legend + _MARGIN - _GAP + len(lines) * line), _PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(text: str, colour: Colour, left: int, top: int) -> None:
        pen.text((left + _CELL // 2, top), _shortened(text, font), fill=colour, font=font, anchor="ma")

    for i, column in enumerate(columns):
        left = _MARGIN + i * across
        write(column.title, INK, left, _MARGIN)
        resample = Image.Resampling.BICUBIC if column.smooth else Image.Resampling.NEAREST
        for row, pixels in enumerate(column.images):
            top = _MARGIN + line + row * down
            sheet.paste(Image.fromarray(pixels).resize((_CELL, _CELL), resample), (left, top))
            if column.captions:
                write(*column.captions[row], left, top + _CELL + _GAP // 2)
    for number, entries in enumerate(lines):
        top = top_of_legend + number * line
        for left, name, colour in entries:
            pen.rectangle((_MARGIN + left, top, _MARGIN + left + _FONT, top + _FONT), fill=colour, outline=INK)
            pen.text((_MARGIN + left + _FONT + _GAP // 2, top), name, fill=INK, font=font)
    return sheet


def _legend_lines(legend: Mapping[str, Colour], font: Any, width: int) -> list[list[tuple[int, str, Colour]]]:
    """Lines of (left edge, name, colour), as many entries in a line as fit."""
    lines: list[list[tuple[int, str, Colour]]] = []
    left = width
    for name, colour in legend.items():
        shown = _shortened(name, font)
        needed = _FONT + _GAP // 2 + int(font.getlength(shown)) + 2 * _GAP
        if not lines or left + needed > width:
            lines.append([])
            left = 0
        lines[-1].append((left, shown, colour))
        left += needed
    return lines


def _shortened(text: str, font: Any) -> str:
    """The text, or its beginning and its end as far as they are no wider than an image."""
    shown, keep = text, len(text)
    while font.getlength(shown) > _CELL:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown
