"""Draws, encodes and writes the pieces of a store: in this process, in worker processes, or by a cluster's tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category
from formulavision.generators.new_process import Source
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe
from formulavision.storage.destinations import Destination
from formulavision.storage.formats import find_format
from formulavision.storage.formats.format import Format, Piece, Sample
from formulavision.storage.manifest import PieceRecord, StoreLayout
from formulavision.storage.own_categories import with_own_folders
from formulavision.storage.png import encode_png
from formulavision.storage.scene_objects import EncodedObjects
from formulavision.util.errors import FormulaVisionError
from formulavision.util.processes import CONTEXT, worker_pool

__all__ = ["Output", "PieceWriter", "start_on_node", "write_on_cluster", "write_pieces"]

_WINDOW_IMAGES, _WINDOW_BYTES = 1024, 200_000_000
"""Maximum number of images, and of their bytes before encoding, that a worker draws before it writes them in the order
of their indices: all images of a FractalDB category."""
_MOST_TASKS = 10_000
"""Maximum number of tasks that a cluster is given at a time."""


@dataclass(frozen=True)
class Output:
    """Where and how a process writes pieces."""

    destination: Destination
    format: str
    layout: StoreLayout
    png: str
    device: str


class _Stopped(Exception):
    """Raised in a worker process to stop writing its piece, because the run was interrupted."""


class PieceWriter:
    """Draws, encodes and writes pieces.

    Args:
        report: called with the number of images that were drawn since the last call; may raise to stop.
    """

    def __init__(self, output: Output, drawer: Drawer, report: Callable[[int], None]) -> None:
        self.output = output
        self.format: Format = find_format(output.format)
        self.drawer = drawer
        # Memory that all batches share: new pages for each would cost as much as the drawing.
        self.images = np.empty((drawer.batch_size, *drawer.recipe.canvas.shape), np.uint8)
        self.report = report

    def write(self, piece: Piece) -> PieceRecord:
        return self.output.destination.write_piece(self.format, piece, self._samples(piece), self.output.layout)

    def _samples(self, piece: Piece) -> Iterator[Sample]:
        """The samples of a piece in order. A window of them at a time is drawn in the order that shares most work."""
        layout = self.output.layout
        together = _WINDOW_IMAGES if layout.scenes is not None else layout.instances
        window = min(together, _WINDOW_IMAGES, max(1, _WINDOW_BYTES // self.images[0].nbytes))
        for start in range(0, piece.count, window):
            indices = piece.indices[start : start + window]
            samples: dict[int, Sample] = {}
            for batch in self.drawer.batches(indices):
                samples.update(zip(batch.tolist(), self._draw(batch), strict=True))
                self.report(len(batch))
            yield from (samples[index] for index in indices)

    def _draw(self, batch: NDArray[np.int64]) -> Iterator[Sample]:
        """Draw and encode the images of a batch."""
        layout, png = self.output.layout, self.output.png
        names = [layout.name(index) for index in batch.tolist()]
        if layout.min_visible is None:
            images, labels = self.drawer.draw_batch(batch, self.images[: len(batch)])
            for name, label, image in zip(names, labels.tolist(), images, strict=True):
                yield Sample(name, label, encode_png(image, png))
            return
        scenes = self.drawer.draw_scenes(batch)
        for position, name in enumerate(names):
            scene = scenes[position]
            yield Sample(name, -1, encode_png(scene.image, png), EncodedObjects.of(scene, layout.min_visible))


def write_pieces(
    output: Output, drawer: Drawer, pieces: list[Piece], workers: int, progress: Callable[[int], None]
) -> Iterator[tuple[Piece, PieceRecord]]:
    """Write pieces, in this process or in several, in any order.

    Args:
        progress: called with the number of images drawn so far.
    """
    if workers == 1 or len(pieces) <= 1:
        done = 0

        def report(drawn: int) -> None:
            nonlocal done
            done += drawn
            progress(done)

        writer = PieceWriter(output, drawer, report)
        for piece in pieces:
            yield piece, writer.write(piece)
        return
    # ``stop`` has no lock: if a worker were killed while it held the lock, all others would wait for ever.
    drawn, stop, compiled = CONTEXT.Value("q", 0), CONTEXT.RawValue("b", 0), CONTEXT.Event()
    recipe = with_own_folders(drawer.recipe.portable(), output.destination.own_categories)
    start = (recipe, drawer.categories, output, drawn, stop, compiled)
    pool = worker_pool(min(workers, len(pieces)), _start_worker, *start)
    try:
        futures = {pool.submit(_write_in_worker, piece): piece for piece in pieces}
        # numba and Triton compile once, here, while the workers start; these wait, and read from the caches.
        encode_png(drawer.draw(0)[0], output.png)
        compiled.set()
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            progress(drawn.get_obj().value)  # without its lock, for the same reason
            for future in finished:
                yield futures[future], future.result()
    except BaseException:
        stop.value = 1
        raise
    finally:
        compiled.set()
        pool.shutdown(wait=True, cancel_futures=True)


def write_on_cluster(
    pool: Executor, pieces: list[Piece], progress: Callable[[int], None]
) -> Iterator[tuple[Piece, PieceRecord]]:
    """Write pieces by a cluster's tasks, in any order. A piece whose worker is lost is written by another.

    Args:
        progress: called with the number of images in the pieces that are done.
    """
    done, waiting = 0, iter(pieces)
    futures: dict[Future[PieceRecord], Piece] = {}
    try:
        while True:
            for piece in islice(waiting, _MOST_TASKS - len(futures)):
                futures[pool.submit(_write_in_worker, piece)] = piece
            if not futures:
                return
            finished, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in finished:
                piece = futures.pop(future)
                done += piece.count
                yield piece, future.result()
            progress(done)
    finally:
        pool.shutdown(cancel_futures=True)


def start_on_node(
    sources: list[Source], categories: list[Category], output: Output, recipe: dict[str, Any], names: list[str]
) -> None:
    """Start a worker process of a cluster.

    Args:
        names: the store's files that hold the recipe and its categories.
    """
    global _writer
    try:
        for source in sources:
            source.register()
        output = replace(output, destination=output.destination.on_node(names))
        own = with_own_folders(recipe, output.destination.own_categories)
        drawer = Drawer(Recipe.from_dict(own), categories=categories, device=output.device)
        _writer = PieceWriter(output, drawer, lambda images: None)
    except FormulaVisionError as error:
        _writer = error


def _start_worker(
    recipe: dict[str, Any], categories: list[Category], output: Output, drawn: Any, stop: Any, compiled: Any
) -> None:
    def report(images: int) -> None:
        with drawn.get_lock():
            drawn.value += images
        if stop.value:
            raise _Stopped

    global _writer
    try:
        drawer = Drawer(Recipe.from_dict(recipe), categories=categories, device=output.device)
        _writer = PieceWriter(output, drawer, report)
    except FormulaVisionError as error:
        # For example, the GPU's memory is too small for all workers. The first piece raises it: raised here, the user
        # would see a traceback.
        _writer = error
    compiled.wait()


def _write_in_worker(piece: Piece) -> PieceRecord:
    if isinstance(_writer, FormulaVisionError):
        raise _writer
    return _writer.write(piece)


_writer: PieceWriter | FormulaVisionError
"""The writer of this worker process, or the error that making it raised."""
