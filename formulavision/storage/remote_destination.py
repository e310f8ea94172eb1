"""A store on object storage, where nothing is locked or renamed.

Several writers may work at once, and each may be killed. The first file is the claim, the marker that says the recipe,
the format and the encoding: it is created only if it is not there, and a writer that finds another claim is refused.
All other files depend on the claim alone, so it does not matter who writes them, or how often. A piece is complete when
its record is there, and the store when its manifest is there. No store overwrites another: that takes a new folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import mkdtemp

from formulavision.generators.contract import Category
from formulavision.recipes.recipe import Recipe
from formulavision.storage.card import CARD, is_own_card
from formulavision.storage.destinations import (
    OTHER_CATEGORIES,
    Destination,
    read_record,
    recipe_files,
    record_name,
    write_recipe,
)
from formulavision.storage.formats.format import Format, Piece, Sample
from formulavision.storage.jobs import COUNT, Share
from formulavision.storage.manifest import (
    INCOMPLETE,
    MANIFEST,
    RECIPE,
    Manifest,
    PieceRecord,
    StoreLayout,
    encode_manifest,
)
from formulavision.storage.own_categories import category_files, from_own_folders
from formulavision.storage.pieces import write_files
from formulavision.util.errors import FolderError, StoreError
from formulavision.util.files import partial_path
from formulavision.util.folders import MARKER, Marker, State
from formulavision.util.remote import RemoteFolder

__all__ = ["RemoteDestination"]


class RemoteDestination(Destination):
    """A folder on object storage.

    Args:
        own_categories: an empty folder of this machine, in which pieces lie until they are sent.
    """

    def __init__(self, root: RemoteFolder, own_categories: Path) -> None:
        root.check_writable()
        self.root: RemoteFolder = root
        self.own_categories = own_categories
        self.is_shared = root.is_shared

    def holds(self, identity: dict[str, str]) -> bool:
        return self._claimed(identity) and self.root.read(MANIFEST) is not None and (self.root / INCOMPLETE).is_empty()

    def has(self, name: str) -> bool:
        return self.root.read(name) is not None

    def on_node(self, names: list[str]) -> Destination:
        folder = Path(mkdtemp(prefix="formulavision-"))
        self.root.download(names, folder)
        return RemoteDestination(self.root, folder)

    def with_categories(self, recipe: Recipe) -> Recipe:
        for name, part in category_files(recipe):
            if part.categories.sha256 is not None and (content := self.root.read(name)) is not None:
                (self.own_categories / name).write_bytes(content)
        return from_own_folders(recipe, self.own_categories)

    @contextmanager
    def writing(
        self,
        identity: dict[str, str],
        recipe: Recipe,
        share: Share | None,
        overwrite: bool,
        note: Callable[[str], None],
        prepare: Callable[[], None],
    ) -> Iterator[State]:
        if not self._claimed(identity):
            yield State.NEW
        elif overwrite:
            raise FolderError(
                f"{self.root}: holds a store, and none is overwritten on object storage: give another --out"
            )
        else:
            yield State.UNFINISHED if self.root.read(MANIFEST) is None else State.COMPLETE

    def _claimed(self, identity: dict[str, str]) -> bool:
        """Whether there is a claim, with this identity."""
        content = self.root.read(MARKER)
        if content is None:
            if not self.root.is_empty():
                raise FolderError(f"{self.root}: holds other files, and no {MARKER} of a store: give another --out")
            return False
        marker = Marker.parse(content, self.root / MARKER)
        if marker.kind != "store":
            raise FolderError(f"{self.root}: holds a {marker.kind}, not a store: give another --out")
        if other := [name for name, value in identity.items() if marker.identity.get(name) != value]:
            raise FolderError(
                f"{self.root}: holds a store of another {' and another '.join(other)}: give another --out"
            )
        return True

    def begin(self, identity: dict[str, str], recipe: Recipe, found: list[Category], patterns: Iterable[str]) -> None:
        ours = (*recipe_files(recipe), MANIFEST, f"{INCOMPLETE}/", *patterns)
        if not self.root.create(MARKER, Marker("store", MANIFEST, identity, ours).text().encode()):
            self._claimed(identity)
        write_recipe(self.own_categories, recipe, found)
        for name in recipe_files(recipe):
            content = (self.own_categories / name).read_bytes()
            if not self.root.create(name, content) and self.root.read(name) != content:
                other = "another writer wrote this recipe with another target" if name == RECIPE else OTHER_CATEGORIES
                raise FolderError(f"{self.root / name}: {other}: give another --out")

    def join(self, share: Share) -> AbstractContextManager[None]:
        if not self.root.create(COUNT, f"{share.count}\n".encode()):
            share.check(self.jobs(), self.root)
        return nullcontext()

    def jobs(self) -> int | None:
        content = self.root.read(COUNT)
        return None if content is None else int(content)

    def records(self, pieces: list[Piece], store_format: Format, layout: StoreLayout) -> dict[Piece, PieceRecord]:
        sizes = self.root.sizes()
        there = [piece for piece in pieces if record_name(piece) in sizes]
        contents = self.root.read_all([record_name(piece) for piece in there])
        found = {}
        for piece in there:
            size = sum(sizes.get(name, 0) for name in store_format.files(piece, layout))
            # A record that is listed and gone: another process has completed the store meanwhile.
            content = contents.get(record_name(piece))
            if content is not None and (record := read_record(content, piece, size)):
                found[piece] = record
        return found

    def write_piece(
        self, store_format: Format, piece: Piece, samples: Iterable[Sample], layout: StoreLayout
    ) -> PieceRecord:
        folder = partial_path(self.own_categories / f"{piece.number:06d}")
        try:
            record = write_files(folder, store_format, piece, samples, layout)
            self.root.upload(folder, store_format.files(piece, layout))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.root.write(record_name(piece), record.model_dump_json().encode())
        return record

    def write_card(self, text: str) -> bytes | None:
        self.root.create(CARD, text.encode())
        there = self.root.read(CARD)
        return None if there is None or is_own_card(there) else there

    def finish(self, manifest: Manifest) -> None:
        # Another writer may have finished the same store.
        if not self.root.create(MANIFEST, encode_manifest(manifest).encode()) and self.root.read(MANIFEST) is None:
            raise StoreError(f"{self.root / MANIFEST}: cannot be written")

    def tidy_up(self) -> None:
        self.root.remove_folder(INCOMPLETE)
