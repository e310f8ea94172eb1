"""``generate``: draws a recipe into a store, by worker processes; an interrupted run is resumed.

The store is planned as independent pieces, which ``piece_workers.py`` writes. A record of each of them in the folder
``.incomplete`` tells a later run what is left to do. The manifest is written last. Jobs of a scheduler (``jobs.py``)
write shares of the pieces, and one call more the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, overload

import numpy as np

from formulavision.generators.contract import Category
from formulavision.recipes.categories import category_name, find_categories
from formulavision.recipes.device import check_device
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe
from formulavision.storage.card import CARD, store_card
from formulavision.storage.destinations import Destination, LocalDestination, recipe_files
from formulavision.storage.formats import DEFAULT_FORMAT, find_format
from formulavision.storage.formats.format import Piece
from formulavision.storage.jobs import Share, missing_pieces
from formulavision.storage.manifest import MANIFEST, Manifest, PieceRecord, layout_of, origins
from formulavision.storage.nodes import check_nodes, sources_of
from formulavision.storage.own_categories import category_files, find_background
from formulavision.storage.piece_workers import Output, start_on_node, write_on_cluster, write_pieces
from formulavision.storage.png import DEFAULT_ENCODING, check_encoding
from formulavision.storage.remote_destination import RemoteDestination
from formulavision.storage.store import Store
from formulavision.util.cluster import Cluster, PerTask, check_on, connected
from formulavision.util.errors import ClusterError, ConfigError, RemoteError, StoreError
from formulavision.util.folders import MARKER, State
from formulavision.util.processes import BROKEN_POOL, Pools
from formulavision.util.progress import is_watched, progress_bars
from formulavision.util.remote import AnyFolder, folder_of
from formulavision.util.version import __version__

__all__ = ["Progress", "Silent", "generate"]

_MAX_WORKERS = 1024
_MAX_IMAGES = 1_000_000_000
_TASK_BYTES = 800_000_000
"""Memory that a task of a cluster reserves: a process that draws, and two windows of images."""
_COMPLETE = "is complete already: its jobs have nothing to do"
_KEPT = "what was written so far is kept: run the same command again"


class Progress(Protocol):
    """Receives the progress of ``generate``; :class:`formulavision.util.progress.Bars` shows it as bars."""

    def categories(self, found: int, total: int) -> None:
        """Number of categories found so far."""

    def images(self, done: int, total: int) -> None:
        """Number of images written so far, those of earlier runs included."""

    def note(self, line: str) -> None:
        """A line of text for the user, such as that the CPU draws instead of the GPU."""


class Silent:
    """Shows no progress."""

    def categories(self, found: int, total: int) -> None:
        pass

    def images(self, done: int, total: int) -> None:
        pass

    def note(self, line: str) -> None:
        pass


@overload
def generate(
    recipe: RecipeLike,
    out: str | Path,
    *,
    format: str = ...,
    workers: int = ...,
    overwrite: bool = ...,
    progress: Progress | None = ...,
    device: str = ...,
    png: str = ...,
    job: None = ...,
    finish: bool = ...,
    on: str | None = ...,
    per_task: str = ...,
) -> Store: ...


@overload
def generate(
    recipe: RecipeLike,
    out: str | Path,
    *,
    format: str = ...,
    workers: int = ...,
    overwrite: bool = ...,
    progress: Progress | None = ...,
    device: str = ...,
    png: str = ...,
    job: str,
    finish: bool = ...,
    on: str | None = ...,
    per_task: str = ...,
) -> None: ...


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
    job: str | None = None,
    finish: bool = False,
    on: str | None = None,
    per_task: str = "",
) -> Store | None:
    """Draw a recipe into a store. An interrupted run is resumed by the same call, and ends in the same bytes.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        out: the store's folder: new, empty, or an unfinished store of the same recipe, format and encoding.
        format: parquet, webdataset or imagefolder.
        workers: number of processes that draw; with 1, this process draws. The pixels do not depend on it. With ``on``,
            cores of the cluster that is started; of another one, all are used.
        overwrite: remove the files of a store that is in the folder, finished or not. Other files stay there, and a
            folder that FormulaVision did not write is still refused.
        progress: receives progress reports; None shows bars on a terminal and in a notebook, and nothing elsewhere.
        device: cpu, or cuda (cuda:N) to draw on a GPU where the generator can; each process then draws on the GPU and
            encodes on a CPU core. The pixels do not depend on it.
        png: plain: 8-bit gray or RGB files, which every reader reads alike; compact: 1-bit palette files for gray
            images of two values, a little smaller, but numpy, torchvision's ``decode_image`` and Hugging Face
            datasets get wrong values from them. ``Store`` reads both.
        job: ``3/8`` draws the third of eight shares of the store and returns None. Jobs may run at the same time and on
            several machines that share the folder, be killed, and run again.
        finish: complete a store that jobs have drawn, and draw nothing.
        on: draw on a cluster, by Ray (``pip install "formulavision[ray]"``). ``ray``: the one that ``RAY_ADDRESS``
            names, or else one that is started on this machine; ``ray://auto``: the one that this machine belongs to;
            ``ray://HOST:PORT``: by Ray's client. All nodes must see ``out``.
        per_task: with ``on``: the part of a node that each piece reserves, such as ``cpus=1,gpus=0.1,memory=2GB``.

    Raises:
        ConfigError: a number is out of range, there is no such device or encoding, or other numbers of jobs draw the
            store.
        ClusterError: no cluster is there, it has other versions or lacks a plugin, or its nodes do not see ``out``.
        StoreError: the folder holds something else, another process writes there, pieces are missing (``finish``), or
            the disk is full or read-only.
        DamagedStoreError: the folder holds this store already, and one of its files is missing or cut short.
        PluginError: the generator raised; images that were written before are kept for the next run.
    """
    recipe = as_recipe(recipe)
    if len(recipe) > _MAX_IMAGES:
        raise ConfigError(f"instances: {len(recipe):,} images are more than a store holds, {_MAX_IMAGES:,}")
    if not 1 <= workers <= _MAX_WORKERS:
        raise ConfigError(f"workers: {workers} is not allowed: must be from 1 to {_MAX_WORKERS}")
    store_format = find_format(format)
    if recipe.is_scene and not store_format.holds_scenes:
        raise StoreError(f"--format {format}: holds no scenes")
    check_encoding(png)
    share = None if job is None else Share.parse(job)
    if on is not None:
        check_on(on)
        if share is not None or finish:
            raise ConfigError(f"on: not together with {'job' if share is not None else 'finish'}")
        if device not in ("cpu", "cuda"):
            raise ConfigError(f"device: {device} is not allowed on a cluster, which chooses a GPU: give cpu or cuda")
    elif per_task:
        raise ConfigError("per_task: is for a cluster: give on, too")
    else:
        check_device(device)
    reserved = PerTask.parse(per_task)
    if share is not None and (overwrite or finish):
        raise ConfigError(f"job: not together with {'overwrite' if overwrite else 'finish'}")
    if finish and overwrite:
        raise ConfigError("finish: not together with overwrite, which removes what was drawn")
    identity = {"recipe": recipe.id, "format": f"{format} {store_format.version}", "png": png}
    folder = folder_of(out)
    if on is not None and isinstance(folder, Path):
        folder = folder.absolute()  # the nodes' working folders are others
    with _destination(folder) as destination:
        root = destination.root
        if not overwrite and destination.holds(identity):
            store = Store(root)
            store.check_sizes()
            if share is not None and progress is not None:
                progress.note(f"{root}: {_COMPLETE}")
            if (written := store.manifest.recipe.get("target", "class")) != recipe.target and progress is not None:
                progress.note(
                    f"{root}: is complete, with the target {written}; a store serves every target: give "
                    f"{recipe.target} to what reads it (--set target={recipe.target})"
                )
            return store if share is None else None
        if finish and not destination.has(MARKER):
            raise StoreError(f"{root}: holds no store that jobs have begun: is --out right?")
        # The categories are read before anything is overwritten: their folder may be the store itself.
        recipe = destination.with_categories(recipe)
        from_files = any(part.categories.sha256 is not None for _, part in category_files(recipe))
        given = find_categories(recipe, workers=workers) + find_background(recipe) if from_files else None
        bars = progress_bars() if progress is None and is_watched() else nullcontext(progress or Silent())
        if not destination.is_shared:
            if on is not None:
                raise StoreError(f"{root}: is seen by this process alone: give an --out that all nodes see")
            workers = 1
        try:
            with bars as shown, ExitStack() as drawing:
                cluster = None
                if on is not None:
                    cluster = drawing.enter_context(connected(on, workers))
                    shown.note(cluster.described)
                fill = _Filling(destination, identity, recipe, given, format, png, workers, device, shown)
                if cluster is not None:
                    fill.use(cluster, reserved)
                if share is not None:
                    fill.categories()  # before the folder is held: that may take long
                with destination.writing(identity, recipe, share, overwrite, shown.note, fill.plan) as state:
                    if state is not State.COMPLETE and share is not None:
                        fill.begin()
                        drawing.enter_context(destination.join(share))
                    elif state is not State.COMPLETE:
                        fill.complete(draws=not finish)
                    if share is None:
                        destination.tidy_up()
                if share is not None and state is State.COMPLETE:
                    shown.note(f"{root}: {_COMPLETE}")
                elif share is not None:
                    fill.draw(share.of(fill.pieces))
                    shown.note(fill.ended(share))
        except BrokenProcessPool:
            raise StoreError(f"{root}: {BROKEN_POOL}; what was written so far is kept") from None
        except RemoteError as error:
            raise RemoteError(f"{error}; {_KEPT}") from None
        except OSError as error:
            raise StoreError(f"{error.filename or root}: {error.strerror or error}; {_KEPT}") from None
    return Store(root) if share is None else None


def plan_pieces(recipe: Recipe, format: str) -> list[Piece]:
    """The pieces of a recipe's store, as they are before its categories are found.

    Raises:
        StoreError: there is no such format, or it holds no scenes.
    """
    store_format = find_format(format)
    if recipe.is_scene and not store_format.holds_scenes:
        raise StoreError(f"--format {format}: holds no scenes")
    unknown = np.zeros((1, 1))
    categories = [Category(i, category_name(i), unknown) for i in range(recipe.num_categories)]
    return store_format.plan(layout_of(recipe, categories))


@contextmanager
def _destination(root: AnyFolder) -> Iterator[Destination]:
    if isinstance(root, Path):
        yield LocalDestination(root)
    else:
        with TemporaryDirectory(prefix="formulavision-") as folder:
            yield RemoteDestination(root, Path(folder))


class _Filling:
    """Writes the missing pieces of a store, and its manifest."""

    def __init__(
        self,
        destination: Destination,
        identity: dict[str, str],
        recipe: Recipe,
        given: list[Category] | None,
        format: str,
        png: str,
        workers: int,
        device: str,
        progress: Progress,
    ) -> None:
        self.destination, self.identity, self.recipe, self.found = destination, identity, recipe, given
        self.format, self.png, self.workers, self.device, self.progress = format, png, workers, device, progress
        self.pieces: list[Piece] = []
        self.records: dict[Piece, PieceRecord] = {}
        self.cluster: Cluster | None = None
        self.pools: Pools | None = None

    def use(self, cluster: Cluster, per_task: PerTask) -> None:
        """Search and draw on a cluster. A task takes a core, and of a GPU as much as the tasks of a node leave it."""
        if self.device != "cpu" and not cluster.node_gpus:
            raise ClusterError(f"device: {self.device}: the cluster has no GPU")
        share = floor(10_000 * cluster.node_gpus / cluster.node_cpus) / 10_000 if self.device != "cpu" else None
        cpus, gpus = per_task.cpus or 1, per_task.gpus if per_task.gpus is not None else share
        memory = per_task.memory or _TASK_BYTES
        self.per_task = PerTask(cpus, None if gpus is None else min(gpus, 1), memory)
        cluster.check_fits(self.per_task)
        self.cluster, self.workers = cluster, cluster.cpus
        self.pools = partial(cluster.pool, PerTask(cpus=1, memory=memory))

    def categories(self) -> list[Category]:
        """The recipe's categories and then the background's, which are searched at the first call."""
        if self.found is None:
            recipe, report = self.recipe, self.progress.categories
            found = find_categories(
                recipe,
                workers=self.workers,
                progress=lambda n: report(n, recipe.num_categories),
                pools=self.pools,
            )
            self.found = found + find_background(recipe, workers=self.workers, pools=self.pools)
        return self.found

    def plan(self) -> None:
        """Check the cluster, find the categories and lay out the pieces, at the first call: all before a file of the
        store is written. Within :meth:`Destination.writing`."""
        if self.pieces:
            return
        if self.cluster is not None:
            check_nodes(self.cluster, self.recipe, self.destination)
        layout = layout_of(self.recipe, self.categories()[: self.recipe.num_categories])
        store_format = find_format(self.format)
        store_format.check_names(layout)
        self.output = Output(self.destination, self.format, layout, self.png, self.device)
        self.pieces = store_format.plan(layout)

    def begin(self) -> None:
        """Write the recipe, and note all files as ours. Within :meth:`Destination.writing`."""
        self.plan()
        store_format, layout = find_format(self.format), self.output.layout
        patterns = (name for piece in self.pieces for name in store_format.patterns(piece, layout))
        self.destination.begin(self.identity, self.recipe, self.categories(), patterns)
        if self.format == "imagefolder" and layout.scenes is None:
            names = layout.category_names
            if names != sorted(names):
                self.progress.note(
                    f"{self.destination.root}: programs that number folders in the order of their names, such as "
                    "torchvision's ImageFolder, give these classes other numbers than the store; names are the same"
                )

    def draw(self, pieces: list[Piece]) -> None:
        """Write those of the pieces that are missing."""
        missing = self.missing(pieces)
        categories = self.categories()[: self.recipe.num_categories]
        total = sum(piece.count for piece in pieces)
        done = total - sum(piece.count for piece in missing)

        def report(drawn: int) -> None:
            self.progress.images(done + drawn, total)

        if self.cluster is not None:
            pool = self.cluster.pool(self.per_task, start_on_node, sources_of(self.recipe), categories, self.output,
                                     self.recipe.portable(), recipe_files(self.recipe))  # fmt: skip
            written = write_on_cluster(pool, missing, report)
        else:
            drawer = Drawer(self.recipe, categories=categories, device=self.device, note=self.progress.note)
            if drawer.device_drawer is None:
                self.output = replace(self.output, device="cpu")
            written = write_pieces(self.output, drawer, missing, self.workers, report)
        for piece, record in written:
            self.records[piece] = record

    def missing(self, pieces: list[Piece]) -> list[Piece]:
        """Those of the pieces that are not written; the records of the others are read."""
        unknown = [piece for piece in pieces if piece not in self.records]
        self.records |= self.destination.records(unknown, find_format(self.format), self.output.layout)
        return [piece for piece in pieces if piece not in self.records]

    def missing_in_words(self, missing: list[Piece]) -> str:
        return missing_pieces(missing, len(self.pieces), self.destination.jobs())

    def ended(self, share: Share) -> str:
        """What the user of a job is told, from the records that there are."""
        rest = self.missing(self.pieces)
        told = self.missing_in_words(rest) if rest else "all pieces are written"
        # Another process may have completed the store meanwhile, which removes the records.
        return f"job {share} has ended; {'the store is complete' if self.destination.has(MANIFEST) else told}"

    def complete(self, *, draws: bool) -> None:
        """Write the missing pieces, or refuse to, and the manifest. Within :meth:`Destination.writing`.

        Raises:
            StoreError: pieces are missing that are not to be drawn.
        """
        self.begin()
        if draws:
            self.draw(self.pieces)
        elif missing := self.missing(self.pieces):
            raise StoreError(f"{self.destination.root}: {self.missing_in_words(missing)}")
        recipe = self.recipe
        edited = self.destination.write_card(store_card(recipe, self.output.layout, self.format))
        if edited is not None and b"The recipe (id `" in edited and recipe.id.encode() not in edited:
            self.progress.note(f"{CARD}: was edited by somebody, so it stays; it does not tell of recipe {recipe.id}")
        self.destination.finish(
            Manifest(
                formulavision=__version__,
                generator_package=origins(recipe),
                format=self.format,
                recipe_id=recipe.id,
                recipe=recipe.portable(),
                png=self.png,
                layout=self.output.layout,
                pieces=[self.records[piece] for piece in self.pieces],
                files=self.destination.checksums(recipe),
            )
        )
