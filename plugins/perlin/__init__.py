"""Perlin noise: a category is how many lattice cells lie across the image along x and along y.

Perlin-100 and Perlin-1296 of the FractalDB paper (table 9) are grids of 10 x 10 and 36 x 36 frequencies. The paper's
supplement, which describes them, is not at hand: the grid of frequencies 1, 2, 3, ... cells is our reading.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from formulavision import Category, ConfigError, Generator, Params, hookimpl, rendering

if TYPE_CHECKING:
    import torch

    from formulavision.generators.contract import DeviceRenderer


MOST_CELLS = 4096
"""Highest frequency of a category read from a file: the largest canvas has as many pixels."""


class PerlinParams(Params):
    grid: int = Field(
        10,
        ge=1,
        le=256,
        description="frequencies along x, and as many along y: 10 gives Perlin-100, 36 gives Perlin-1296",
        json_schema_extra={"unit": "frequencies"},
    )
    octaves: int = Field(
        1, ge=1, le=16, description="how many noises are summed", json_schema_extra={"unit": "octaves"}
    )
    persistence: float = Field(
        0.5,
        ge=0,
        le=1,
        description="amplitude of an octave over that of the octave before it",
        json_schema_extra={"unit": "ratio"},
    )
    lacunarity: float = Field(
        2.0,
        ge=1,
        le=4,
        description="frequency of an octave over that of the octave before it",
        json_schema_extra={"unit": "ratio"},
    )
    backend: Literal["kernel", "noise"] = Field(
        "kernel",
        description="what draws: our kernel, or point by point the `noise` package, which is the slow reference",
        json_schema_extra={"unit": "name"},
    )


class Perlin(Generator):
    """Gray Perlin noise (Perlin 2002, "Improving Noise"), or three independent fields of it in colour.

    Category i has the frequencies (1 + i div grid, 1 + i mod grid) along x and y. The step is one cell everywhere
    because a frequency can be told from an image of f x f cells to about 1 part in f, so to the same number of cells.
    Above size / 2 cells a frequency is finer than the pixels can show.

    An instance draws, for each channel, a lattice (which of the 256 x 256 cells of Perlin's table lies in the image's
    corner) and the offset of the image within that cell. Noise n becomes the gray level floor(127.5 n + 128). The
    whole canvas is drawn on: noise has no border, and the canvas's padding is ignored.

    Raises:
        ConfigError: the backend is ``noise`` and the package is not installed.
    """

    name = "perlin"
    version = 1
    Params = PerlinParams
    columns = ("frequency_x", "frequency_y")
    category_params = frozenset({"grid"})

    params: PerlinParams

    def __init__(self, params, canvas, seed) -> None:  # type: ignore[no-untyped-def]
        super().__init__(params, canvas, seed)
        if params.backend == "noise" and importlib.util.find_spec("noise") is None:
            raise ConfigError(
                "generator.backend: 'noise' needs the noise package: pip install formulavision[noise] (or use 'kernel')"
            )

    def max_categories(self) -> int:
        return self.params.grid**2

    def category(self, index: int) -> list[float]:
        row, column = divmod(index, self.params.grid)
        return [1 + row, 1 + column]

    def check_category(self, parameters: NDArray[np.float64]) -> None:
        if len(parameters) != 1 or parameters.min() <= 0 or parameters.max() > MOST_CELLS:
            raise ValueError(f"must be one row of two frequencies above 0, {MOST_CELLS:,} at most")

    def render(self, category: Category, instance: int) -> NDArray[np.uint8]:
        image = np.empty(self.canvas.shape, dtype=np.uint8)
        self._draw(category, instance, image)
        return image

    def render_batch(self, category: Category, instances: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        for image, instance in zip(out, instances, strict=True):
            self._draw(category, int(instance), image)

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on, upload

        if self.params.backend != "kernel" or not runs_on(device):
            return None
        from formulavision.rendering.noise_fields_triton import draw_perlin

        indices = np.array([category.index for category in categories])
        steps = np.array([category.parameters[0] for category in categories]) / self.canvas.size
        channels = self.canvas.channels

        def draw(labels: NDArray[np.int64], instances: NDArray[np.int64], out: torch.Tensor) -> None:
            offsets = self.uniforms(indices[labels], instances, 2 * channels).reshape(-1, channels, 2) * 256
            draw_perlin(
                upload(offsets, device),
                upload(steps[labels], device),
                out,
                octaves=self.params.octaves,
                persistence=self.params.persistence,
                lacunarity=self.params.lacunarity,
            )

        return draw

    def _draw(self, category: Category, instance: int, image: NDArray[np.uint8]) -> None:
        frequency_x, frequency_y = category.parameters[0]
        random = self.random(category, instance)
        size = self.canvas.size
        for channel in range(self.canvas.channels):
            # The whole part chooses the lattice that is seen, the rest where the image lies in its first cell.
            offset_x, offset_y = random.random(2) * 256
            x = rendering.noise_fields.grid_coordinates(size, frequency_x, offset_x)
            y = rendering.noise_fields.grid_coordinates(size, frequency_y, offset_y)
            rendering.noise_fields.to_gray(self._noise(x, y), image[:, :, channel])

    def _noise(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        settings = (self.params.octaves, self.params.persistence, self.params.lacunarity)
        if self.params.backend == "kernel":
            return rendering.noise_fields.perlin_field(x, y, *settings)
        import noise

        return np.array([[noise.pnoise2(u, v, *settings) for u in x.tolist()] for v in y.tolist()], dtype=np.float32)


@hookimpl
def register_generators(register) -> None:  # type: ignore[no-untyped-def]
    register(Perlin)
