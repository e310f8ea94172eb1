"""The explorer's pictures: what the process that draws for it computes, as PNGs and plain values."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from formulavision.explorer.worker import ReportProgress
from formulavision.generators.contract import Category, Scene
from formulavision.recipes.categories import category_key, find_categories_of_part
from formulavision.recipes.composition import draw_category
from formulavision.recipes.drawing import Drawer, scene_name
from formulavision.recipes.parts import Categories, Part, category_prefixes
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.sheets import color_objects
from formulavision.recipes.targets import TARGETS, labels_target, objects_target, semantic_target
from formulavision.storage.png import encode_object_map, encode_png
from formulavision.util.errors import ConfigError

__all__ = ["Cell", "Picture", "Sheet", "draw_picture", "draw_sheet"]

_BOX = (255, 140, 0)
_SLOW = 0.25
"""From this many seconds on, images are drawn one by one, so that the progress is shown."""
_PATIENCE = 20.0
"""A sheet takes at most this many seconds, beside its first image, which may compile."""
_KEPT = 64
"""Categories of this many generators are kept in memory."""
_found: dict[str, list[Category]] = {}


@dataclass(frozen=True)
class Cell:
    """An image of a sheet.

    Attributes:
        label, instance: of the recipe's image; of a scene 0 and its number.
        caption: the image in words.
        png: the image.
    """

    label: int
    instance: int
    caption: str
    png: bytes


@dataclass(frozen=True)
class Sheet:
    """Images in rows, of a category each.

    Attributes:
        columns: number of images in a row.
        search_seconds: seconds of the search for categories.
        image_seconds: seconds to draw and encode an image.
        image_bytes: bytes of an image as PNG.
        wanted: number of images that were asked for; 0: that of the cells.
    """

    cells: list[Cell]
    columns: int
    search_seconds: float
    image_seconds: float
    image_bytes: float
    wanted: int = 0


@dataclass(frozen=True)
class Picture:
    """One image of a recipe, with all that is known of it.

    Attributes:
        index: of the image in the recipe.
        name: of the image in a store.
        caption: the image in words.
        panels: the image and its masks or targets: a heading and a PNG each.
        columns: names of the columns of the category's parameters.
        parameters: of the category, [rows][columns]; empty for a scene.
        targets: the targets of a scene in words, by their names.
    """

    index: int
    name: str
    caption: str
    panels: list[tuple[str, bytes]]
    columns: list[str]
    parameters: list[list[float]]
    targets: dict[str, str]


def draw_sheet(recipe: Recipe, rows: int, columns: int, progress: ReportProgress) -> Sheet:
    """The first instances of the first categories of each part of a recipe; or its first scenes, objects beside them.

    Args:
        rows: number of categories; of scenes rows * columns / 2 are drawn.
        columns: number of instances.
        progress: told of the search, and of images that take long. A sheet that takes very long ends early.

    Raises:
        PluginError: a generator raised.
    """
    started = time.perf_counter()
    seconds: list[float] = []
    sizes: list[int] = []
    cells: list[Cell] = []
    if recipe.is_scene:
        drawer = _drawer(recipe, [part.num_categories for part in recipe.all_parts], progress)
        searched = time.perf_counter()
        scenes = range(min(max(1, rows * columns // 2), len(recipe)))
        wanted_images = 2 * len(scenes)
        for number in scenes:
            if not _goes_on(seconds, progress, number, len(scenes)):
                break
            before = time.perf_counter()
            scene = drawer.draw_scenes([number])[0]
            cells.append(Cell(0, number, f"scene {number}", encode_png(scene.image)))
            sizes.append(len(cells[-1].png) + len(encode_object_map(scene.object_map, len(scene.categories))))
            seconds.append(time.perf_counter() - before)
            cells.append(Cell(0, number, f"objects of scene {number}", encode_png(color_objects(scene))))
        columns = max(2, columns // 2 * 2)
    else:
        parts = recipe.all_parts
        wanted = [min(part.num_categories, -(-rows // len(parts))) for part in parts]
        drawer = _drawer(recipe, wanted, progress)
        searched = time.perf_counter()
        columns = min(columns, *(part.num_instances for part in parts))
        wanted_images = columns * sum(wanted)
        for label, place in _places(recipe, drawer, wanted):
            name, first = drawer.categories[place].name, 0
            while first < columns and _goes_on(seconds, progress, len(cells), wanted_images):
                # The instances of a category share work; of the first image it is not known how long it takes.
                last = columns if seconds and seconds[-1] < _SLOW else first + 1
                before = time.perf_counter()
                images = drawer.draw_instances(np.full(last - first, place), np.arange(first, last))
                for instance, image in enumerate(images, first):
                    cells.append(Cell(label, instance, f"category {name}, instance {instance}", encode_png(image)))
                    sizes.append(len(cells[-1].png))
                seconds += [(time.perf_counter() - before) / (last - first)] * (last - first)
                first = last
            if first < columns:
                break
    return Sheet(
        cells,
        columns,
        search_seconds=searched - started,
        image_seconds=statistics.median(seconds),  # the first may compile
        image_bytes=statistics.mean(sizes),
        wanted=wanted_images,
    )


def _goes_on(seconds: Sequence[float], progress: ReportProgress, done: int, total: int) -> bool:
    """Whether there is time for another image, of which ``progress`` is told where images take long.

    Args:
        seconds: of each image that is drawn.
    """
    if seconds and seconds[-1] >= _SLOW:
        progress("drawing images", done, total)
    return sum(seconds[1:]) < _PATIENCE


def draw_picture(recipe: Recipe, label: int, instance: int, progress: ReportProgress) -> Picture:
    """One image of a recipe, its mask or targets, and its category's parameters.

    Args:
        label: of the image's category; not looked at for scenes.
        instance: of the category, or the number of the scene.

    Raises:
        ConfigError: the recipe has no such image.
        PluginError: a generator raised.
    """
    if recipe.is_scene:
        return _scene_picture(recipe, instance, progress)
    counts = [part.num_categories for part in recipe.all_parts]
    if not 0 <= label < sum(counts):
        raise ConfigError(f"category: {label} is not allowed: the recipe has {sum(counts):,}")
    number = int(np.searchsorted(np.cumsum(counts), label, side="right"))
    part, offset = recipe.all_parts[number], label - sum(counts[:number])
    if not 0 <= instance < part.num_instances:
        raise ConfigError(f"instance: {instance} is not allowed: the category has {part.num_instances:,}")
    wanted = [1] * len(counts)
    wanted[number] = offset + 1
    drawer = _drawer(recipe, wanted, progress)
    place = int(drawer.recipe.categories_of_parts[:number].sum()) + offset
    generator, category = drawer.generators[number], drawer.categories[place]
    image = np.zeros((1, *recipe.canvas.shape), np.uint8)
    mask = np.zeros(image.shape[:3], np.uint8)
    draw_category(generator, category, np.array([instance]), image, mask if generator.draws_masks else None)
    panels = [("image", encode_png(image[0]))]
    if not generator.fills_canvas:
        seen = mask != 0 if generator.draws_masks else np.any(image != generator.background, axis=3)
        panels.append(("mask of the object", encode_png(np.where(seen[0, :, :, None], 255, 0).astype(np.uint8))))
    before = sum(part.num_categories * part.num_instances for part in recipe.all_parts[:number])
    parameters = category.parameters
    names = list(generator.columns) or [str(column) for column in range(parameters.shape[1])]
    return Picture(
        index=before + offset * part.num_instances + instance,
        name=f"{category.name}/{category.name}_{generator.instance_name(instance)}",
        caption=f"category {category.name} (label {label}), instance {instance}",
        panels=panels,
        columns=names,
        parameters=parameters.tolist(),
        targets={},
    )


def _scene_picture(recipe: Recipe, number: int, progress: ReportProgress) -> Picture:
    if not 0 <= number < len(recipe):
        raise ConfigError(f"scene: {number} is not allowed: the recipe has {len(recipe):,}")
    drawer = _drawer(recipe, [part.num_categories for part in recipe.all_parts], progress)
    scene = drawer.draw_scenes([number])[0]
    return Picture(
        index=number,
        name=scene_name(number),
        caption=f"scene {number}",
        panels=[("image", encode_png(scene.image)), *target_panels(scene, recipe.num_categories, recipe.min_visible)],
        columns=[],
        parameters=[],
        targets=targets_in_words(scene, recipe.num_categories, recipe.min_visible, [c.name for c in drawer.categories]),
    )


def target_panels(scene: Scene, num_categories: int, min_visible: int) -> list[tuple[str, bytes]]:
    """Pictures of a scene's targets: a heading and a PNG each."""
    semantic = semantic_target(scene, num_categories, min_visible)
    seen = Scene(scene.image, (semantic > 0).astype(np.uint16) * scene.object_map, scene.categories)
    boxes = scene.image if scene.image.shape[2] == 3 else np.repeat(scene.image, 3, axis=2)
    boxes = boxes.copy()
    for left, top, right, bottom in objects_target(scene, min_visible).boxes.tolist():
        boxes[[top, bottom - 1], left:right] = _BOX
        boxes[top:bottom, [left, right - 1]] = _BOX
    return [("semantic and objects: a hue for each category", encode_png(color_objects(seen))),
            ("objects: boxes", encode_png(boxes))]  # fmt: skip


