"""Drawing: the pure function (recipe, index) -> (image, label), on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np
from jaxtyping import Int64, UInt8

from formulavision.generators.contract import Category, DeviceRenderer
from formulavision.generators.failures import ask_for_names, blamed
from formulavision.generators.registry import plugins
from formulavision.recipes.categories import find_categories
from formulavision.recipes.device import current_device, find_device
from formulavision.recipes.recipe import RecipeLike, as_recipe
from formulavision.util.errors import PluginError
from formulavision.util.indices import Indices, positions

if TYPE_CHECKING:
    import torch

__all__ = ["DeviceDrawer", "Drawer"]


class Drawer:
    """Draws any image of a recipe, alone or in batches, in any order.

    Args:
        recipe: the dataset.
        categories: the recipe's categories, where they are known already.
        workers: processes to search categories with.
        progress: called with the number of categories found so far.
        device: cpu, cuda or cuda:N draws, if the generator can draw there; images are returned in the CPU's memory.
        note: called with a line of text if the generator cannot draw there, so the CPU draws.

    Attributes:
        device_drawer: draws on the device; None if the CPU draws.

    Raises:
        ConfigError: there is no such device.
        PluginError: the generator raised while it searched.
    """

    def __init__(
        self,
        recipe: RecipeLike,
        *,
        categories: list[Category] | None = None,
        workers: int = 1,
        progress: Callable[[int], None] = lambda found: None,
        device: str = "cpu",
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.recipe = as_recipe(recipe)
        self.generator = self.recipe.build()
        self.device_drawer: DeviceDrawer | None = None
        if device != "cpu":
            place = find_device(device)
        self.categories = categories or find_categories(self.recipe, workers=workers, progress=progress)
        if device != "cpu":
            drawer = DeviceDrawer(self, place)
            if drawer.native:
                self.device_drawer = drawer
            else:
                name = self.generator.name
                other = " with these settings" if plugins()[name].draws_on_devices else ""
                note(f"{name} draws on the CPU only{other}")

    def __len__(self) -> int:
        return len(self.recipe)

    def __repr__(self) -> str:
        return f"Drawer({self.recipe!r}, on {self.device_drawer.device if self.device_drawer else 'cpu'})"

    @property
    def batch_size(self) -> int:
        """Number of images that take about 8 MB: they share work, and nearly fit into a processor's caches.

        It holds for a GPU, too: encoding so many images takes a core longer than launching the kernels.
        """
        height, width, channels = self.recipe.canvas.shape
        return max(1, 8_000_000 // (height * width * channels))

    def batches(self, indices: Indices) -> Iterator[Int64[np.ndarray, " batch"]]:
        """The indices in batches of ``batch_size`` at most, in an order that draws together what shares work.

        Raises:
            PluginError: the generator raised.
        """
        wanted = positions(indices, len(self))
        labels, instances = np.divmod(wanted, self.recipe.num_instances)
        with blamed(self.generator.name, "while sharing work"):
            shared = np.asarray(self.generator.shared_work(instances), dtype=np.int64)
            if shared.shape != instances.shape:
                raise TypeError(f"shared_work() returned {list(shared.shape)} numbers, not {list(instances.shape)}")
        order = np.lexsort((instances, shared, labels))
        change = (np.diff(labels[order]) != 0) | (np.diff(shared[order]) != 0)
        cuts = np.append(np.flatnonzero(change) + 1, len(wanted))
        start = 0
        while start < len(wanted):
            stop = start + self.batch_size
            # End at the last cut that fits; without one, within a group of images that share work.
            place = np.searchsorted(cuts, stop, side="right")
            if place > 0 and cuts[place - 1] > start:
                stop = int(cuts[place - 1])
            yield wanted[order[start:stop]]
            start = stop

    def locate(self, index: SupportsIndex) -> tuple[Category, int]:
        """Category and instance of an index; a negative one counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
        """
        category, instance = divmod(int(positions([index], len(self))[0]), self.recipe.num_instances)
        return self.categories[category], instance

    def name(self, index: SupportsIndex) -> str:
        """Path of the image in a store, without its suffix: ``CATEGORY/CATEGORY_instance-name``."""
        category, instance = self.locate(index)
        with blamed(self.generator.name, "in instance_name()"):
            return f"{category.name}/{category.name}_{self.generator.instance_name(instance)}"

    def instance_names(self) -> list[str]:
        """``instance_name`` of all instances of a category.

        Raises:
            PluginError: the generator raised, or two names are the same, or one cannot be a part of a file's name.
        """
        return ask_for_names(self.generator, self.recipe.num_instances)

    def draw(self, index: SupportsIndex) -> tuple[UInt8[np.ndarray, "size size channels"], int]:
        """Image and label.

        Raises:
            IndexError: there is no such index.
            PluginError: the generator raised.
        """
        images, labels = self.draw_batch([index])
        return images[0], int(labels[0])

    def draw_batch(
        self, indices: Indices, out: UInt8[np.ndarray, "n size size channels"] | None = None
    ) -> tuple[UInt8[np.ndarray, "n size size channels"], Int64[np.ndarray, " n"]]:
        """Images and labels; negative indices count from the end.

        Indices of one category are drawn together, whatever their order, so that a generator can share work.

        Args:
            out: memory for the images, of their shape; new memory costs time.

        Raises:
            IndexError: there is no such index.
            PluginError: the generator raised.
        """
        labels, instances = np.divmod(positions(indices, len(self)), self.recipe.num_instances)
        return self.draw_instances(labels, instances, out), labels

    def draw_instances(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[np.ndarray, "n size size channels"] | None = None,
    ) -> UInt8[np.ndarray, "n size size channels"]:
        """Images of any instances, also beyond the recipe's.

        Args:
            labels, instances: category and number of each instance.
            out: memory for the images, of their shape.

        Raises:
            PluginError: the generator raised.
        """
        images = np.empty((len(labels), *self.recipe.canvas.shape), dtype=np.uint8) if out is None else out
        if self.device_drawer is not None:
            import torch

            torch.from_numpy(images).copy_(self.device_drawer.draw_instances(labels, instances))
            return images
        images[:] = 0
        for label in np.unique(labels):
            where = np.flatnonzero(labels == label)
            # Images that are neighbours in the batch are drawn there, others into an array that is copied.
            in_place = np.all(np.diff(where) == 1)
            shape = (len(where), *self.recipe.canvas.shape)
            target = images[where[0] : where[-1] + 1] if in_place else np.zeros(shape, np.uint8)
            self._draw(self.categories[label], instances[where], target)
            if not in_place:
                images[where] = target
        return images

    def _draw(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        """Draw instances of one category. If that fails, they are drawn one by one, to name the one that fails."""
        which = str(instances[0]) if len(instances) == 1 else f"{instances.min()} to {instances.max()} in one batch"
        try:
            with blamed(self.generator.name, f"while drawing category {category.name}, instance {which}"):
                render: Callable[..., object] = self.generator.render_batch
                drawn = render(category, instances, out)
                if isinstance(drawn, np.ndarray) and not np.may_share_memory(drawn, out):
                    raise TypeError("render_batch() returned images, it must draw them into 'out'")
        except PluginError:
            if len(instances) > 1:
                for instance in np.sort(instances):
                    self._draw(category, np.array([instance]), np.zeros_like(out[:1]))
            raise


class DeviceDrawer:
    """Draws instances of a recipe into tensors on a device.

    The device's memory holds the categories as the generator needs them. A call also takes memory for its images, and
    scratch memory of the generator, which it gives back.

    Args:
        drawer: the recipe and its categories.
        device: the device that holds the images.

    Attributes:
        native: whether the generator draws on the device itself.

    Raises:
        PluginError: the generator raised.
    """

    def __init__(self, drawer: Drawer, device: torch.device) -> None:
        import torch

        self.drawer = drawer
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())  # which may be another one later
        self.device = device
        # Kernels that a generator launches go to the current device, which need not be this one.
        with blamed(drawer.generator.name, f"while preparing to draw on {device}"), current_device(device):
            self._renderer = drawer.generator.device_renderer(drawer.categories, device)
        self.native = self._renderer is not None

    def __repr__(self) -> str:
        return f"DeviceDrawer({self.drawer.recipe!r}, on {self.device})"

    def draw_instances(
        self, labels: Int64[np.ndarray, " n"], instances: Int64[np.ndarray, " n"]
    ) -> UInt8[torch.Tensor, "n size size channels"]:
        """Images of any instances, also beyond the recipe's, on the device.

        The kernels are queued on torch's current stream; the host does not wait for them.

        Args:
            labels, instances: category and number of each instance.

        Raises:
            PluginError: the generator raised.
        """
        import torch

        if self._renderer is None:
            images = torch.from_numpy(self.drawer.draw_instances(labels, instances))
            return images.to(self.device)
        out = torch.empty((len(labels), *self.drawer.recipe.canvas.shape), dtype=torch.uint8, device=self.device)
        if not len(labels):
            return out
        try:
            with blamed(self.drawer.generator.name, f"while drawing on {self.device}"), current_device(self.device):
                self._renderer(labels, instances, out)
        except PluginError as error:
            # After an error of the device itself, every image fails.
            if not isinstance(error.__cause__, torch.AcceleratorError):
                self._draw_one_by_one(self._renderer, labels, instances, out)
            raise
        return out

    def _draw_one_by_one(
        self,
        renderer: DeviceRenderer,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        """Draw each image alone, so that the error of one of them names it."""
        name = self.drawer.generator.name
        for i, (label, instance) in enumerate(zip(labels, instances, strict=True)):
            image = f"category {self.drawer.categories[label].name}, instance {instance}"
            with blamed(name, f"while drawing {image} on {self.device}"), current_device(self.device):
                renderer(labels[i : i + 1], instances[i : i + 1], out[i : i + 1])

    def wait(self) -> None:
        """Wait until the device has drawn all images that were asked for."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
