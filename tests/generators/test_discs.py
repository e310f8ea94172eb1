import numpy as np
import torch
from discs import Discs

from formulavision import DeviceDrawer, Drawer, Recipe, register


def test_the_device_draws_what_the_cpu_draws():
    register(Discs)
    drawer = Drawer(Recipe.from_dict({"generator": "discs", "categories": 5, "instances": 40, "seed": 3}))
    labels, instances = np.divmod(np.random.default_rng(0).permutation(len(drawer)), 40)
    expected = drawer.draw_instances(labels, instances)
    for name in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        drawn = DeviceDrawer(drawer, torch.device(name)).draw_instances(labels, instances)
        assert np.array_equal(drawn.cpu().numpy(), expected)
