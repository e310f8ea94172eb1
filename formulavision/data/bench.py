"""What a recipe costs on this machine: search, drawing, encoding, writing and reading, each measured for a moment."""

from __future__ import annotations

import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category
from formulavision.generators.registry import plugins
from formulavision.recipes.categories import category_name
from formulavision.recipes.category_files import read_folder, write_folder
from formulavision.recipes.device import check_device
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe
from formulavision.storage import Store
from formulavision.storage.formats import DEFAULT_FORMAT, find_format
from formulavision.storage.formats.format import SHARD_IMAGES, Piece, Sample
from formulavision.storage.generation import Silent, generate
from formulavision.storage.pieces import write_piece
from formulavision.storage.png import decode_image, encode_png
from formulavision.util.errors import ConfigError, FormulaVisionError, PluginError

if TYPE_CHECKING:
    from formulavision.recipes.drawing import DeviceDrawer

__all__ = ["Figures", "bench"]

_CATEGORIES = 16
"""Categories that are drawn: enough for a mean, and found in a moment."""
_INSTANCES = 1000
_STORE_IMAGES = 400
_PIECE_BYTES = 32_000_000
_BATCH = 64
"""Images that are read at once, where their memory is no more than a drawer's batch takes."""
_FIRST = 32
"""Images that are drawn before anything is measured."""
_DEVICE_IMAGES, _DEVICE_BYTES = 256, 1_000_000_000
"""Images that a device draws at once on demand, where their memory is no more than this."""
_MOST_CATEGORIES = 10_000
_INSTANT = 100_000
"""Categories a second that are computed rather than searched for."""
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, modulo 1, are spread evenly, however many they are."""
_STEPS = 5
_SLOW_S = 2.0


@dataclass(frozen=True)
class Figures:
    """What a recipe with 1,000 images a category (or as many as there are) costs on one core of this machine, and on a
    GPU of it where that draws.

    Attributes:
        recipe: as it was given.
        device: what drew: cpu, or the name of a GPU.
        categories_per_second: categories found in a second of one core; None where there is nothing to search.
        on_demand_ms: milliseconds to draw an image of those that shuffled training asks for, which share no work; on a
            GPU up to 256 at once, which stay in its memory.
        draw_ms: milliseconds to draw an image in the order of ``generate``, which shares most work; on a GPU with its
            way to the CPU's memory.
        encode_ms: milliseconds to encode an image as PNG.
        write_ms: milliseconds to write an encoded image to the default format, in the folder for temporary files.
        read_ms: milliseconds to read an image in random order from a store that the memory holds, as a tensor.
        image_bytes: bytes that an image takes in the default format.
    """

    recipe: Recipe
    device: str
    categories_per_second: float | None
    on_demand_ms: float
    draw_ms: float
    encode_ms: float
    write_ms: float
    read_ms: float
    image_bytes: float

    def generate_seconds(self, images: int, cores: int) -> float:
        """Seconds to draw, encode and write a store on so many cores, if they share the work evenly.

        A GPU is one for all of them: the cores wait for it each in turn, and never take less than it takes to draw.
        """
        shared = (self.draw_ms + self.encode_ms + self.write_ms) / cores
        return images * (shared if self.device == "cpu" else max(shared, self.draw_ms)) / 1000


def bench(
    recipes: Iterable[Recipe],
    *,
    seconds: float = 1.0,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
    compiling: Callable[[str], None] = lambda generator: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Figures]:
    """Measure recipes on one core, with 16 of their categories at most.

    Args:
        seconds: how long each measurement takes, about; there are seven.
        device: what draws: cpu, or cuda (cuda:N), where the generator can draw there.
        progress: called with the number of steps that are done and that there are.
        compiling: called with a generator's name where its first calls take more than two seconds.
        note: called with a line of text where a generator cannot draw on the device, and the CPU draws.

    Raises:
        ConfigError: seconds are out of range, the folder of categories is missing, or there is no such device.
        PluginError: a generator raised.
    """
    if not 0 < seconds <= 60:
        raise ConfigError(f"seconds: {seconds:g} is not allowed: must be above 0 and at most 60")
    check_device(device)
    recipes = list(recipes)
    steps = count()

    def step() -> None:
        progress(next(steps), _STEPS * len(recipes))

    step()
    return [_measure(recipe, seconds, device, step, compiling, note) for recipe in recipes]


def _measure(
    recipe: Recipe,
    seconds: float,
    device: str,
    step: Callable[[], None],
    compiling: Callable[[str], None],
    note: Callable[[str], None],
) -> Figures:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with _told(recipe, compiling):
            _call_first(recipe, device, root / "first")
        step()
        categories, rate = _search(recipe, seconds)
        sample = _sample(recipe, categories, root / "categories")
        step()
        drawer = Drawer(sample, device=device, note=note)
        on_demand = _on_demand(drawer, seconds)
        step()
        draw, encode = _in_order(drawer, 2 * seconds)
        step()
        # As many images as are drawn in the time, each category's alike.
        each = round(min(_STORE_IMAGES, seconds / (on_demand + encode)) / len(categories))
        instances = min(max(1, each), sample.num_instances)
        stored = Recipe.from_dict(sample.to_dict(), [f"instances={instances}"])
        store = generate(stored, root / "store", device=device, progress=Silent())
        write, image_bytes = _write(store, root / "piece", seconds)
        read = _read(store, min(_BATCH, drawer.batch_size), seconds)
        step()
    return Figures(
        recipe=recipe,
        device=_what_draws(drawer),
        categories_per_second=rate,
        on_demand_ms=1000 * on_demand,
        draw_ms=1000 * draw,
        encode_ms=1000 * encode,
        write_ms=1000 * write,
        read_ms=1000 * read,
        image_bytes=image_bytes,
    )


def _call_first(recipe: Recipe, device: str, folder: Path) -> None:
    """Find a category, draw a few images, encode and decode them: what is compiled on first use is compiled here."""
    categories, _ = _search(recipe, 0)
    drawer = Drawer(_sample(recipe, categories, folder), device=device)
    batch = next(drawer.batches(np.arange(len(drawer))))
    if drawer.device_drawer is not None:
        # In the numbers of images that are measured: kernels may be compiled for each.
        _on_demand(drawer, 0)
        drawer.draw_batch(batch)
    images, _ = drawer.draw_batch(batch[:_FIRST])
    for image in images:
        decode_image(encode_png(image), recipe.canvas.channels)


def _what_draws(drawer: Drawer) -> str:
    if drawer.device_drawer is None:
        return "cpu"
    from formulavision.recipes.device import device_name

    return device_name(drawer.device_drawer.device)


@contextmanager
def _told(recipe: Recipe, compiling: Callable[[str], None]) -> Iterator[None]:
    """Tell that a block compiles where it takes long."""
    timer = threading.Timer(_SLOW_S, compiling, [recipe.generator.name])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Categories ----------------------------------------------------------------------------------------------------------


def _search(recipe: Recipe, seconds: float) -> tuple[list[Category], float | None]:
    """The categories to draw, and how many a second of one core finds, where there is anything to search."""
    total = recipe.num_categories
    if recipe.categories.folder is not None:
        read = list(read_folder(recipe.categories.folder, recipe.build()).items())
        chosen = np.linspace(0, total - 1, min(total, _CATEGORIES)).astype(int).tolist()
        return [Category(i, *read[i]) for i in chosen], None
    generator = recipe.build()
    categories: dict[int, Category] = {}
    # Of all threads: a search may have some of its own.
    times = [time.process_time()]
    started = time.perf_counter()
    try:
        found = (
            ((i, generator.category(i)) for i in (int(k * _GOLDEN % 1 * total) for k in count()))
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
    except FormulaVisionError:
        raise
    except Exception as error:
        name = generator.name
        raise PluginError(
            f"'{name}' ({plugins()[name].origin}) failed while finding categories: {type(error).__name__}: {error}"
        ) from error
    # From the first on: until then a search with threads works ahead.
    span = times[1:] if len(times) > 2 else times
    rate = (len(span) - 1) / max(span[-1] - span[0], 1e-9)
    return list(categories.values()), rate if rate < _INSTANT else None


def _sample(recipe: Recipe, categories: list[Category], folder: Path) -> Recipe:
    """The recipe with these categories only, kept in ``folder``, and with 1,000 instances or as many as there are."""
    write_folder(categories, folder)
    instances = min(_INSTANCES, recipe.build().max_instances() or _INSTANCES)
    data = {**recipe.to_dict(), "categories": {"folder": str(folder)}, "instances": instances}
    return Recipe.from_dict(data)


# Images --------------------------------------------------------------------------------------------------------------


def _on_demand(drawer: Drawer, seconds: float) -> float:
    """Seconds an image, in batches of one image of each category: among many categories, two of one are rare."""
    if drawer.device_drawer is not None:
        return _on_demand_there(drawer, drawer.device_drawer, seconds)
    random = np.random.default_rng(0)
    instances = drawer.recipe.num_instances
    first = np.arange(len(drawer.categories)) * instances
    return _median(
        lambda: drawer.draw_batch(random.permutation(first) + random.integers(instances, size=len(first))), seconds
    ) / len(first)


def _on_demand_there(drawer: Drawer, device_drawer: DeviceDrawer, seconds: float) -> float:
    """Seconds an image, in batches that a GPU is worth, of images that share no work, as far as there are as many."""
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


def _in_order(drawer: Drawer, seconds: float) -> tuple[float, float]:
    """Seconds an image for drawing and for encoding: the mean of the categories' medians over batches."""
    instances = drawer.recipe.num_instances
    images = np.empty((drawer.batch_size, *drawer.recipe.canvas.shape), np.uint8)
    categories = [np.arange(i * instances, (i + 1) * instances) for i in range(len(drawer.categories))]
    batches = [cycle(drawer.batches(indices)) for indices in categories]
    times: list[list[tuple[float, float]]] = [[] for _ in categories]
    started = time.perf_counter()
    # A batch of each category in turn, so that all are seen in the time that there is.
    for category in cycle(range(len(categories))):
        batch = next(batches[category])
        before = time.perf_counter()
        drawn, _ = drawer.draw_batch(batch, images[: len(batch)])
        between = time.perf_counter()
        for image in drawn:
            encode_png(image)
        after = time.perf_counter()
        times[category].append(((between - before) / len(batch), (after - between) / len(batch)))
        if after - started > seconds:
            break
    draw, encode = np.mean([np.median(seen, axis=0) for seen in times if seen], axis=0).tolist()
    return draw, encode


def _write(store: Store, target: Path, seconds: float) -> tuple[float, float]:
    """Seconds to write an image of the store, and its bytes, in a piece as long as those of a large store."""
    size = store.manifest.bytes / len(store)
    number = max(len(store), min(SHARD_IMAGES, int(_PIECE_BYTES / size)))
    samples = [Sample(store.layout.name(i), store.label(i), store.encoded(i)) for i in range(len(store))]
    samples = list(islice(cycle(samples), number))
    store_format, piece = find_format(DEFAULT_FORMAT), Piece(0, 0, number, "piece")

    sizes: list[int] = []

    def write() -> None:
        sizes.append(write_piece(target, store_format, piece, samples, store.layout).bytes)

    return _median(write, seconds) / number, sizes[0] / number


def _read(store: Store, batch: int, seconds: float) -> float:
    """Seconds an image, in random batches."""
    from formulavision.data.datasets import StoredDataset

    dataset = StoredDataset(store.path)
    random = np.random.default_rng(0)
    return _median(lambda: dataset.__getitems__(random.integers(len(dataset), size=batch).tolist()), seconds) / batch


def _median(work: Callable[[], object], seconds: float) -> float:
    """Seconds that the work takes, by as many runs as there is time for."""
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return statistics.median(times)
