import numpy as np

from formulavision import Generator


class Discs(Generator):
    """A disc at a random place: categories differ in its radius."""

    name = "discs"

    def category(self, index):
        return [self.stream(index).uniform(0.1, 0.4)]

    def render(self, category, instance):
        x, y = self.random(category, instance).random(2)
        places = np.arange(self.canvas.size) / self.canvas.size
        dx, dy = places - x, places[:, None] - y
        radius = category.parameters[0, 0]
        return np.uint8(255 * (dx * dx + dy * dy < radius * radius))

    def device_renderer(self, categories, device):
        import torch

        # What all images need is made once: on the device, or here to be looked up.
        places = torch.arange(self.canvas.size, dtype=torch.float64, device=device) / self.canvas.size
        indices = np.array([category.index for category in categories])
        radii = np.array([category.parameters[0, 0] for category in categories])

        def draw(labels, instances, out):
            centers = self.uniforms(indices[labels], instances, 2).reshape(-1, 2)
            numbers = torch.from_numpy(np.column_stack([centers, radii[labels]]))
            x, y, radius = numbers.to(device, non_blocking=True).T[:, :, None, None]
            dx, dy = places - x, places[:, None] - y
            out[:] = (dx * dx + dy * dy < radius * radius)[..., None]
            out *= 255

        return draw
