"""Where ``generate`` writes a store: a folder of this machine, or one on object storage (``remote_destination.py``)."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from formulavision.generators.contract import Category
from formulavision.recipes.recipe import Recipe
from formulavision.storage.card import CARD, is_own_card
from formulavision.storage.formats.format import Format, Piece, Sample
from formulavision.storage.jobs import COUNT, Share, draws, refuse_beside_jobs
from formulavision.storage.manifest import (
    INCOMPLETE,
    MANIFEST,
    RECIPE,
    Manifest,
    PieceRecord,
    StoreLayout,
    encode_manifest,
    file_checksums,
)
from formulavision.storage.own_categories import (
    category_files,
    from_own_folders,
    with_own_folders,
    write_categories,
)
from formulavision.storage.pieces import files_of_piece, write_piece
from formulavision.util.config import dump_yaml
from formulavision.util.errors import FolderError
from formulavision.util.files import write_text
from formulavision.util.folders import OwnedFolder, State
from formulavision.util.remote import AnyFolder

__all__ = [
    "OTHER_CATEGORIES",
    "Destination",
    "LocalDestination",
    "read_record",
    "recipe_files",
    "record_name",
    "write_recipe",
]


OTHER_CATEGORIES = (
    "another writer, perhaps with other versions of FormulaVision or its libraries, wrote other categories of this "
    "recipe"
)


def recipe_files(recipe: Recipe) -> list[str]:
    """The files of a store that hold its recipe and categories."""
    return [RECIPE, *(name for name, _ in category_files(recipe))]


def write_recipe(root: Path, recipe: Recipe, found: list[Category]) -> None:
    """Write the recipe and its categories, so that the store depends on no file outside of it."""
    write_categories(recipe, found, root)
    # Relative to the recipe's file: the store itself, wherever it is moved.
    write_text(root / RECIPE, dump_yaml(with_own_folders(recipe.portable(), Path())))


def record_name(piece: Piece) -> str:
    """The file in which a piece is recorded once it is written."""
    return f"{INCOMPLETE}/{piece.number:06d}.json"


def read_record(content: bytes, piece: Piece, size: int) -> PieceRecord | None:
    """The record of a piece; None where it is damaged, or where the piece's files have another size."""
    try:
        record = PieceRecord.model_validate_json(content)
    except ValueError:
        return None
    expected = (piece.path, piece.first, piece.count, size)
    return record if (record.path, record.first, record.count, record.bytes) == expected else None


class Destination(ABC):
    """The place of a store that is written. Worker processes receive a copy of it.

    Attributes:
        root: the store's folder.
        own_categories: a folder of this machine that has the files of :func:`recipe_files` after :meth:`begin`.
        is_shared: whether other processes can write there.
    """

    root: AnyFolder
    own_categories: Path
    is_shared: bool = True

    @abstractmethod
    def holds(self, identity: dict[str, str]) -> bool:
        """Whether the store is complete, with this identity, and nothing is left to remove.

        Raises:
            FolderError: something else is there.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether a small file of the store is there, such as its marker or its manifest."""

    def on_node(self, names: list[str]) -> Destination:
        """The same place for a process on another machine, where ``own_categories`` has the files of these names."""
        return self

    def with_categories(self, recipe: Recipe) -> Recipe:
        """The recipe itself; or with the store's categories, where those that it names are missing."""
        return recipe

    @abstractmethod
    def writing(
        self,
        identity: dict[str, str],
        recipe: Recipe,
        share: Share | None,
        overwrite: bool,
        note: Callable[[str], None],
        prepare: Callable[[], None],
    ) -> AbstractContextManager[State]:
        """Begin to write, as one job where ``share`` is given. Yields the store's state.

        Args:
            prepare: called before a store is overwritten; where it raises, the store stays.

        Raises:
            FolderError: something else is there, or another process that does not share its work writes there.
        """

    @abstractmethod
    def begin(self, identity: dict[str, str], recipe: Recipe, found: list[Category], patterns: Iterable[str]) -> None:
        """Write the recipe and note the files of all pieces as ours. Within :meth:`writing`.

        Raises:
            FolderError: other categories of the recipe are there, by which others may have drawn.
        """

    @abstractmethod
    def join(self, share: Share) -> AbstractContextManager[None]:
        """Note how many jobs draw the store. Within :meth:`writing`; what it returns is entered while the job draws.

        Raises:
            ConfigError: another number of jobs began to draw it.
        """

    @abstractmethod
    def jobs(self) -> int | None:
        """The number of jobs that draw the store; None where none has begun."""

    @abstractmethod
    def records(self, pieces: list[Piece], store_format: Format, layout: StoreLayout) -> dict[Piece, PieceRecord]:
        """The records of those of the pieces that are written."""

    @abstractmethod
    def write_piece(
        self, store_format: Format, piece: Piece, samples: Iterable[Sample], layout: StoreLayout
    ) -> PieceRecord:
        """Write a piece, and then its record."""

    @abstractmethod
    def write_card(self, text: str) -> bytes | None:
        """Write the store's card, or return the user's own README.md that is there. Within :meth:`writing`."""

    @abstractmethod
    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, which makes the store complete. Within :meth:`writing`."""

    @abstractmethod
    def tidy_up(self) -> None:
        """Remove what only an unfinished store needs. Within :meth:`writing`."""

    def checksums(self, recipe: Recipe) -> dict[str, str]:
        """sha256 of the recipe's files."""
        return file_checksums(self.own_categories, recipe_files(recipe))


