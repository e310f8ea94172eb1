"""The speed of this machine for a recipe: search, drawing and storing, each measured for a moment on one core."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category
from formulavision.generators.failures import blamed
from formulavision.recipes.categories import category_name
from formulavision.recipes.category_files import read_folder, write_folder
from formulavision.recipes.device import check_device, device_name
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe
from formulavision.storage.generation import Silent, generate
from formulavision.util.errors import ConfigError

if TYPE_CHECKING:
    from formulavision.recipes.drawing import DeviceDrawer

__all__ = ["RecipeCost", "bench"]

_CATEGORIES = 16
"""Categories that are drawn: enough for a mean, and found in a moment."""
_FEWEST_CATEGORIES = 4
"""Categories of a measured store, at least: some take longer to draw than others."""
_DEVICE_IMAGES, _DEVICE_BYTES = 256, 1_000_000_000
"""Images that a device draws at once, where their memory is no more than this."""
_SCENES = 16
"""Scenes that are drawn at once."""
_STORES = 3
"""Times that a store is generated; the first may compile."""
_MOST_CATEGORIES = 10_000
"""Categories that are searched for at most."""
_COMPUTED = 20_000
"""Categories a second from which on they are computed rather than searched for."""


@dataclass(frozen=True)
class RecipeCost:
    """Time and memory that a recipe takes on one core of this machine, or on one core and a GPU.

    Attributes:
        recipe: the recipe.
        device: the device that draws: cpu, or the name of a GPU.
        categories_per_second: categories found in a second of one core; None where there is nothing to search, for
            scenes and for several parts.
        draw_ms: milliseconds to draw an image in random order, as training on demand does; on a GPU up to 256 images
            at once, which stay in its memory.
        store_ms: milliseconds to draw an image in the order of a store, to encode it as PNG and to write it in the
            default format to the folder for temporary files.
        image_bytes: bytes of an image in the default format.
        parts: of a recipe of several parts, the cost of each as a recipe of its own; times and bytes of an image are
            then means over the images of all parts.
    """

    recipe: Recipe
    device: str
    categories_per_second: float | None
    draw_ms: float
    store_ms: float
    image_bytes: float
    parts: tuple[RecipeCost, ...] = ()

    def search_seconds(self, cores: int) -> float:
        """Seconds to find the recipe's categories, where they are independent on so many cores; 0 without a search."""
        if self.parts:
            return sum(part.search_seconds(cores) for part in self.parts)
        if self.categories_per_second is None:
            return 0.0
        alone = self.recipe.num_categories / self.categories_per_second
        return alone / cores if self.recipe.build().categories_are_independent() else alone

    def store_seconds(self, cores: int) -> float:
        """Seconds to generate a store of the recipe on so many cores, which share the work evenly.

        The cores share one GPU, so a store takes no less than the GPU's time to draw it. The search is not included.
        """
        shared = self.store_ms / cores
        return len(self.recipe) * (shared if self.device == "cpu" else max(shared, self.draw_ms)) / 1000


