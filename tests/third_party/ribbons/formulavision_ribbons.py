import numpy as np
from pydantic import Field

from formulavision import Generator, Params, hookimpl, rendering


class RibbonParams(Params):
    lines: int = Field(12, ge=1, le=200, description="number of waves", json_schema_extra={"unit": "waves"})


class Ribbons(Generator):
    """Waves in neighbouring colours: categories differ in frequency and colour."""

    name = "ribbons"
    Params = RibbonParams
    columns = ("frequency", "hue")
    default_channels = 3

    def category(self, index):
        return self.stream(index).uniform([1, 0], [6, 12])

    def render(self, category, instance):
        frequency, hue = category.parameters[0]
        count = self.params.lines
        phase, height = self.random(category, instance).uniform(0.2, 0.8, (2, count, 1))
        x = np.linspace(0, 1, 200)[None].repeat(count, axis=0)
        y = height + 0.15 * np.sin(2 * np.pi * (frequency * x + phase))
        points = np.float32(self.canvas.size * np.stack([x, y], axis=2))
        colors = rendering.color.hue_circle(12)[(int(hue) + np.arange(count) % 3) % 12]
        image = np.zeros(self.canvas.shape, np.uint8)
        widths = np.full(count, 3, np.float32)
        rendering.polylines.draw_polylines(image, points, widths, colors[:, : self.canvas.channels].copy())
        return image


@hookimpl
def register_generators(register):
    register(Ribbons)
