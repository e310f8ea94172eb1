import numpy as np

from formulavision import Generator, hookimpl


class Coins(Generator):
    """White discs on a white ground: only the mask tells where they are. Categories differ in the radius."""

    name = "coins"
    background = 255
    draws_masks = True

    def category(self, index):
        return [self.stream(index).uniform(0.2, 0.45)]

    def render(self, category, instance):
        y, x = self.random(category, instance).uniform(0.45, 0.55, 2)
        rows, columns = np.mgrid[: self.canvas.size, : self.canvas.size] / self.canvas.size
        inside = np.hypot(rows - y, columns - x) < category.parameters[0, 0]
        edge = np.hypot(rows - y, columns - x) > category.parameters[0, 0] - 0.05
        image = np.where(inside & edge, 0, 255).astype(np.uint8)
        return np.repeat(image[:, :, None], self.canvas.channels, axis=2), inside


@hookimpl
def register_generators(register):
    register(Coins)
