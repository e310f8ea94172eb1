"""Prove a store right: checksums, and its images drawn again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.drawing import Drawer
from formulavision.storage.formats import Format, find_format
from formulavision.storage.manifest import MANIFEST
from formulavision.storage.store import Store
from formulavision.util.errors import StoreError
from formulavision.util.folders import LOCK, MARKER

__all__ = ["Verification", "verify"]


@dataclass
class Verification:
    """What ``verify`` found.

    Attributes:
        pieces, images: how many were checked by checksum, and how many were drawn again.
        problems: one line each.
    """

    store: Store
    pieces: int = 0
    images: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    path: str | Path, *, sample: int | None = 1000, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verification:
    """Compare a store with its manifest (all bytes) and with its recipe (images drawn again).

    Args:
        sample: images to draw again, spread at random over the store; None: all.
        progress: called with pieces and images done, and their total.

    Raises:
        StoreError: there is no store, it is not complete, or its recipe is not the one of the manifest.
        ConfigError: the recipe's generator is not installed, or in another version.
    """
    store = Store(path)
    recipe = store.recipe
    if recipe.id != store.manifest.recipe_id:
        raise StoreError(f"{path}: the recipe in the manifest has id {recipe.id}, not {store.manifest.recipe_id}")
    result = Verification(store)
    store_format = find_format(store.manifest.format)
    drawer = Drawer(recipe)
    result.problems += _structure(store, drawer, store_format)
    if result.problems:
        return result  # its images cannot even be found
    total = len(store)
    count = total if sample is None else min(sample, total)
    indices = (
        np.arange(total)
        if count == total
        else np.sort(random_stream(0, Stream.VERIFIED).choice(total, count, replace=False))
    )
    steps = len(store.manifest.pieces) + count
    for number, record in enumerate(store.manifest.pieces):
        progress(number, steps)
        target = store.path / record.path
        try:
            size, sha256 = store_format.measure(target)
        except OSError as error:
            result.problems.append(f"{target}: {error.strerror}")
            continue
        result.pieces += 1
        if size != record.bytes:
            result.problems.append(f"{target}: holds {size} bytes, not {record.bytes}")
        elif sha256 != record.sha256:
            result.problems.append(f"{target}: its bytes are not those that were written (checksum)")
    for start in range(0, count, drawer.batch_size):
        progress(len(store.manifest.pieces) + start, steps)
        batch = indices[start : start + drawer.batch_size]
        images, _ = drawer.draw_batch(batch)
        for index, image in zip(batch.tolist(), images, strict=True):
            result.images += 1
            try:
                stored = store.read(index)
            except StoreError as error:
                result.problems.append(str(error))
                continue
            if stored.shape != image.shape:
                result.problems.append(f"{store.layout.name(index)}: is {stored.shape}, not {image.shape}")
            elif not np.array_equal(stored, image):
                pixels = int(np.any(stored != image, axis=-1).sum())
                result.problems.append(f"{store.layout.name(index)}: {pixels} pixels differ from the formula's")
    progress(steps, steps)
    return result


def _structure(store: Store, drawer: Drawer, store_format: Format) -> list[str]:
    """What is wrong with names and pieces, before any image is looked at."""
    layout, path = store.layout, store.path
    problems = []
    if layout.category_names != [category.name for category in drawer.categories]:
        problems.append(f"{path}: its categories are named otherwise than the recipe's")
    if layout.instance_names != drawer.instance_names():
        problems.append(f"{path}: its instances are named otherwise than the recipe's")
    planned = [(piece.first, piece.count) for piece in store_format.plan(layout)]
    if [(record.first, record.count) for record in store.manifest.pieces] != planned:
        problems.append(f"{path}: its pieces are not those of its format's plan")
    known = {
        MANIFEST,
        MARKER,
        LOCK,
        "recipe.yaml",
        *(record.path.partition("/")[0] for record in store.manifest.pieces),
    }
    problems += [f"{entry}: is no part of the store" for entry in sorted(path.iterdir()) if entry.name not in known]
    return problems
