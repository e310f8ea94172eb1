"""Objects over scenes: the kernel and its twin draw what plain numpy draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from formulavision.rendering.compositing import BY_BACKGROUND, BY_MASK, WHOLE, compose
from formulavision.rendering.triton_support import runs_on

pytest.importorskip("triton", reason="Triton is not here: it comes with torch on Linux")
SIZE, SCENES = 24, 3


class Objects:
    """Random objects, many of them partly outside of the canvas, and what plain numpy makes of them."""

    def __init__(self, seed: int, depth: int, channels: int, count: int = 40) -> None:
        random = np.random.default_rng(seed)
        scenes = np.sort(random.integers(0, SCENES, count))
        self.colors = random.integers(0, 256, (count, channels)).astype(np.uint8)
        self.images = np.zeros((SCENES, SIZE, SIZE, channels), np.uint8)
        self.maps = np.zeros((SCENES, SIZE, SIZE), np.uint16)
        pixels: list[NDArray[np.uint8]] = []
        masks: list[NDArray[np.uint8]] = []
        rows = []
        for n, scene in enumerate(scenes):
            side, background = int(random.integers(1, 20)), int(random.integers(0, 3))
            # Few levels, so that many pixels equal the background.
            image = random.integers(0, 3, (side, side, depth)).astype(np.uint8)
            mask = random.integers(0, 2, (side, side)).astype(np.uint8)
            top, left = (int(place) for place in random.integers(-18, SIZE, 2))
            turn, where = int(random.integers(8)), int(random.integers(3))
            starts = sum(one.size for one in pixels), sum(one.size for one in masks)
            rows.append([scene, n + 1, *starts, side, top, left, turn, where, 2 * background + (depth == channels)])
            pixels.append(image)
            masks.append(mask)
            shape = {BY_BACKGROUND: np.any(image != background, axis=2), BY_MASK: mask > 0}.get(where, mask >= 0)
            self._paint(int(scene), n, image, shape, top, left, turn)
        assert {row[8] for row in rows} == {BY_BACKGROUND, BY_MASK, WHOLE}
        self.rows = np.array(rows, np.int64)
        self.pixels, self.masks = (np.concatenate([one.ravel() for one in each]) for each in (pixels, masks))

    def _paint(
        self, scene: int, n: int, image: NDArray[np.uint8], shape: NDArray[np.bool_], top: int, left: int, turn: int
    ) -> None:
        image = np.broadcast_to(image, (*image.shape[:2], self.colors.shape[1]))
        for mirrored, axis in ((turn & 1, 1), (turn & 2, 0)):
            if mirrored:
                image, shape = np.flip(image, axis), np.flip(shape, axis)
        if turn & 4:
            image, shape = image.swapaxes(0, 1), shape.T
        for row, column in np.argwhere(shape):
            y, x = top + row, left + column
            if 0 <= y < SIZE and 0 <= x < SIZE:
                levels = image[row, column].astype(int) * self.colors[n].astype(int) / 255
                self.images[scene, y, x] = np.floor(levels + 0.5 - 1e-9)
                self.maps[scene, y, x] = n + 1


KINDS = [(1, 1), (1, 3), (3, 3)]


@pytest.mark.parametrize(("depth", "channels"), KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_last_object_owns_a_pixel(seed: int, depth: int, channels: int) -> None:
    objects = Objects(seed, depth, channels)
    images, maps = np.zeros_like(objects.images), np.zeros_like(objects.maps)
    compose(objects.pixels, objects.masks, objects.rows, objects.colors, images, maps)
    np.testing.assert_array_equal(maps, objects.maps)
    np.testing.assert_array_equal(images, objects.images)


@pytest.mark.parametrize(("depth", "channels"), KINDS)
def test_a_device_composes_the_same(depth: int, channels: int, device: torch.device) -> None:
    from formulavision.rendering import compositing_triton

    assert runs_on(device)
    objects = Objects(9, depth, channels, count=20)
    images = torch.zeros(objects.images.shape, dtype=torch.uint8, device=device)
    maps = torch.zeros(objects.maps.shape, dtype=torch.int32, device=device)
    pixels, masks = (torch.from_numpy(array).to(device) for array in (objects.pixels, objects.masks))
    compositing_triton.compose(pixels, masks, objects.rows, objects.colors, images, maps)
    np.testing.assert_array_equal(maps.cpu().numpy(), objects.maps)
    np.testing.assert_array_equal(images.cpu().numpy(), objects.images)