class LocalDestination(Destination):
    """A folder of this machine. One process holds it; jobs hold it while they begin."""

    def __init__(self, root: Path) -> None:
        self.root: Path = root
        self.folder = OwnedFolder(root, "store", last=MANIFEST)

    @property
    def own_categories(self) -> Path:  # type: ignore[override]
        return self.root.absolute()

    def holds(self, identity: dict[str, str]) -> bool:
        return self.folder.holds(identity) and not (self.root / INCOMPLETE).exists()

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def with_categories(self, recipe: Recipe) -> Recipe:
        return from_own_folders(recipe, self.root)

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
        alone = share is None
        with self.folder.writing(
            identity,
            (*recipe_files(recipe), MANIFEST, f"{INCOMPLETE}/"),
            overwrite=overwrite,
            check=lambda: refuse_beside_jobs(self.root) if alone else None,
            taken=None if alone else lambda: note(f"{self.root}: waiting for another process that writes there"),
            prepare=prepare,
        ) as state:
            if alone:
                for leftover in (self.root / INCOMPLETE).glob("*.partial"):  # of writers that were killed
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield state

    def begin(self, identity: dict[str, str], recipe: Recipe, found: list[Category], patterns: Iterable[str]) -> None:
        (self.root / INCOMPLETE).mkdir(exist_ok=True)
        if there := [name for name, _ in category_files(recipe) if (self.root / name).is_file()]:
            with TemporaryDirectory(dir=self.root / INCOMPLETE, suffix=".partial") as folder:
                write_categories(recipe, found, Path(folder))
                for name in there:
                    if (self.root / name).read_bytes() != (Path(folder) / name).read_bytes():
                        raise FolderError(f"{self.root / name}: {OTHER_CATEGORIES}: give another --out, or --overwrite")
        write_recipe(self.root, recipe, found)
        self.folder.add(patterns)

    def join(self, share: Share) -> AbstractContextManager[None]:
        share.check(self.jobs(), self.root)
        write_text(self.root / COUNT, f"{share.count}\n")
        return draws(self.root, share)

    def jobs(self) -> int | None:
        try:
            return int((self.root / COUNT).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def records(self, pieces: list[Piece], store_format: Format, layout: StoreLayout) -> dict[Piece, PieceRecord]:
        return {piece: record for piece in pieces if (record := self._record(piece, store_format, layout))}

    def _record(self, piece: Piece, store_format: Format, layout: StoreLayout) -> PieceRecord | None:
        try:
            content = (self.root / record_name(piece)).read_bytes()
            size = sum(file.stat().st_size for file in files_of_piece(self.root, store_format, piece, layout))
        except OSError:
            return None
        return read_record(content, piece, size)

    def write_piece(
        self, store_format: Format, piece: Piece, samples: Iterable[Sample], layout: StoreLayout
    ) -> PieceRecord:
        record = write_piece(self.root, store_format, piece, samples, layout)
        write_text(self.root / record_name(piece), record.model_dump_json())
        return record

    def write_card(self, text: str) -> bytes | None:
        card = self.root / CARD
        if card.exists() and not is_own_card(there := card.read_bytes()):
            return there
        # A card is not on the marker's list, so what a killed writer leaves of it has to lie in this folder.
        write_text(self.root / INCOMPLETE / CARD, text)
        (self.root / INCOMPLETE / CARD).replace(card)
        return None

    def finish(self, manifest: Manifest) -> None:
        write_text(self.root / MANIFEST, encode_manifest(manifest))

    def tidy_up(self) -> None:
        if (self.root / INCOMPLETE).exists():
            shutil.rmtree(self.root / INCOMPLETE)