def bench(
    recipe: RecipeLike, *, seconds: float = 1.0, device: str = "cpu", note: Callable[[str], None] = lambda line: None
) -> RecipeCost:
    """Measure a recipe on one core, with 16 categories of each of its parts at most.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        seconds: duration of each of the three measurements of a part, about.
        device: the device that draws: cpu, or cuda (cuda:N), where the generator can draw there.
        note: called with a line of text where the generator cannot draw on the device, and the CPU draws.

    Returns:
        Times and sizes, from which those of a store follow.

    Raises:
        ConfigError: seconds are out of range, the folder of categories is missing, or there is no such device.
        PluginError: the generator raised.
    """
    if not 0 < seconds <= 60:
        raise ConfigError(f"seconds: {seconds:g} is not allowed: must be above 0 and at most 60")
    check_device(device)
    recipe = as_recipe(recipe)
    if recipe.parts and not recipe.is_scene:
        return _mean_over_parts(
            recipe, [bench(own, seconds=seconds, device=device, note=note) for own in _each(recipe)]
        )
    categories: list[Category] = []  # scenes are drawn with all categories, and the search for these is not measured
    rate = None
    if not recipe.is_scene:
        _search(recipe, 0)  # compiles kernels
        categories, rate = _search(recipe, seconds)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        drawer = Drawer(_sample(recipe, root / "drawn", categories, _instances(recipe)), device=device, note=note)
        _draw_seconds(drawer, 0)
        drawn = _draw_seconds(drawer, seconds)
        stored, image_bytes = _store_seconds(recipe, root, categories, seconds / drawn / _STORES, device)
    return RecipeCost(
        recipe=recipe,
        device="cpu" if drawer.device_drawer is None else device_name(drawer.device_drawer.device),
        categories_per_second=rate,
        draw_ms=1000 * drawn,
        store_ms=1000 * stored,
        image_bytes=image_bytes,
    )


def _each(recipe: Recipe) -> list[Recipe]:
    """The parts as recipes of their own."""
    written = recipe.to_dict()
    common = {"canvas": written["canvas"], "seed": written["seed"]}
    own = ("generator", "categories", "instances")
    return [Recipe.from_dict({**common, **{name: part[name] for name in own}}) for part in written["parts"]]


def _mean_over_parts(recipe: Recipe, parts: Sequence[RecipeCost]) -> RecipeCost:
    def mean(values: Iterable[float]) -> float:
        return float(np.average(list(values), weights=[len(part.recipe) for part in parts]))

    return RecipeCost(
        recipe=recipe,
        device=", ".join(dict.fromkeys(part.device for part in parts)),
        categories_per_second=None,
        draw_ms=mean(part.draw_ms for part in parts),
        store_ms=mean(part.store_ms for part in parts),
        image_bytes=mean(part.image_bytes for part in parts),
        parts=tuple(parts),
    )


def _search(recipe: Recipe, seconds: float) -> tuple[list[Category], float | None]:
    """Categories in random order, and how many one core finds in a second; None where there is no search."""
    total, generator = recipe.num_categories, recipe.build()
    order = np.random.default_rng(0).permutation(total).tolist()
    if generator.max_instances() is not None:
        order = list(range(total))  # in a published set, images may depend on their categories' places
    if recipe.categories.folder is not None:
        tables = list(read_folder(recipe.categories.folder, generator).items())
        return [Category(i, *tables[i]) for i in order[:_CATEGORIES]], None
    categories: dict[int, Category] = {}
    # Time of all threads: a search may have some of its own.
    times = [time.process_time()]
    started = time.perf_counter()
    with blamed(generator.name, "while finding categories"):
        found = (
            ((i, generator.category(i)) for i in cycle(order))
            if generator.categories_are_independent()
            else enumerate(generator.categories(total))
        )
        for i, parameters in islice(found, _MOST_CATEGORIES):
            times.append(time.process_time())
            if len(categories) < _CATEGORIES:
                table = np.atleast_2d(np.asarray(parameters, dtype=np.float64))
                categories[i] = Category(i, category_name(i), table)
            if time.perf_counter() - started > seconds:
                break
    # From the first category on: a search with threads has worked ahead until then.
    span = times[1:] if len(times) > 2 else times
    rate = (len(span) - 1) / max(span[-1] - span[0], 1e-9)
    return list(categories.values()), rate if rate < _COMPUTED else None


def _sample(recipe: Recipe, folder: Path, categories: Sequence[Category], instances: int) -> Recipe:
    """The recipe with some of its categories, which are written to a folder, and with fewer instances; or with all of
    its categories and fewer scenes."""
    if recipe.is_scene:
        return Recipe.from_dict({**recipe.to_dict(), "images": instances})
    write_folder(list(categories), folder, overwrite=True)
    return Recipe.from_dict({**recipe.to_dict(), "categories": {"folder": str(folder)}, "instances": instances})


