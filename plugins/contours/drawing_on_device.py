"""Drawing contours and scenes of them on a GPU, with counter-based random numbers.

The host draws the few uniform numbers of each contour; the device computes the corners, draws the lines and fills the
areas, all at once: each has a number, and the highest number at a pixel stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from numpy.typing import NDArray

from formulavision import Category
from formulavision.rendering.pixel_lines_triton import draw_polygons, fill_even_odd, look_up
from formulavision.rendering.triton_support import in_parts, keep, upload

from . import shapes
from .independent import frames, gray_levels, shapes_of
from .parameters import ContourParams, RcdbParams, SegRcdbParams, VisualAtomsParams
from .shapes_triton import independent_corners
from .waves import wave_frames, wave_shifts

__all__ = ["RcdbRenderer", "SegRcdbScenes", "VisualAtomsRenderer"]

Uniforms = Callable[..., Float64[np.ndarray, " numbers"]]


class _Contours:
    """Corners of contours of a list of categories, on a device.

    Attributes:
        parameters: of the categories.
        vertices, lines: their numbers of vertices and lines.
        shifts, first_shifts: distances that vertices move outwards, and the index of each category's first; None where
            a frame has the one of all vertices.
    """

    def __init__(
        self,
        params: ContourParams,
        size: int,
        key: tuple[int, int],
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.params = params
        self.size = size
        self.key = key
        self.device = device
        self.parameters = np.concatenate([category.parameters for category in categories])
        self.vertices, self.lines = self.parameters[:, :2].astype(np.int64).T
        directions, self.starts = shapes.packed_directions(self.vertices)
        self.directions = keep(directions, device)
        self.shifts: torch.Tensor | None = None
        self.first_shifts = np.zeros(len(categories), np.int64)

    @property
    def most_corners(self) -> int:
        """Largest number of coordinates of a contour."""
        return int((2 * self.vertices * self.lines).max())

    def corners(
        self,
        labels: Int64[np.ndarray, " n"],
        counters: Int64[np.ndarray, "n 3"],
        placed: Float32[np.ndarray, "n 6"],
    ) -> tuple[torch.Tensor, Int64[np.ndarray, " n"]]:
        """Corners of contours, and the index of each contour's first one.

        Args:
            labels: the categories.
            counters: the last three words of each contour's counter.
            placed: their frames.
        """
        vertices, lines = self.vertices[labels], self.lines[labels]
        ends = np.cumsum(2 * vertices * lines)
        starts = ends - 2 * vertices * lines
        contours = np.column_stack(
            [self.starts[vertices], vertices, lines, starts, counters, self.first_shifts[labels]]
        )
        corners = torch.empty(int(ends[-1]), dtype=torch.int32, device=self.device)
        independent_corners(
            self.directions,
            self.shifts,
            upload(contours, self.device),
            upload(placed, self.device),
            corners,
            int(vertices.max()),
            self.key,
        )
        return corners, starts

    def polygons(
        self,
        labels: Int64[np.ndarray, " n"],
        starts: Int64[np.ndarray, " n"],
        lines: Int64[np.ndarray, " n"],
        images: Int64[np.ndarray, " n"],
        numbers: Int64[np.ndarray, " n"],
    ) -> torch.Tensor:
        """What the kernels take of a line of each contour: of line ``lines`` in ``images``, with ``numbers``."""
        vertices = self.vertices[labels]
        return upload(np.column_stack([starts + 2 * vertices * lines, vertices, images, numbers]), self.device)


def _within(counts: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " total"], Int64[np.ndarray, " total"]]:
    """For each thing of groups of ``counts`` things: its group, and its place in the group."""
    groups = np.repeat(np.arange(len(counts)), counts)
    return groups, np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)


class RcdbRenderer:
    """Draws contours of RCDB. Beside the images it takes 64 MiB of scratch memory, or that of one image."""

    def __init__(
        self,
        params: RcdbParams,
        size: int,
        seed: int,
        background: int,
        uniforms: Uniforms,
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.contours = _Contours(params, size, shapes.kernel_key(seed, b"inst"), categories, device)
        self.indices = np.array([category.index for category in categories], np.int64)
        self.area = shapes.AREAS[params.outline]
        self.background = background
        self.uniforms = uniforms

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        masks: UInt8[torch.Tensor, "n size size"] | None = None,
    ) -> None:
        for part in in_parts(len(labels), max(self.contours.size**2, self.contours.most_corners)):
            self._draw(labels[part], instances[part], out[part], None if masks is None else masks[part])

    def _draw(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        masks: UInt8[torch.Tensor, "n size size"] | None,
    ) -> None:
        contours, device = self.contours, self.contours.device
        indices, lines = self.indices[labels], contours.lines[labels]
        uniform = self.uniforms(indices, instances, 5 + lines)
        firsts = np.cumsum(5 + lines) - (5 + lines)
        own = uniform[firsts[:, None] + np.arange(5)]
        shape = shapes_of(contours.params, own[:, :3])
        placed = frames(contours.params, contours.size, contours.parameters[labels], shape, own[:, 3:])
        counters = np.column_stack([instances & 0xFFFF_FFFF, indices, instances >> 32])
        corners, starts = contours.corners(labels, counters, placed)
        owners = torch.zeros((len(labels), contours.size, contours.size), dtype=torch.int32, device=device)
        images, last = np.arange(len(labels)), lines - 1
        if self.area > 0:
            fill_even_odd(corners, contours.polygons(labels, starts, last, images, np.ones_like(images)), owners)
        if self.area == 1:
            fill_even_odd(corners, contours.polygons(labels, starts, 0 * last, images, 0 * images + 2), owners)
        image, line = _within(lines)
        draw_polygons(corners, contours.polygons(labels[image], starts[image], line, image, line + 3), owners)
        # Numbers: 0 background, 1 the area, 2 what is erased of it, then the lines.
        grays = gray_levels(uniform[firsts[image] + 5 + line])
        values = grays if self.background else 255 - grays
        table = np.full(len(image) + 3 * len(labels), self.background, np.uint8)
        tables = np.cumsum(lines + 3) - (lines + 3)
        table[tables[image] + 3 + line] = values
        table[tables + 1] = table[tables + 2 + lines]
        look_up(owners, upload(table, device), upload(tables, device), out)
        if masks is not None:
            torch.logical_and(owners > 0, owners != 2, out=masks)


class VisualAtomsRenderer:
    """Draws visual atoms. Beside the images it takes 64 MiB of scratch memory, or that of one image."""

    def __init__(
        self,
        params: VisualAtomsParams,
        size: int,
        seed: int,
        uniforms: Uniforms,
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.params = params
        self.contours = _Contours(params, size, shapes.kernel_key(seed, b"inst"), categories, device)
        self.indices = np.array([category.index for category in categories], np.int64)
        self.uniforms = uniforms
        shifts = [wave_shifts(params, size, parameters) for parameters in self.contours.parameters]
        self.contours.shifts = keep(np.concatenate(shifts), device)
        self.contours.first_shifts = np.cumsum(self.contours.vertices) - self.contours.vertices

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        masks: UInt8[torch.Tensor, "n size size"] | None = None,
    ) -> None:
        for part in in_parts(len(labels), max(self.contours.size**2, self.contours.most_corners)):
            self._draw(labels[part], instances[part], out[part], None if masks is None else masks[part])

    def _draw(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        masks: UInt8[torch.Tensor, "n size size"] | None,
    ) -> None:
        contours, device = self.contours, self.contours.device
        indices, lines = self.indices[labels], contours.lines[labels]
        uniform = self.uniforms(indices, instances, 2 + lines)
        firsts = np.cumsum(2 + lines) - (2 + lines)
        centres = uniform[firsts[:, None] + np.arange(2)]
        placed = np.zeros((len(labels), 6), np.float32)
        placed[:, :5] = wave_frames(self.params, contours.size, contours.parameters[labels], centres)
        counters = np.column_stack([instances & 0xFFFF_FFFF, indices, instances >> 32])
        corners, starts = contours.corners(labels, counters, placed)
        owners = torch.zeros((len(labels), contours.size, contours.size), dtype=torch.int32, device=device)
        image, line = _within(lines)
        draw_polygons(corners, contours.polygons(labels[image], starts[image], line, image, line + 1), owners)
        tables = np.cumsum(lines + 1) - (lines + 1)
        table = np.zeros(len(image) + len(labels), np.uint8)
        table[tables[image] + 1 + line] = gray_levels(uniform[firsts[image] + 2 + line])
        look_up(owners, upload(table, device), upload(tables, device), out)
        if masks is not None:
            torch.gt(owners, 0, out=masks)


class SegRcdbScenes:
    """Draws scenes of SegRCDB. Beside the images it takes 100 MiB of scratch memory, or that of one scene."""

    def __init__(
        self,
        params: SegRcdbParams,
        size: int,
        seed: int,
        uniforms: Uniforms,
        categories: Sequence[Category],
        device: torch.device,
    ) -> None:
        self.params = params
        self.contours = _Contours(params, size, shapes.kernel_key(seed, b"scen"), categories, device)
        self.area = shapes.AREAS[params.mask]
        self.uniforms = uniforms

    def __call__(
        self,
        indices: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        object_maps: torch.Tensor,
    ) -> list[Int64[np.ndarray, " objects"]]:
        labels: list[Int64[np.ndarray, " objects"]] = []
        corners = int(2 * self.params.objects * (self.contours.vertices * self.contours.lines).mean())
        for part in in_parts(len(indices), max(self.contours.size**2, corners)):
            labels += self._draw(indices[part], out[part], object_maps[part])
        return labels

    def _draw(
        self,
        indices: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        object_maps: torch.Tensor,
    ) -> list[Int64[np.ndarray, " objects"]]:
        contours, device, objects, size = self.contours, self.contours.device, self.params.objects, self.contours.size
        none = np.full_like(indices, -1)
        # The gray levels come behind numbers that say how many there are: the stream is begun twice.
        own = self.uniforms(none, indices, 3 * objects).reshape(len(indices) * objects, 3)
        labels = (own[:, 0] * len(contours.parameters)).astype(np.int64)
        scene, number = _within(np.full(len(indices), objects))
        parameters, lines = contours.parameters[labels], contours.lines[labels]
        placed = frames(self.params, size, parameters, parameters[:, 4:], own[:, 1:])
        counters = np.column_stack([indices[scene] & 0xFFFF_FFFF, number, indices[scene] >> 32])
        corners, starts = contours.corners(labels, counters, placed)
        which, line = _within(lines)
        lines_of_scenes = np.bincount(scene, weights=lines).astype(np.int64)
        _, running = _within(lines_of_scenes)
        owners = torch.zeros((len(indices), size, size), dtype=torch.int32, device=device)
        draw_polygons(corners, contours.polygons(labels[which], starts[which], line, scene[which], running + 1), owners)
        tables = np.cumsum(lines_of_scenes + 1) - (lines_of_scenes + 1)
        counts = 3 * objects + lines_of_scenes
        uniform = self.uniforms(none, indices, counts)
        places = (np.cumsum(counts) - counts)[scene[which]] + 3 * objects + running
        self._look_up(owners, tables, scene[which], running, gray_levels(uniform[places]), out)
        maps = object_maps[..., None]
        if self.area == 0:
            self._look_up(owners, tables, scene[which], running, (number[which] + 1).astype(np.int32), maps)
        else:
            owners.zero_()
            # Numbers of an object: 3 k + 1 its area, 3 k + 2 what is erased, 3 k + 3 its outline.
            erased = self.area == 1
            fill_even_odd(corners, contours.polygons(labels, starts, lines - 1, scene, 3 * number + 1), owners)
            if erased:
                fill_even_odd(corners, contours.polygons(labels, starts, 0 * lines, scene, 3 * number + 2), owners)
            for first in (lines - 1, 0 * lines) if erased else (lines - 1,):
                draw_polygons(corners, contours.polygons(labels, starts, first, scene, 3 * number + 3), owners)
            table = np.zeros((objects, 3), np.int32)
            table[:, ::2] = np.arange(1, objects + 1)[:, None]
            values = upload(np.append(np.int32(0), table.ravel()).astype(np.int32), device)
            look_up(owners, values, upload(0 * indices, device), maps)
        return np.split(labels, len(indices))

    def _look_up(
        self,
        owners: torch.Tensor,
        tables: Int64[np.ndarray, " n"],
        scene: Int64[np.ndarray, " lines"],
        running: Int64[np.ndarray, " lines"],
        values: NDArray[np.generic],
        out: torch.Tensor,
    ) -> None:
        """Fill images with the values of all lines: those of each scene stand behind a 0, the background."""
        table = np.zeros(len(values) + len(tables), values.dtype)
        table[tables[scene] + 1 + running] = values
        look_up(owners, upload(table, self.contours.device), upload(tables, self.contours.device), out)
