"""Recipe to store: a plan of independent pieces, drawn and written by local processes, resumed where it stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from formulavision.generators.contract import Category
from formulavision.generators.failures import ask_for_names
from formulavision.generators.registry import plugins
from formulavision.recipes.categories import find_categories
from formulavision.recipes.category_files import CATEGORIES, holds_categories, write_file
from formulavision.recipes.device import check_device
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe
from formulavision.storage.formats import DEFAULT_FORMAT, Format, Piece, Sample, find_format
from formulavision.storage.manifest import (
    INCOMPLETE,
    MANIFEST,
    RECIPE,
    Layout,
    Manifest,
    PieceRecord,
    file_checksums,
    write_manifest,
)
from formulavision.storage.png import DEFAULT_ENCODING, check_encoding, encode_png
from formulavision.storage.store import Store
from formulavision.util.config import dump_yaml
from formulavision.util.errors import ConfigError, FormulaVisionError, StoreError
from formulavision.util.files import write_text
from formulavision.util.folders import OwnedFolder, State
from formulavision.util.processes import BROKEN_POOL, CONTEXT, worker_pool
from formulavision.util.progress import is_watched, progress_bars
from formulavision.util.version import __version__

__all__ = ["Progress", "Silent", "generate"]

_WINDOW_IMAGES, _WINDOW_BYTES = 1024, 200_000_000
"""Images of a category, and bytes of them before encoding, that are kept until the first of them is written: all of a
FractalDB category."""
_MAX_WORKERS = 1024
_MAX_IMAGES = 1_000_000_000


class Progress(Protocol):
    """What ``generate`` tells while it works; :class:`formulavision.util.progress.Bars` shows it."""

    def categories(self, found: int, total: int) -> None:
        """Categories found so far."""

    def images(self, done: int, total: int) -> None:
        """Images written so far, those of earlier runs included."""

    def note(self, line: str) -> None:
        """Something to know about the run, in a line of text."""


class Silent(Progress):
    """Tells nothing."""

    def categories(self, found: int, total: int) -> None:
        pass

    def images(self, done: int, total: int) -> None:
        pass

    def note(self, line: str) -> None:
        pass


def generate(
    recipe: RecipeLike,
    out: str | Path,
    *,
    format: str = DEFAULT_FORMAT,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    device: str = "cpu",
    png: str = DEFAULT_ENCODING,
) -> Store:
    """Draw a recipe into a store. A run that was stopped goes on where it was, and ends in the same bytes.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        out: the store's folder: new, empty, or an unfinished store of the same recipe, format and encoding.
        format: parquet, webdataset or imagefolder.
        workers: processes to draw with; with 1, this process draws. The pixels do not depend on it.
        overwrite: remove the files of a store that is in the way, finished or not. Other files in its folder stay, and
            a folder that FormulaVision did not write is refused all the same.
        progress: is told how far the work is; None: bars on a terminal and in a notebook, nothing elsewhere.
        device: what draws: cpu, or cuda (cuda:N), where the generator can draw there; each process then draws on the
            GPU and encodes on a core. The pixels do not depend on it.
        png: plain: 8-bit gray or RGB files, which every reader reads alike; compact: 1-bit palette files for gray
            images of two values, a little smaller, of which numpy, torchvision's ``decode_image`` and Hugging Face
            datasets get wrong values. ``Store`` reads both.

    Raises:
        ConfigError: a number is out of range, or there is no such device or encoding.
        StoreError: the folder holds something else, another process writes there, or the disk is full or read-only.
        PluginError: the generator raised; what was drawn before stays and is resumed.
    """
    recipe = as_recipe(recipe)
    if progress is None and is_watched():
        with progress_bars() as bars:
            return generate(
                recipe, out, format=format, workers=workers, overwrite=overwrite, progress=bars, device=device, png=png
            )
    progress = progress or Silent()
    if len(recipe) > _MAX_IMAGES:
        raise ConfigError(f"instances: {len(recipe):,} images are more than a store holds, {_MAX_IMAGES:,}")
    if not 1 <= workers <= _MAX_WORKERS:
        raise ConfigError(f"workers: {workers} is not allowed: must be from 1 to {_MAX_WORKERS}")
    store_format = find_format(format)
    check_device(device)
    check_encoding(png)
    root = Path(out)
    folder = OwnedFolder(root, "store", last=MANIFEST)
    identity = {"recipe": recipe.id, "format": f"{format} {store_format.version}", "png": png}
    if not overwrite and folder.holds(identity) and not (root / INCOMPLETE).exists():
        return Store(root)
    # Read before anything is overwritten: their folder may be the store itself.
    given = _given_categories(recipe, root)
    files = (RECIPE, CATEGORIES, MANIFEST, f"{INCOMPLETE}/")
    try:
        with folder.writing(identity, files, overwrite=overwrite) as state:
            if state is not State.COMPLETE:
                _fill(folder, recipe, given, format, png, workers, device, progress)
            if (root / INCOMPLETE).exists():
                shutil.rmtree(root / INCOMPLETE)
    except BrokenProcessPool:
        raise StoreError(f"{root}: {BROKEN_POOL}; what was written so far is kept") from None
    except OSError as error:
        raise StoreError(
            f"{error.filename or root}: {error.strerror or error}; what was written so far is kept: "
            "run the same command again"
        ) from None
    return Store(root)


def _given_categories(recipe: Recipe, root: Path) -> list[Category] | None:
    """Categories that are read: from their folder, or, where it is gone, the store. None: the generator finds them."""
    own = recipe.categories
    if own.sha256 is None:
        return None
    if (own.folder is None or not holds_categories(own.folder)) and (root / CATEGORIES).is_file():
        content = recipe.portable()
        content["categories"]["folder"] = str(root)
        recipe = Recipe.from_dict(content)
    return find_categories(recipe)


def _write_recipe(root: Path, recipe: Recipe, categories: list[Category]) -> None:
    """The recipe and its categories, so that the store needs nothing outside of it."""
    content = recipe.portable()
    if recipe.categories.sha256 is not None:
        content["categories"]["folder"] = "."  # the store, wherever it lies
    write_file(categories, recipe.build(), root)
    write_text(root / RECIPE, dump_yaml(content))


# The folder ----------------------------------------------------------------------------------------------------------


def _fill(
    folder: OwnedFolder,
    recipe: Recipe,
    given: list[Category] | None,
    format: str,
    png: str,
    workers: int,
    device: str,
    progress: Progress,
) -> None:
    """Draw what is missing in a store's folder, which this process holds."""
    root, store_format = folder.root, find_format(format)
    (root / INCOMPLETE).mkdir(exist_ok=True)
    for leftover in (root / INCOMPLETE).glob("*.partial"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    categories = given or find_categories(
        recipe, workers=workers, progress=lambda n: progress.categories(n, recipe.num_categories)
    )
    _write_recipe(root, recipe, categories)
    drawer = Drawer(recipe, categories=categories, device=device, note=progress.note)
    job = _Job(recipe, categories, root, format, png, "cpu" if drawer.device_drawer is None else device)
    layout = job.layout
    pieces = store_format.plan(layout)
    folder.add(store_format.files_of(store_format.path(piece, layout, len(pieces))) for piece in pieces)
    records = {piece.number: record for piece in pieces if (record := _read_record(root, store_format, piece))}
    missing = [piece for piece in pieces if piece.number not in records]
    done = sum(record.count for record in records.values())
    for piece, record in _run(job, drawer, missing, workers, lambda n: progress.images(done + n, len(recipe))):
        records[piece.number] = record
    write_manifest(root, _manifest(job, [records[piece.number] for piece in pieces]))


def _record_file(root: Path, piece: Piece) -> Path:
    return root / INCOMPLETE / f"{piece.number:06d}.json"


def _read_record(root: Path, store_format: Format, piece: Piece) -> PieceRecord | None:
    """The record of a piece that was written; None where there is none, or where the piece is not as it says."""
    path = _record_file(root, piece)
    if not path.is_file():
        return None
    try:
        record = PieceRecord.model_validate_json(path.read_text())
        size = sum(file.stat().st_size for file in store_format.files(root / record.path))
    except (ValueError, OSError):
        return None
    return record if (record.first, record.count, record.bytes) == (piece.first, piece.count, size) else None


def _manifest(job: _Job, pieces: list[PieceRecord]) -> Manifest:
    recipe = job.recipe
    return Manifest(
        formulavision=__version__,
        generator_package=plugins()[recipe.generator.name].origin,
        format=job.format,
        recipe_id=recipe.id,
        recipe=recipe.portable(),
        png=job.png,
        layout=job.layout,
        pieces=pieces,
        files=file_checksums(job.root, (RECIPE, CATEGORIES)),
    )


# The work ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    recipe: Recipe
    categories: list[Category]
    root: Path
    format: str
    png: str
    device: str

    @property
    def layout(self) -> Layout:
        return Layout(
            category_names=[category.name for category in self.categories],
            instance_names=ask_for_names(self.recipe.build(), self.recipe.num_instances),
            size=self.recipe.canvas.size,
            channels=self.recipe.canvas.channels,
        )


class _Stopped(Exception):
    """The run was interrupted; the piece at hand is given up."""


class _Worker:
    """Draws and writes pieces, in this process or in one of its own."""

    def __init__(self, job: _Job, drawer: Drawer, count: Callable[[int], None], stopped: Callable[[], bool]) -> None:
        self.job = job
        self.layout = job.layout
        self.format: Format = find_format(job.format)
        self.pieces = len(self.format.plan(self.layout))
        self.drawer = drawer
        self.images = np.empty((drawer.batch_size, *job.recipe.canvas.shape), np.uint8)
        self.count = count
        self.stopped = stopped

    def write(self, piece: Piece) -> PieceRecord:
        path = self.format.path(piece, self.layout, self.pieces)
        target = self.job.root / path
        self.format.write(target, self._samples(piece), self.layout)
        size, sha256 = self.format.measure(target)
        record = PieceRecord(path=path, first=piece.first, count=piece.count, bytes=size, sha256=sha256)
        write_text(_record_file(self.job.root, piece), record.model_dump_json())
        return record

    def _samples(self, piece: Piece) -> Iterator[Sample]:
        """The samples of a piece in order. They are drawn in windows, in each in the order that shares most work."""
        window = min(self.layout.instances, _WINDOW_IMAGES, max(1, _WINDOW_BYTES // self.images[0].nbytes))
        for start in range(0, piece.count, window):
            indices = piece.indices[start : start + window]
            pngs = [b""] * len(indices)
            for batch in self.drawer.batches(indices):
                images, _ = self.drawer.draw_batch(batch, self.images[: len(batch)])
                for index, image in zip(batch.tolist(), images, strict=True):
                    pngs[index - indices[0]] = encode_png(image, self.job.png)
                self.count(len(batch))
                if self.stopped():
                    raise _Stopped
            for index, png in zip(indices, pngs, strict=True):
                yield Sample(self.layout.name(index), index // self.layout.instances, png)


def _run(
    job: _Job, drawer: Drawer, pieces: list[Piece], workers: int, progress: Callable[[int], None]
) -> Iterator[tuple[Piece, PieceRecord]]:
    if workers == 1 or len(pieces) <= 1:
        done = 0

        def count(n: int) -> None:
            nonlocal done
            done += n
            progress(done)

        worker = _Worker(job, drawer, count, lambda: False)
        for piece in pieces:
            yield piece, worker.write(piece)
        return
    counter, stop, compiled = CONTEXT.Value("q", 0), CONTEXT.Event(), CONTEXT.Event()
    pool = worker_pool(min(workers, len(pieces)), _start_worker, _pack(job), counter, stop, compiled)
    try:
        futures: dict[Future[PieceRecord], Piece] = {pool.submit(_write_piece, piece): piece for piece in pieces}
        # What numba and Triton have to compile after an installation they compile once, here, while the workers start;
        # these wait for it and read it from the caches.
        encode_png(drawer.draw(0)[0], job.png)
        compiled.set()
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            progress(counter.get_obj().value)  # a worker that was killed may hold the lock
            for future in finished:
                yield futures[future], future.result()
    except BaseException:
        stop.set()
        raise
    finally:
        compiled.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _pack(job: _Job) -> tuple[Any, ...]:
    categories = [(c.index, c.name, c.parameters) for c in job.categories]
    return job.recipe.portable(), categories, job.root, job.format, job.png, job.device


def _start_worker(packed: tuple[Any, ...], counter: Any, stop: Any, compiled: Any) -> None:
    recipe, categories, *settings = packed
    checked = time.monotonic()

    def count(n: int) -> None:
        with counter.get_lock():
            counter.value += n

    def stopped() -> bool:
        nonlocal checked
        if time.monotonic() - checked < 0.1:
            return False
        checked = time.monotonic()
        return bool(stop.is_set())

    global _worker
    try:
        job = _Job(Recipe.from_dict(recipe), [Category(*c) for c in categories], *settings)
        _worker = _Worker(job, Drawer(job.recipe, categories=job.categories, device=job.device), count, stopped)
    except FormulaVisionError as error:
        # Such as a GPU whose memory does not do for all workers: what fails here would be told with a traceback.
        _worker = error
    compiled.wait()


def _write_piece(piece: Piece) -> PieceRecord:
    if isinstance(_worker, FormulaVisionError):
        raise _worker
    return _worker.write(piece)


_worker: _Worker | FormulaVisionError