def targets_in_words(scene: Scene, num_categories: int, min_visible: int, names: Sequence[str]) -> dict[str, str]:
    """The targets ``labels`` and ``objects`` of a scene, and the ``class`` of one object, in a line each."""
    objects = objects_target(scene, min_visible)
    present = np.flatnonzero(labels_target(scene, num_categories, min_visible)).tolist()
    told = {
        "class": names[scene.categories[0]] if len(scene.categories) == 1 else "none: there are several objects",
        "labels": ", ".join(names[label] for label in present) or "none",
        "semantic": f"{len(present)} categories and the background",
        "objects": "; ".join(
            f"{names[category]} at {box}"
            for category, box in zip(objects.categories.tolist(), objects.boxes.tolist(), strict=True)
        ) or "none",
    }  # fmt: skip
    return {target: told[target] for target in TARGETS}


def _places(recipe: Recipe, drawer: Drawer, wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The label in the recipe, and the place among the drawer's categories, of the wanted categories of each part."""
    labels, places = recipe.categories_of_parts.cumsum(), drawer.recipe.categories_of_parts.cumsum()
    for number, count in enumerate(wanted):
        label = labels[number] - recipe.categories_of_parts[number]
        place = places[number] - drawer.recipe.categories_of_parts[number]
        yield from ((int(label) + offset, int(place) + offset) for offset in range(count))


def _drawer(recipe: Recipe, wanted: Sequence[int], progress: ReportProgress) -> Drawer:
    """Draws the first categories of each part, as many as are wanted, or all of a folder.

    The first k of N categories have the same images for every N, so the others need not be searched for.
    """
    data = recipe.to_dict()
    for part, count in zip(data.get("parts") or [data], wanted, strict=True):
        if "folder" not in part["categories"]:
            part["categories"]["count"] = count
    small = Recipe.from_dict(data)
    categories = []
    for full, part, prefix in zip(recipe.all_parts, small.all_parts, category_prefixes(small.all_parts), strict=True):
        found = _categories(recipe, full, part.num_categories, progress)
        categories += [replace(category, name=prefix + category.name) for category in found]
    return Drawer(small, categories=categories)


def _categories(recipe: Recipe, part: Part, count: int, progress: ReportProgress) -> list[Category]:
    """The first categories of a part, from memory where they were found before."""
    if part.categories.folder is not None:
        return find_categories_of_part(recipe, part)
    key = category_key(part.generator.build(recipe.canvas, recipe.seed))
    found = _found.pop(key, [])
    if len(found) < count:
        # Twice as many as there were: a visitor who goes from one category to the next does not search each time.
        more = min(part.num_categories, max(count, 2 * len(found)))
        wanted = part.model_copy(update={"categories": Categories(count=more)})
        found = find_categories_of_part(
            recipe, wanted, progress=lambda done: progress("searching categories", done, more)
        )
    _found[key] = found
    while len(_found) > _KEPT:
        _found.pop(next(iter(_found)))
    return found[:count]
