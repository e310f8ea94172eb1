import numpy as np
from pydantic import Field

from formulavision import Generator, Params, hookimpl


class RingParams(Params):
    largest: float = Field(12.0, ge=2, le=100, description="most rings", json_schema_extra={"unit": "rings"})


class Rings(Generator):
    """Concentric rings around a centre that moves: categories differ in the number of rings."""

    name = "rings"
    Params = RingParams

    def category(self, index):
        return [self.stream(index).uniform(1, self.params.largest)]

    def render(self, category, instance):
        center = self.random(category, instance).uniform(0.3, 0.7, 2)
        y, x = np.mgrid[: self.canvas.size, : self.canvas.size] / self.canvas.size
        turns = category.parameters[0, 0] * np.hypot(x - center[0], y - center[1])
        return np.uint8(127.5 + 127 * np.cos(2 * np.pi * turns))


@hookimpl
def register_generators(register):
    register(Rings)
