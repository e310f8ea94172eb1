"""Drawing a fractal on the CPU: from a category and weights to the points of an orbit, and from these to an image."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Float64, UInt8, UInt16, UInt32

from formulavision import Canvas, Category
from formulavision.rendering import color, mersenne, points
from formulavision.rendering.memory import scratch
from formulavision.rendering.random import kernel_key

from .orbits import independent_orbit, lookup_tables, published_orbit, select
from .parameters import IfsParams
from .patches_published import published_masks
from .systems import add_identity, cumulative_probabilities, thresholds

__all__ = ["FractalDrawing", "palette", "published_draws"]

GRAY = 127
"""Gray level of lit pixels: the published images draw (127, 127, 127) on black."""
HUES = 128
ALL_LIT = 0b111_111_111
"""Mask of a full patch."""


def palette(channels: int) -> UInt8[np.ndarray, "colors channels"]:
    """Black, then the colours of lit pixels: one gray level, or 128 hues.

    The published files hold the hues with red and blue exchanged, and so does this.
    """
    if channels == 1:
        return np.array([[0], [GRAY]], np.uint8)
    return np.concatenate([np.zeros((1, 3), np.uint8), color.hue_circle(HUES)[:, ::-1]])


def published_draws(dots: int) -> Float64[np.ndarray, " dots"]:
    """Random numbers by which the published orbit selects transformations, the same in all categories."""
    return mersenne.legacy_random(100).random_sample(dots)


class FractalDrawing:
    """Draws the fractals of one recipe on the CPU.

    Arrays that methods return are scratch memory: the next call of the method in the same thread overwrites them.
    """

    def __init__(self, params: IfsParams, canvas: Canvas, seed: int) -> None:
        self.params = params
        self.canvas = canvas
        self.seed = seed
        self.palette = palette(canvas.channels)
        self._selected: tuple[Category, UInt8[np.ndarray, " dots"]] | None = None

    def owners(
        self, category: Category, weights: Float64[np.ndarray, "rows 6"], orbit: int
    ) -> UInt32[np.ndarray, "size size"]:
        """The last point that draws at each pixel, as ``rendering.points.patch_owners`` writes it.

        Args:
            category: the category.
            weights: factors of a to f, one row for all transformations or one for each.
            orbit: number of the orbit in the category, for the random numbers of an independent orbit.
        """
        columns, rows, length = self.orbit(category, weights, orbit)
        size = self.canvas.size
        latest = scratch("latest", (size, size), np.uint32)
        points.mark(columns, rows, length, latest)
        if self.params.patch == "point":
            return latest
        owners = scratch("owners", (size, size), np.uint32)
        points.patch_owners(latest, owners)
        return owners

    def orbit(
        self, category: Category, weights: Float64[np.ndarray, "rows 6"], orbit: int
    ) -> tuple[UInt16[np.ndarray, " dots"], UInt16[np.ndarray, " dots"], int]:
        """Columns and rows of the points, and the number of points that are drawn; the arguments are as of ``owners``.

        The published orbit ends before an overflow.
        """
        size, padding, dots = self.canvas.size, self.canvas.padding, self.params.dots
        columns, rows = (scratch(name, (dots,), np.uint16) for name in ("columns", "rows"))
        length = dots
        if self.params.orbit == "published":
            length = points.to_pixels(*self._published_points(category, weights), size, padding, columns, rows)
        else:
            counter = (orbit, category.index, *kernel_key(self.seed, b"walk"))
            tables = lookup_tables(category.parameters[:, :6] * weights, thresholds(category.parameters))
            independent_orbit(*tables, *counter, size, padding, columns, rows)
        return columns, rows, length

    def published_length(self, category: Category, weights: Float64[np.ndarray, "rows 6"]) -> int:
        """Number of points of a published orbit that are drawn, as ``orbit`` returns it, without their pixels."""
        x, y = self._published_points(category, weights)
        return points.valid_length(y, points.valid_length(x, len(x)))

    def _published_points(
        self, category: Category, weights: Float64[np.ndarray, "rows 6"]
    ) -> tuple[Float64[np.ndarray, " dots"], Float64[np.ndarray, " dots"]]:
        x, y = (scratch(name, (self.params.dots,), np.float64) for name in ("x", "y"))
        published_orbit(add_identity(category.parameters[:, :6] * weights), self._selection(category), x, y)
        return x, y

    def masks(
        self, category: Category, draw: int, stream: UInt32[np.ndarray, " 625"] | None = None
    ) -> UInt16[np.ndarray, " masks"]:
        """Masks of the 3x3 patches for ``rendering.points.shade``: a 0, then one for each point or one for all points.

        Args:
            category: the category.
            draw: number of the draw of patches in the category.
            stream: state of Python's random, from which published patches are drawn; it is moved on.
        """
        if self.params.patch in ("full", "point"):
            return np.array([0, ALL_LIT if self.params.patch == "full" else 1], np.uint16)
        masks = scratch("masks", (1 + (self.params.dots if self.params.patch == "random" else 1),), np.uint16)
        masks[0] = 0
        if stream is not None:
            published_masks(stream, masks[1:])
        else:
            points.patch_masks(masks[1:], draw, category.index, *kernel_key(self.seed, b"mask"))
        return masks

    def shade(
        self, owners: UInt32[np.ndarray, "size size"], masks: UInt16[np.ndarray, " masks"]
    ) -> UInt8[np.ndarray, "size size"]:
        """Gray levels, or on a canvas of three channels numbers of colours; row 0 is the lowest y."""
        image = scratch("image", owners.shape, np.uint8)
        if self.canvas.channels == 1:
            points.shade(owners, masks, GRAY, image)
        else:
            points.shade_in_colors(owners, masks, HUES, image)
        return image

    def turn(
        self, image: UInt8[np.ndarray, "size size"], flip: int, out: UInt8[np.ndarray, "size size channels"]
    ) -> None:
        """Write what ``shade`` returned to ``out``, flipped: 0 not, 1 top-bottom, 2 left-right, 3 both."""
        if flip in (2, 3):
            mirrored = scratch("mirrored", image.shape, np.uint8)
            points.mirror(image, mirrored)
            image = mirrored
        if flip in (0, 2):
            image = image[::-1]  # row 0 of the points is the lowest y, row 0 of an image its top
        if self.canvas.channels == 1:
            out[:, :, 0] = image
        else:
            np.take(self.palette, image, axis=0, out=out)

    def _selection(self, category: Category) -> UInt8[np.ndarray, " dots"]:
        """The transformations that the published orbit selects: one sequence a category, since weights leave p."""
        selected = self._selected  # another thread may replace it
        if selected is None or selected[0] is not category:
            selection = np.empty(self.params.dots, np.uint8)
            select(self._draws, cumulative_probabilities(category.parameters), selection)
            selected = self._selected = (category, selection)
        return selected[1]

    @cached_property
    def _draws(self) -> Float64[np.ndarray, " dots"]:
        return published_draws(self.params.dots)