def _instances(recipe: Recipe) -> int:
    return len(recipe) if recipe.is_scene else recipe.num_instances


def _draw_seconds(drawer: Drawer, seconds: float) -> float:
    """Seconds to draw an image in random order: the median over batches."""
    if drawer.recipe.is_scene:
        return _draw_scene_seconds(drawer, seconds)
    if drawer.device_drawer is not None:
        return _draw_seconds_there(drawer, drawer.device_drawer, seconds)
    random = np.random.default_rng(0)
    instances = drawer.recipe.num_instances
    # One image of each category: among many categories, two images of one are rare in a batch.
    first = np.arange(len(drawer.categories)) * instances
    return _median(
        lambda: drawer.draw_batch(random.permutation(first) + random.integers(instances, size=len(first))), seconds
    ) / len(first)


def _draw_seconds_there(drawer: Drawer, device_drawer: DeviceDrawer, seconds: float) -> float:
    """Seconds to draw an image on a GPU, in large batches of images that share no work, as far as there are as many."""
    random = np.random.default_rng(0)
    number = max(1, min(_DEVICE_IMAGES, _DEVICE_BYTES // math.prod(drawer.recipe.canvas.shape)))
    labels, rounds = np.arange(number) % len(drawer.categories), np.arange(number) // len(drawer.categories)

    def batch() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        instances = random.permutation(drawer.recipe.num_instances)
        _, first = np.unique(drawer.generator.shared_work(instances), return_index=True)
        apart = random.permutation(instances[first])
        order = random.permutation(number)
        return labels[order], apart[rounds % len(apart)][order]

    batches = cycle([batch() for _ in range(16)])

    def draw() -> None:
        device_drawer.draw_instances(*next(batches))
        device_drawer.wait()

    return _median(draw, seconds) / number


def _draw_scene_seconds(drawer: Drawer, seconds: float) -> float:
    """Seconds to draw a scene in random order: the median over batches."""
    random = np.random.default_rng(0)
    device_drawer, number = drawer.device_drawer, min(_SCENES, drawer.batch_size)

    def draw() -> None:
        numbers = random.integers(len(drawer), size=number)
        if device_drawer is None:
            drawer.draw_scenes(numbers)
        else:
            device_drawer.draw_scenes(numbers)
            device_drawer.wait()

    return _median(draw, seconds) / number


def _store_seconds(
    recipe: Recipe, root: Path, categories: Sequence[Category], images: float, device: str
) -> tuple[float, float]:
    """Seconds and bytes of an image in a store of about so many images.

    The store has as few categories as that takes, because the instances of a category share work. The time of a store
    with one image a category is subtracted: the time that a store takes whatever its size. Where that is nearly all of
    the time, the rest is noise; the whole time, divided by the images, counts instead.
    """
    chosen = categories[: max(_FEWEST_CATEGORIES, round(images / _instances(recipe)))]
    instances = min(_instances(recipe), max(2, round(images / max(1, len(chosen)))))
    least, few, _ = _store(recipe, root, chosen, 1, device)
    most, many, size = _store(recipe, root, chosen, instances, device)
    if many == few or most - least < most / 5:
        return most / many, size / many
    return (most - least) / (many - few), size / many


def _store(
    recipe: Recipe, root: Path, categories: Sequence[Category], instances: int, device: str
) -> tuple[float, int, int]:
    """Seconds, images and bytes of a store. The shortest of three times counts: other work has delayed it least."""
    sample = _sample(recipe, root / "categories", categories, instances)
    times = []
    for _ in range(_STORES):
        started = time.perf_counter()
        store = generate(sample, root / "store", overwrite=True, device=device, progress=Silent())
        times.append(time.perf_counter() - started)
    return min(times), len(store), store.manifest.bytes


def _median(work: Callable[[], object], seconds: float) -> float:
    """Seconds of a call: the median of as many calls as there is time for."""
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)
