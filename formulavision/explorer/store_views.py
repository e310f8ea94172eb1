"""Views of a store: what the explorer's process reads of it, as PNGs and plain values."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from formulavision.evaluation.image_measures import (
    LOWEST_FREQUENCY,
    NATURAL_SLOPE,
    SIMILAR,
    entropy,
    nearest_of_others,
    power_spectrum,
    slope_of,
)
from formulavision.explorer.recipe_views import Cell, Picture, Sheet, target_panels, targets_in_words
from formulavision.explorer.worker import ReportProgress
from formulavision.generators.contract import Generator, Scene
from formulavision.recipes.category_files import Parameters, read_folder
from formulavision.storage.manifest import MANIFEST
from formulavision.storage.own_categories import category_files
from formulavision.storage.png import encode_png
from formulavision.storage.store import Store
from formulavision.storage.verification import verify
from formulavision.util.errors import ConfigError, FormulaVisionError, StoreError
from formulavision.util.remote import folder_of
from formulavision.util.text import byte_size, counted

__all__ = ["PAGE", "Browsed", "Statistics", "browse", "facts_of", "measure_store", "store_picture", "verify_store"]

PAGE = 24
"""Number of images on a page."""
_SMALL = 192
"""Largest side of an image on a page, pixels."""
_SEARCHED = 2000
"""Number of scenes that are read to find those with a category."""
_MEASURED = 1000
"""Largest number of images that are measured."""
_MEASURED_BYTES = 64_000_000
"""Largest number of bytes of the images that are measured."""
_COMPARED = 32
"""Side of the images that are compared with each other, pixels: noise and a shift by a pixel count less."""
_PAIRS = 6
"""Number of pairs of nearest duplicates that are shown."""


@dataclass(frozen=True)
class Browsed:
    """A page of a store.

    Attributes:
        sheet: the images that can be read.
        pages: number of pages.
        told: the images in words.
        problems: a line for each image that cannot be read.
    """

    sheet: Sheet
    pages: int
    told: str
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Statistics:
    """Measures of a sample of a store.

    Attributes:
        facts: the measures in words, by their names.
        plot: gray levels and power spectrum, a PNG.
        pairs: captions and images of the nearest duplicates, two by two.
    """

    facts: dict[str, str]
    plot: bytes
    pairs: list[tuple[str, bytes, bytes]]


def facts_of(store: Store) -> dict[str, str]:
    """What the manifest says of a store, in words."""
    layout, manifest = store.layout, store.manifest
    what = "image" if layout.scenes is None else "scene"
    size = f"{layout.size} x {layout.size} pixels, {'gray' if layout.channels == 1 else 'RGB'}"
    pieces, stored = counted(len(manifest.pieces), "piece"), byte_size(sum(piece.bytes for piece in manifest.pieces))
    return {
        "store": str(store.root),
        "content": f"{counted(len(store), what)} of {len(layout.category_names):,} categories, {size}",
        "recipe": manifest.recipe_id,
        "format": f"{manifest.format}: {pieces}, {stored}",
    }


def browse(path: str, wanted: str, page: int, progress: ReportProgress) -> Browsed:
    """A page of a store's images.

    Args:
        wanted: the name of a category, or its beginning; scenes are those with such an object. Empty: all images.
        page: number of the page, from 0; after the last one, the last.

    Raises:
        ConfigError: no category has such a name.
        StoreError: there is no complete store.
    """
    store = _open(path)
    indices, told = _indices(store, wanted.strip())
    pages = max(1, -(-len(indices) // PAGE))
    page = min(page, pages - 1)
    cells, problems = [], []
    for index in indices[page * PAGE : (page + 1) * PAGE].tolist():
        try:
            image = store.read(index)
        except StoreError as error:
            problems.append(str(error))
            continue
        cells.append(Cell(0, index, store.layout.name(index), encode_png(_small(image))))
    told = f"{told}; page {page + 1:,} of {pages:,}"
    return Browsed(Sheet(cells, columns=6, search_seconds=0, image_seconds=0, image_bytes=0), pages, told, problems)


def store_picture(path: str, index: int, progress: ReportProgress) -> Picture:
    """One image of a store with its category's parameters, or a scene with its targets.

    Raises:
        StoreError: there is no complete store, or the image is missing or damaged.
        ConfigError: the store has no such image.
    """
    store = _open(path)
    layout = store.layout
    if not 0 <= index < len(store):
        raise ConfigError(f"index: {index} is not allowed: the store has {len(store):,}")
    if layout.scenes is not None:
        scene, names, visible = store.scene(index), layout.category_names, layout.min_visible or 0
        return Picture(
            index=index,
            name=layout.name(index),
            caption=f"scene {index}",
            panels=[("image", encode_png(scene.image)), *target_panels(scene, len(names), visible)],
            columns=[],
            parameters=[],
            targets=targets_in_words(scene, len(names), visible, names),
        )
    label = store.label(index)
    told, columns, parameters = {}, [], []
    try:
        generator, found = _category(store, label)
        columns = list(generator.columns) or [str(column) for column in range(found.shape[1])]
        parameters = found.tolist()
    except FormulaVisionError as error:
        # The image is shown also where its generator is not installed.
        told = {"parameters": f"cannot be read: {error}"}
    return Picture(
        index=index,
        name=layout.name(index),
        caption=f"category {layout.category_names[label]} (label {label}), image {index:,}",
        panels=[("image", encode_png(store.read(index)))],
        columns=columns,
        parameters=parameters,
        targets=told,
    )


def verify_store(path: str, sample: int, progress: ReportProgress) -> tuple[str, list[str]]:
    """What ``verify`` did, in words, and the problems that it found.

    Raises:
        FormulaVisionError: as :func:`formulavision.verify`.
    """
    found = verify(path, sample=sample, progress=partial(progress, "verifying pieces and images"))
    pieces, images = counted(found.pieces, "piece"), counted(found.images, "image")
    return f"The files of {pieces} compared with the manifest, {images} drawn again", found.problems


def measure_store(path: str, progress: ReportProgress) -> Statistics:
    """Measure a sample of a store's images, at even distances.

    Raises:
        StoreError: there is no complete store, or an image is missing or damaged.
    """
    store = _open(path)
    layout = store.layout
    most = min(_MEASURED, max(_PAIRS, _MEASURED_BYTES // (layout.size**2 * layout.channels)))
    indices = np.unique(np.linspace(0, len(store) - 1, min(most, len(store))).round().astype(np.int64))
    gray = np.empty((len(indices), layout.size, layout.size), np.uint8)
    small = np.empty((len(indices), _COMPARED, _COMPARED, 3), np.uint8)
    filled, why = [], ""
    for number, index in enumerate(indices.tolist()):
        progress("measuring images", number, len(indices))
        scene = store.scene(index) if layout.scenes is not None else None
        image = store.read(index) if scene is None else scene.image
        shown = _as_image(image)
        gray[number] = np.asarray(shown.convert("L"))
        small[number] = np.asarray(shown.convert("RGB").resize((_COMPARED, _COMPARED), Image.Resampling.BOX))
        try:
            filled.append(_fill_rate(store, index, image, scene))
        except FormulaVisionError as error:
            why = str(error)
    # Scenes have no category of their own: each is compared with all others.
    labels = indices if layout.scenes is not None else np.array([store.label(index) for index in indices.tolist()])
    places, correlations = nearest_of_others(small, labels)
    power = power_spectrum(gray)
    what, others = ("scenes", "another scene") if layout.scenes is not None else ("images", "another category")
    like = float((correlations >= SIMILAR).mean())
    slope = "none: the images have one colour each, or are too small"
    if power is not None:
        slope = f"slope {slope_of(power):.2f} (natural images: about {NATURAL_SLOPE:g})"
    of = f", of {len(filled):,} of these {what}; the others: {why}" if len(filled) < len(indices) else ""
    facts = {
        "sample": f"{len(indices):,} of {len(store):,} {what}, at even distances",
        "fill rate": _told_fill(filled) + of if filled else f"not known: {why}",
        "gray levels": f"mean {gray.mean():.1f} of 255; entropy {entropy(gray):.2f} bits an image",
        "spectrum": slope,
        "near-duplicates": f"{like:.1%} of the {what} correlate by {SIMILAR:g} or more with {others} of the sample "
        f"({_COMPARED} x {_COMPARED} pixels)",
    }
    pairs = [
        (
            f"correlation {correlations[one]:.3f}: {layout.name(int(indices[one]))} and "
            f"{layout.name(int(indices[other]))}",
            encode_png(_small(store.read(int(indices[one])))),
            encode_png(_small(store.read(int(indices[other])))),
        )
        for one, other in _nearest_pairs(places, correlations)
    ]
    return Statistics(facts, _plot(gray, power), pairs)


# Reading -------------------------------------------------------------------------------------------------------------


def _open(path: str) -> Store:
    """A store, opened again where its manifest has changed."""
    root = folder_of(path)
    try:
        changed = (root / MANIFEST).stat().st_mtime_ns if isinstance(root, Path) else 0
    except OSError:
        changed = 0  # the store says what is missing
    return _open_version(path, changed)


@lru_cache(maxsize=4)
def _open_version(path: str, changed: int) -> Store:
    return Store(path)


def _indices(store: Store, wanted: str) -> tuple[NDArray[np.int64], str]:
    """The indices of the images of some categories, and the images in words."""
    layout = store.layout
    what = "images" if layout.scenes is None else "scenes"
    if not wanted:
        return np.arange(len(store)), f"all {len(store):,} {what}"
    names = layout.category_names
    labels = [label for label, name in enumerate(names) if name.startswith(wanted)]
    if not labels:
        known = f"{names[0]} to {names[-1]}"
        raise ConfigError(f"category: {wanted[:40]!r} is the beginning of no category here: they are {known}")
    of = f"of category {names[labels[0]]}" if len(labels) == 1 else f"of {len(labels):,} categories"
    if layout.scenes is None:
        starts = np.array([*layout.first_of_categories(), len(store)])
        indices = np.concatenate([np.arange(starts[label], starts[label + 1]) for label in labels])
        return indices, f"{len(indices):,} images {of}"
    found = _scenes_with(store, frozenset(labels))
    among = f" among the first {_SEARCHED:,}" if len(store) > _SEARCHED else ""
    return found, f"{len(found):,} scenes{among} with an object {of}"


@lru_cache(maxsize=8)
def _scenes_with(store: Store, labels: frozenset[int]) -> NDArray[np.int64]:
    searched = range(min(len(store), _SEARCHED))
    found = [index for index in searched if not labels.isdisjoint(store.object_labels(index).tolist())]
    return np.array(found, np.int64)


def _category(store: Store, label: int) -> tuple[Generator, Parameters]:
    """The generator of a category, and the category's parameters as the store has them.

    Raises:
        ConfigError: the generator is not installed, or in another version; or the categories are damaged.
    """
    for generator, categories in _parts(store):
        if label < len(categories):
            return generator, categories[label]
        label -= len(categories)
    raise ConfigError("the store's own files do not have it")


@lru_cache(maxsize=4)
def _parts(store: Store) -> list[tuple[Generator, list[Parameters]]]:
    """The generator of each part of a store's recipe, and its categories' parameters."""
    recipe = store.recipe
    parts = []
    for name, part in category_files(recipe)[: len(recipe.all_parts)]:
        generator = part.generator.build(recipe.canvas, recipe.seed)
        parts.append((generator, list(read_folder(store.recipe_folder / name, generator).values())))
    return parts


def _as_image(image: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _small(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
    """An image that is not larger than it is shown on a page."""
    if max(image.shape[:2]) <= _SMALL:
        return image
    shown = _as_image(image).resize((_SMALL, _SMALL), Image.Resampling.LANCZOS)
    return np.asarray(shown).reshape(_SMALL, _SMALL, -1)


# Measuring -----------------------------------------------------------------------------------------------------------


def _fill_rate(store: Store, index: int, image: UInt8[np.ndarray, "h w c"], scene: Scene | None) -> float:
    """Share (0..1) of the pixels that an object has.

    Raises:
        ConfigError: the image alone does not tell.
    """
    if scene is not None:
        return float((scene.object_map > 0).mean())
    generator, _ = _category(store, store.label(index))
    if generator.fills_canvas or generator.draws_masks:
        raise ConfigError(f"images of '{generator.name}' have no background of one gray level")
    return float(np.any(image != generator.background, axis=2).mean())


def _told_fill(filled: Sequence[float]) -> str:
    low, median, high = np.quantile(filled, [0, 0.5, 1])
    return f"mean {np.mean(filled):.1%} of the pixels, median {median:.1%}, from {low:.1%} to {high:.1%}"


def _nearest_pairs(places: NDArray[np.int64], correlations: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """The pairs that correlate most, each once."""
    shown: set[frozenset[int]] = set()
    for one in np.argsort(-correlations, kind="stable").tolist():
        pair = frozenset((one, int(places[one])))
        if len(shown) == _PAIRS or not np.isfinite(correlations[one]):
            return
        if pair not in shown:
            shown.add(pair)
            yield one, int(places[one])


def _plot(gray: UInt8[np.ndarray, "n size size"], power: NDArray[np.float64] | None) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    levels, spectrum = figure.subplots(1, 2)
    shares = np.bincount(gray.ravel(), minlength=256) / gray.size
    levels.bar(np.arange(256), shares, width=1, color="#0072B2")
    levels.set(xlabel="gray level", ylabel="share of the pixels", yscale="log", xlim=(-2, 257), ylim=(1e-6, 1))
    spectrum.set(xlabel="frequency (cycles an image)", ylabel="mean power")
    if power is None:
        spectrum.set_visible(False)
    else:
        frequencies = np.arange(LOWEST_FREQUENCY, LOWEST_FREQUENCY + len(power))
        spectrum.loglog(frequencies, power, color="#0072B2", label="sample")
        natural = power[0] * (frequencies / LOWEST_FREQUENCY) ** NATURAL_SLOPE
        spectrum.loglog(frequencies, natural, color="#D55E00", linestyle="--", label="slope of natural images")
        spectrum.legend(frameon=False)
        ticks = 2.0 ** np.arange(2, np.log2(frequencies[-1]))
        spectrum.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        spectrum.xaxis.set_minor_locator(NullLocator())
        spectrum.yaxis.set_minor_formatter(NullFormatter())
    for axes in (levels, spectrum):
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, facecolor="white")
    return content.getvalue()
