"""Drawing: the pure function (recipe, index) -> (image, target), on the CPU and on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from formulavision.generators.contract import Category, DeviceRenderer, DeviceScenes, Generator
from formulavision.generators.failures import ask_for_number, blamed
from formulavision.generators.registry import plugins
from formulavision.recipes.categories import find_categories, find_categories_of_part
from formulavision.recipes.composition import SceneBatch, SceneComposer, build_generators, draw_category, own_scenes
from formulavision.recipes.device import current_device, find_device
from formulavision.recipes.recipe import RecipeLike, as_recipe, locate
from formulavision.recipes.scenes import NO_LIMIT, SceneSettings
from formulavision.recipes.targets import scene_target
from formulavision.util.errors import ConfigError, PluginError
from formulavision.util.indices import Indices, positions, whole_numbers

if TYPE_CHECKING:
    import torch

__all__ = ["DeviceDrawer", "Drawer", "scene_name"]


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
        parts = self.recipe.all_parts
        self.device_drawer: DeviceDrawer | None = None
        if device != "cpu":
            place = find_device(device)
        self.categories = categories or find_categories(self.recipe, workers=workers, progress=progress)
        built = build_generators(parts, [self.recipe.canvas], self.recipe.seed, self.categories)
        self.generators = [generator for (generator,) in built]
        limits = [ask_for_number(generator, "max_instances") or NO_LIMIT for generator in self.generators]
        self._limits, self._lowest_limit = np.array(limits), min(limits)
        own = self.recipe.scene == "own"
        self._most_scenes = ask_for_number(self.generator, "max_scenes") or NO_LIMIT if own else NO_LIMIT
        self._length = len(self.recipe)
        instances = [part.instances or 0 for part in parts]  # those of scenes have none
        self._sizes = self.recipe.categories_of_parts, np.array(instances, np.int64)
        self.part_of = np.repeat(np.arange(len(parts)), self._sizes[0])
        self.composer: SceneComposer | None = None
        if isinstance(self.recipe.scene, SceneSettings):
            background = self.recipe.scene.background
            behind = [] if background is None else find_categories_of_part(self.recipe, background, workers=workers)
            self.composer = SceneComposer(self.recipe, [*self.categories, *behind])
        if device != "cpu":
            drawer = DeviceDrawer(self, place)
            if drawer.native:
                self.device_drawer = drawer
            else:
                names = drawer.drawing_elsewhere
                other = " with these settings" if all(plugins()[name].draws_on_devices for name in names) else ""
                note(f"{', '.join(names)} {'draws' if len(names) == 1 else 'draw'} on the CPU only{other}")

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Drawer({self.recipe!r}, on {self.device_drawer.device if self.device_drawer else 'cpu'})"

    @property
    def generator(self) -> Generator:
        """The generator of a recipe of one part."""
        (generator,) = self.generators
        return generator

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
        if self.recipe.is_scene:
            yield from (wanted[start : start + self.batch_size] for start in range(0, len(wanted), self.batch_size))
            return
        labels, instances = self._locate(wanted)
        shared = np.empty_like(instances)
        for part, generator in enumerate(self.generators):
            own = self.part_of[labels] == part
            with blamed(generator.name, "while sharing work"):
                groups = np.asarray(generator.shared_work(instances[own]), dtype=np.int64)
                if groups.shape != instances[own].shape:
                    count = list(instances[own].shape)
                    raise TypeError(f"shared_work() returned {list(groups.shape)} numbers, not {count}")
            shared[own] = groups
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

    def _locate(self, places: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """As ``Recipe.locate``, which counts the images of the parts each time."""
        if self.recipe.is_scene:
            return self.recipe.locate(places)
        labels, instances, _ = locate(places, *self._sizes)
        return labels, instances

    def locate(self, index: SupportsIndex) -> tuple[Category, int]:
        """Category and instance of an index of a recipe without a scene; a negative one counts from the end.

        Raises:
            IndexError: there is no such index.
            TypeError: the index is no whole number.
        """
        labels, instances = self._locate(positions([index], self._length))
        return self.categories[labels[0]], int(instances[0])

    def name(self, index: SupportsIndex) -> str:
        """Path of an image in a store, without its suffix: ``CATEGORY/CATEGORY_instance-name``, or a scene's number."""
        if self.recipe.is_scene:
            return scene_name(int(positions([index], len(self))[0]))
        labels, instances = self._locate(positions([index], self._length))
        category, generator = self.categories[labels[0]], self.generators[self.part_of[labels[0]]]
        with blamed(generator.name, "in instance_name()"):
            return f"{category.name}/{category.name}_{generator.instance_name(int(instances[0]))}"

    def draw(self, index: SupportsIndex) -> tuple[UInt8[np.ndarray, "size size channels"], Any]:
        """Image and target.

        Returns:
            The image; and by the recipe's target the label, or what ``labels_target``, ``semantic_target`` or
            ``objects_target`` (``recipes.targets``) give.

        Raises:
            IndexError: there is no such index.
            PluginError: the generator raised.
        """
        if self.recipe.is_scene:
            scene = self.draw_scenes(positions([index], len(self)))[0]
            assert self.recipe.target is not None
            target = scene_target(scene, self.recipe.target, self.recipe.num_categories, self.recipe.min_visible)
            return scene.image, target
        images, labels = self.draw_batch([index])
        return images[0], int(labels[0])

    def draw_batch(
        self, indices: Indices, out: UInt8[np.ndarray, "n size size channels"] | None = None
    ) -> tuple[UInt8[np.ndarray, "n size size channels"], Int64[np.ndarray, " n"]]:
        """Images and labels of a recipe without a scene; negative indices count from the end.

        Indices of one category are drawn together, whatever their order, so that a generator can share work.

        Args:
            out: memory for the images, of their shape; new memory costs time.

        Raises:
            IndexError: there is no such index.
            PluginError: the generator raised.
        """
        labels, instances = self._locate(positions(indices, self._length))
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
            IndexError: a number is below 0, or not below the largest number of instances that the generator has.
            PluginError: the generator raised.
        """
        images = np.empty((len(labels), *self.recipe.canvas.shape), dtype=np.uint8) if out is None else out
        if self.device_drawer is not None:
            import torch

            torch.from_numpy(images).copy_(self.device_drawer.draw_instances(labels, instances))
            return images
        self._check_instances(labels, instances)
        images[:] = 0
        if len(labels) and np.all(labels == labels[0]):  # without the search for groups, which takes 0.03 ms
            self._draw_category(labels[0], instances, images)
            return images
        for label in np.unique(labels):
            where = np.flatnonzero(labels == label)
            # Images that are neighbours in the batch are drawn there, others into an array that is copied.
            in_place = np.all(np.diff(where) == 1)
            shape = (len(where), *self.recipe.canvas.shape)
            target = images[where[0] : where[-1] + 1] if in_place else np.zeros(shape, np.uint8)
            self._draw_category(label, instances[where], target)
            if not in_place:
                images[where] = target
        return images

    def _check_instances(self, labels: Int64[np.ndarray, " n"], instances: Int64[np.ndarray, " n"]) -> None:
        if instances.min(initial=0) < 0:
            raise IndexError(f"instance {instances.min()}: instances count from 0")
        if instances.max(initial=0) >= self._lowest_limit:
            parts = self.part_of[labels]
            for i in np.flatnonzero(instances >= self._limits[parts])[:1]:
                name, most = self.generators[parts[i]].name, self._limits[parts[i]]
                raise IndexError(f"instance {instances[i]}: '{name}' has {most} different images a category here")

    def _draw_category(
        self, label: np.int64, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        draw_category(self.generators[self.part_of[label]], self.categories[label], instances, out)

    def draw_scenes(self, numbers: Indices) -> SceneBatch:
        """Scenes of a recipe with a scene, also beyond the recipe's.

        Args:
            numbers: of the scenes, from 0.

        Raises:
            ConfigError: the recipe has no scene.
            IndexError: a number is below 0, or not below the largest number of the generator's own scenes.
            TypeError: a number is not whole.
            PluginError: a generator raised.
        """
        numbers = whole_numbers(numbers).astype(np.int64)
        if not self.recipe.is_scene:
            raise ConfigError("scene: the recipe has none: draw_batch draws its images")
        self._check_scenes(numbers)
        if self.device_drawer is not None:
            images, object_maps, categories = self.device_drawer.draw_scenes(numbers)
            return SceneBatch(images.cpu().numpy(), object_maps.cpu().numpy().astype(np.uint16), categories)
        if self.composer is not None:
            return self.composer.draw(numbers)
        return own_scenes(self.generator, self.categories, numbers)

    def _check_scenes(self, numbers: Int64[np.ndarray, " n"]) -> None:
        if numbers.min(initial=0) < 0:
            raise IndexError(f"scene {numbers.min()}: scenes count from 0")
        if numbers.max(initial=0) >= self._most_scenes:
            raise IndexError(f"scene {numbers.max()}: '{self.generator.name}' has {self._most_scenes} scenes here")


def scene_name(number: int) -> str:
    """Name of a scene in a store: ``00000042``."""
    return f"{number:08d}"


class DeviceDrawer:
    """Draws instances and scenes of a recipe into tensors on a device.

    The device's memory holds the categories as the generators need them. A call also takes memory for its images, and
    scratch memory of the generators, which it gives back.

    Args:
        drawer: the recipe and its categories.
        device: the device that holds the images.

    Attributes:
        native: whether the generators draw on the device themselves.
        drawing_elsewhere: names of the generators that do not.

    Raises:
        PluginError: a generator raised.
    """

    def __init__(self, drawer: Drawer, device: torch.device) -> None:
        import torch

        self.drawer = drawer
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())  # which may be another one later
        self.device = device
        composer = drawer.composer
        # Of each part, and of a scene's background: a generator for each canvas that it draws on.
        self._generators = [[one] for one in drawer.generators] if composer is None else composer.generators
        self._categories = drawer.categories if composer is None else composer.categories
        self._part_of = drawer.part_of if composer is None else composer.part_of
        self._first_labels = np.flatnonzero(np.diff(self._part_of, prepend=-1)).tolist()
        self._renderers: list[list[DeviceRenderer | None]] = []
        self._scenes: DeviceScenes | None = None
        # Kernels that a generator launches go to the current device, which need not be this one.
        with current_device(device):
            if drawer.recipe.scene == "own":
                with blamed(drawer.generator.name, f"while preparing to draw on {device}"):
                    self._scenes = drawer.generator.device_scenes(drawer.categories, device)
            else:
                ends = [*self._first_labels[1:], len(self._categories)]
                for generators, first, end in zip(self._generators, self._first_labels, ends, strict=True):
                    with blamed(generators[0].name, f"while preparing to draw on {device}"):
                        own = self._categories[first:end]
                        self._renderers.append([generator.device_renderer(own, device) for generator in generators])
        if self._renderers:
            pairs = zip(self._generators, self._renderers, strict=True)
            names = [generators[0].name for generators, renderers in pairs if None in renderers]
        else:
            names = [] if self._scenes is not None else [drawer.generator.name]
        self.drawing_elsewhere = list(dict.fromkeys(names))
        self.native = not names

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
            IndexError: as :meth:`Drawer.draw_instances`.
            PluginError: a generator raised.
        """
        import torch

        from formulavision.rendering.triton_support import upload

        if not self.native:
            return torch.from_numpy(self.drawer.draw_instances(labels, instances)).to(self.device)
        self.drawer._check_instances(labels, instances)
        out = torch.empty((len(labels), *self.drawer.recipe.canvas.shape), dtype=torch.uint8, device=self.device)
        if len(self._renderers) == 1:
            self._draw(0, 0, labels, instances, out, None)
            return out
        for part in np.unique(self._part_of[labels]):
            where = np.flatnonzero(self._part_of[labels] == part)
            images = torch.empty((len(where), *out.shape[1:]), dtype=torch.uint8, device=self.device)
            self._draw(part, 0, labels[where], instances[where], images, None)
            out[upload(where, self.device)] = images
        return out

    def draw_scenes(
        self, numbers: Int64[np.ndarray, " n"]
    ) -> tuple[
        UInt8[torch.Tensor, "n size size channels"],
        Int32[torch.Tensor, "n size size"],
        list[Int64[np.ndarray, " objects"]],
    ]:
        """Scenes, also beyond the recipe's: images and object maps on the device, and the categories of the objects.

        The kernels are queued on torch's current stream; the host does not wait for them.

        Args:
            numbers: of the scenes, from 0.

        Raises:
            IndexError: as :meth:`Drawer.draw_scenes`.
            PluginError: a generator raised.
        """
        import torch

        if not self.native:
            batch = self.drawer.draw_scenes(numbers)
            maps = torch.from_numpy(batch.object_maps.astype(np.int32))
            return torch.from_numpy(batch.images).to(self.device), maps.to(self.device), batch.categories
        self.drawer._check_scenes(numbers)
        shape = (len(numbers), *self.drawer.recipe.canvas.shape)
        if self._scenes is not None:
            images = torch.empty(shape, dtype=torch.uint8, device=self.device)
            maps = torch.empty(shape[:3], dtype=torch.int32, device=self.device)
            name = self.drawer.generator.name
            with blamed(name, f"while drawing scenes on {self.device}"), current_device(self.device):
                return images, maps, list(self._scenes(numbers, images, maps))
        from formulavision.rendering.compositing_triton import compose

        images = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        maps = torch.zeros(shape[:3], dtype=torch.int32, device=self.device)
        composer = self.drawer.composer
        assert composer is not None
        planned = composer.planner.plan(numbers)
        for chunk in composer.chunks(planned):
            objects = chunk.objects
            pixels = torch.empty(chunk.pixel_bytes, dtype=torch.uint8, device=self.device)
            masks = torch.zeros(chunk.mask_bytes, dtype=torch.uint8, device=self.device)
            for part, step, group, out, mask_out in composer.groups(chunk, pixels, masks):
                self._draw(part, step, objects.labels[group], objects.instances[group], out, mask_out)
            with current_device(self.device):
                compose(pixels, masks, chunk.rows, objects.colors, images, maps)
        return images, maps, composer.objects_categories(planned, len(numbers))

    def _draw(
        self,
        part: int,
        step: int,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        masks: UInt8[torch.Tensor, "n size size"] | None,
    ) -> None:
        """Draw instances of one part; if that fails, one by one, so that the error of one of them names it."""
        import torch

        if not len(labels):
            return
        renderer: Any = self._renderers[part][step]
        generator, within = self._generators[part][step], labels - self._first_labels[part]

        def draw(some: slice) -> None:
            more = () if not generator.draws_masks else (None if masks is None else masks[some],)
            renderer(within[some], instances[some], out[some], *more)

        try:
            with blamed(generator.name, f"while drawing on {self.device}"), current_device(self.device):
                draw(slice(None))
        except PluginError as error:
            # After an error of the device itself, every image fails.
            if not isinstance(error.__cause__, torch.AcceleratorError):
                for i, (label, instance) in enumerate(zip(labels, instances, strict=True)):
                    image = f"category {self._categories[label].name}, instance {instance}"
                    when = f"while drawing {image} on {self.device}"
                    with blamed(generator.name, when), current_device(self.device):
                        draw(slice(i, i + 1))
            raise

    def wait(self) -> None:
        """Wait until the device has drawn all images that were asked for."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
