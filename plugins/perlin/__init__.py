"""The generator ``perlin``: a category is the number of lattice cells across the image along x and along y.

Perlin-100 and Perlin-1296 of the FractalDB paper (table 9) are grids of 10 x 10 and 36 x 36 frequencies. The paper's
supplement, which describes them, was not available: the frequencies 1, 2, 3, ... cells are our interpretation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from pydantic import Field

from formulavision import Canvas, Category, ConfigError, Generator, Params, hookimpl, rendering

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer


MAX_FREQUENCY = 4096
"""Highest frequency of a category from a file, in cells: the largest canvas has as many pixels."""


class PerlinParams(Params):
    grid: int = Field(
        10,
        ge=1,
        le=256,
        description="number of frequencies along x, and along y; 10 gives the 100 categories of Perlin-100, 36 the "
        "1,296 of Perlin-1296",
        json_schema_extra={"unit": "frequencies"},
    )
    octaves: int = Field(
        1, ge=1, le=16, description="number of noises that are summed", json_schema_extra={"unit": "octaves"}
    )
    persistence: float = Field(
        0.5,
        ge=0,
        le=1,
        description="amplitude of an octave divided by that of the octave before it",
        json_schema_extra={"unit": "ratio"},
    )
    lacunarity: float = Field(
        2.0,
        ge=1,
        le=4,
        description="frequency of an octave divided by that of the octave before it",
        json_schema_extra={"unit": "ratio"},
    )
    backend: Literal["kernel", "noise"] = Field(
        "kernel",
        description="the code that draws. kernel: our own; noise: the `noise` package, point by point, the slow "
        "reference",
        json_schema_extra={"unit": "name"},
    )


class Perlin(Generator):
    """Gray Perlin noise (Perlin 2002, "Improving Noise"), or three independent fields of it in colour.

    Category i has the frequencies (1 + i div grid, 1 + i mod grid) along x and y. The step between frequencies is one
    cell everywhere, because the frequency of an image of f x f cells can be estimated to about 1 part in f, which is
    one cell. Frequencies above size / 2 cells are finer than the pixels can show.

    For each channel an instance draws the cell of Perlin's 256 x 256 table that lies in the image's corner, and the
    offset of the image within that cell. Noise n becomes the gray level floor(127.5 n + 128). The whole canvas is drawn
    on: noise has no border, and the canvas's padding is ignored.

    Raises:
        ConfigError: the backend is ``noise`` and the package is not installed.
    """

    name = "perlin"
    version = 1
    Params = PerlinParams
    fills_canvas = True
    columns = ("frequency_x", "frequency_y")
    category_params = frozenset({"grid"})

    params: PerlinParams

    def __init__(self, params: PerlinParams, canvas: Canvas, seed: int) -> None:
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

    def check_category(self, parameters: Float64[np.ndarray, "rows 2"]) -> None:
        if len(parameters) != 1 or parameters.min() <= 0 or parameters.max() > MAX_FREQUENCY:
            raise ValueError(f"must be one row of two frequencies above 0, {MAX_FREQUENCY:,} at most")

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        image = np.empty(self.canvas.shape, dtype=np.uint8)
        self._draw(category, instance, image)
        return image

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
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

        def draw(
            labels: Int64[np.ndarray, " n"],
            instances: Int64[np.ndarray, " n"],
            out: UInt8[torch.Tensor, "n size size channels"],
        ) -> None:
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

    def _draw(self, category: Category, instance: int, image: UInt8[np.ndarray, "size size channels"]) -> None:
        frequency_x, frequency_y = category.parameters[0]
        random = self.random(category, instance)
        size = self.canvas.size
        for channel in range(self.canvas.channels):
            # The integer part is the table's cell in the image's corner, the rest the offset within that cell.
            offset_x, offset_y = random.random(2) * 256
            x = rendering.noise_fields.grid_coordinates(size, frequency_x, offset_x)
            y = rendering.noise_fields.grid_coordinates(size, frequency_y, offset_y)
            rendering.noise_fields.to_gray(self._noise(x, y), image[:, :, channel])

    def _noise(
        self, x: Float32[np.ndarray, " width"], y: Float32[np.ndarray, " height"]
    ) -> Float32[np.ndarray, "height width"]:
        settings = (self.params.octaves, self.params.persistence, self.params.lacunarity)
        if self.params.backend == "kernel":
            return rendering.noise_fields.perlin_field(x, y, *settings)
        import noise

        return np.array([[noise.pnoise2(u, v, *settings) for u in x.tolist()] for v in y.tolist()], dtype=np.float32)


@hookimpl
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    register(Perlin)
