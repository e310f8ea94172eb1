"""Owned folders: FormulaVision lists its files in them, lets one process write at a time, and continues after a crash.

An owned folder holds a marker, the file ``.formulavision``: what the folder is, what identifies its content, and a list
of our files in it, which grows before a file is written. So a folder is always one of four:

- new: it is missing, or empty, or has a marker and none of our files (``--overwrite`` may have been stopped in it);
- unfinished: some of our files are there, the last one to be written is not;
- complete: the last one is there;
- foreign: it holds files and no marker. It is never changed.

A writer holds the lock ``.formulavision.lock``, which ends with its process. The next writer removes temporary files of
writers that were killed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from formulavision.util.errors import FolderError
from formulavision.util.files import PARTIAL, is_system_leftover, json_digest, write_text
from formulavision.util.remote import refuse_url

__all__ = ["LOCK", "MARKER", "Marker", "OwnedFolder", "State", "adding", "is_locked", "locked"]

MARKER = ".formulavision"
LOCK = ".formulavision.lock"

_VERSION = 1
_ABOUT = (
    "FormulaVision wrote this folder. 'ours' lists its files: --overwrite removes them and nothing else. "
    "A * stands for any characters, a / at the end for a folder with all that is in it."
)


class State(Enum):
    """State of a folder for its next writer; a foreign folder is an error."""

    NEW = "new"
    UNFINISHED = "unfinished"
    COMPLETE = "complete"


@contextmanager
def locked(lock: Path, taken: Callable[[], None]) -> Iterator[None]:
    """Hold a lock for this process; wait while another process holds it. The lock's file exists as long as the lock.

    The lock ends with its process, however that ends. It works between machines if their file system has locks.

    Args:
        lock: the lock's file, which need not exist.
        taken: called before waiting for another process; it may raise, to refuse instead of waiting.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock)
    try:
        file.acquire(blocking=False)
    except Timeout:
        taken()
        file.acquire()
    try:
        yield
    finally:
        try:
            # While it is held: who waited for a file that has lost its name makes another.
            if os.name != "nt":
                lock.unlink(missing_ok=True)
        finally:
            file.release()


def is_locked(lock: Path) -> bool:
    """Whether a process holds a lock (:func:`locked`); on Windows, whether its file is there.

    Nothing is written. A process that asks for the lock at this very moment may find it taken.
    """
    try:
        import fcntl

        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except ImportError:
        return lock.is_file()
    except OSError:
        return False
    return False


@dataclass(frozen=True)
class Marker:
    """The content of an owned folder's marker.

    Attributes:
        kind: store, run, comparison, ...
        last: the file that is written last and makes the folder complete.
        identity: a writer continues with the folder only if its content has the same identity.
        ours: our files, relative to the folder. ``NAME/`` is a folder with all that is in it, ``*`` in a file's name
            any characters, and ``NAME/.formulavision`` an owned folder, which has a list of its own.
        discarded: an overwriting process has begun to remove our files.
    """

    kind: str
    last: str
    identity: Mapping[str, str]
    ours: tuple[str, ...] = ()
    discarded: bool = False

    def text(self) -> str:
        """The marker as JSON, with a checksum."""
        content = {"about": _ABOUT, "version": _VERSION, **asdict(self)}
        return json.dumps({**content, "sha256": json_digest(content)}, indent=1) + "\n"

    @classmethod
    def read(cls, root: Path) -> Marker | None:
        """The marker of a folder; None where it has none.

        Raises:
            FolderError: the marker is damaged, or a newer version of FormulaVision wrote it.
        """
        path = root / MARKER
        try:
            return cls.parse(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FolderError(f"{path}: cannot be read: {error.strerror or error}") from None

    @classmethod
    def parse(cls, encoded: bytes, path: object) -> Marker:
        """The marker that the bytes of its file say.

        Args:
            path: the file, for the error's line.

        Raises:
            FolderError: as :meth:`read`.
        """
        try:
            text = encoded.decode()
            content = json.loads(text)
            version = content["version"]
            marker = cls(
                content["kind"], content["last"], content["identity"], tuple(content["ours"]), content["discarded"]
            )
            sound = marker.text() == text and all(map(_stays_inside, (marker.last, *marker.ours)))
        except (ValueError, KeyError, TypeError, RecursionError):
            version, sound = None, False
        if isinstance(version, int) and version > _VERSION:
            raise FolderError(f"{path}: a newer version of FormulaVision wrote it: upgrade, or give another --out")
        if not sound:
            raise FolderError(f"{path}: is damaged, so nothing in its folder is changed: give another --out")
        return marker


class OwnedFolder:
    """A folder of one kind that FormulaVision writes.

    Args:
        root: the folder, which need not exist.
        kind: of content, in a word: store, run, comparison.
        last: the file in it that is written last and makes it complete.
    """

    def __init__(self, root: Path, kind: str, *, last: str) -> None:
        self.root = root
        self.kind = kind
        self.last = last

    def state(self) -> State:
        """State of the folder. Nothing is changed.

        Raises:
            FolderError: it is a file, it is foreign or of another kind, or its marker cannot be read.
        """
        return self._state(self._marker())

    def holds(self, identity: Mapping[str, str]) -> bool:
        """Whether the folder is complete with content of this identity. Raises what :meth:`state` raises."""
        marker = self._marker()
        return marker is not None and self._state(marker) is State.COMPLETE and marker.identity == identity

    @contextmanager
    def writing(
        self,
        identity: Mapping[str, str],
        ours: Iterable[str],
        *,
        overwrite: bool = False,
        check: Callable[[], None] = lambda: None,
        taken: Callable[[], None] | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> Iterator[State]:
        """Hold the folder for this process, with ``ours`` on its marker's list. Yields the folder's state.

        Args:
            identity: of the content that is to be written, by names for the error's line: ``{"recipe": ...}``.
            ours: the files that will be written; see :class:`Marker`.
            overwrite: remove our files first; those that are in the new list, too, at last.
            check: called when the folder is held, before anything in it is changed; it may raise.
            taken: called before waiting for another process that writes there; None refuses to wait.
            prepare: called before our files are overwritten; where it raises, they stay.

        Raises:
            FolderError: as :meth:`state`, or another process writes there, the content has another identity, a file
                that is not ours is in the way, or the folder cannot be written.
        """
        self._marker()  # so that nothing is changed in a folder that is refused
        ours = tuple(ours)
        with ExitStack() as stack:
            with _told(self.root):
                stack.enter_context(_lock_folder(self.root, taken))
                check()
            if overwrite and self._marker() is not None:
                prepare()
            with _told(self.root):
                state = self._claim(Marker(self.kind, self.last, dict(identity)), overwrite, ours)
                self.add(ours)
            yield state

    def add(self, ours: Iterable[str]) -> None:
        """Put files on the list before they are written. Only the process that holds the folder may do so.

        Raises:
            FolderError: one of them is there and is not ours.
        """
        marker = self._marker()
        assert marker is not None
        known = set(marker.ours)
        new = dict.fromkeys(name for name in ours if name not in known)
        for path in _in_the_way(self.root, [name for name in new if not _is_nested(name)]):
            raise FolderError(f"{path}: is in the way and not FormulaVision's: move it, or give another --out")
        if new:
            self._write(replace(marker, ours=(*marker.ours, *new)))

    def keep_only(self, ours: Iterable[str]) -> None:
        """Remove our files with other names than these. Only the process that holds the folder may do so."""
        marker = self._marker()
        assert marker is not None
        kept = set(ours)
        gone = dict.fromkeys(name for name in marker.ours if name not in kept and not _is_nested(name))
        for path in list(_present(self.root, gone)):
            _remove(path)
        if gone:
            self._write(replace(marker, ours=tuple(name for name in marker.ours if name not in gone)))

    def _marker(self) -> Marker | None:
        root = self.root
        refuse_url(root)
        with _told(root):
            if root.exists() and not root.is_dir():
                raise FolderError(f"{root}: is a file: give another --out")
            marker = Marker.read(root)
            if marker is None and root.exists() and not all(_is_trace(entry.name) for entry in root.iterdir()):
                raise FolderError(
                    f"{root}: is not empty, and has no file {MARKER} that says what FormulaVision may change there "
                    "(version 0.1 wrote none): give another --out"
                )
        if marker is not None and marker.kind != self.kind:
            raise FolderError(f"{root}: holds a {marker.kind}, not a {self.kind}: give another --out")
        return marker

    def _state(self, marker: Marker | None) -> State:
        if marker is None or marker.discarded:
            return State.NEW
        if (self.root / self.last).is_file():
            return State.COMPLETE
        return State.UNFINISHED if any(_present(self.root, marker.ours)) else State.NEW

    def _claim(self, marker: Marker, overwrite: bool, ours: Iterable[str]) -> State:
        there = self._marker()
        state = self._state(there)
        if there is not None and (overwrite or state is State.NEW):
            _discard(self.root, there, ours)
            there = None
        if there is None:
            self._write(marker)
            state = State.NEW
        elif there.identity != marker.identity:
            what = "a" if state is State.COMPLETE else "an unfinished"
            other = [name for name, value in marker.identity.items() if there.identity.get(name) != value]
            raise FolderError(
                f"{self.root}: holds {what} {self.kind} of another {' and another '.join(other)}: "
                "give another --out, or --overwrite"
            )
        _remove_partial(self.root, there or marker)
        return state

    def _write(self, marker: Marker) -> None:
        write_text(self.root / MARKER, marker.text())


@contextmanager
def adding(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Hold the owned folder that ``folder`` is or lies in, to write files with these names into ``folder``.

    It waits while another process holds the folder. If there is no owned folder, nothing is held.

    Raises:
        FolderError: one of the files is there and is not ours, or the folder cannot be written.
    """
    refuse_url(folder)
    for root, prefix in ((folder, ""), (folder.parent, f"{folder.name}/")):
        marker = Marker.read(root)
        if marker is not None:
            owned = OwnedFolder(root, marker.kind, last=marker.last)
            with ExitStack() as stack:
                with _told(root):
                    stack.enter_context(locked(root / LOCK, lambda: None))
                    owned.add([prefix + name for name in names])
                    _remove_partial(root, marker)
                yield
            return
    yield


@contextmanager
def _told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FolderError(f"{error.filename or root}: cannot be written: {error.strerror or error}") from None


@contextmanager
def _lock_folder(root: Path, taken: Callable[[], None] | None = None) -> Iterator[None]:
    def refuse() -> None:
        raise FolderError(f"{root}: another process writes there (it holds {LOCK}): wait for it, or give another --out")

    with locked(root / LOCK, taken or refuse):
        yield


# Our files -----------------------------------------------------------------------------------------------------------


def _discard(root: Path, marker: Marker, last: Iterable[str] = ()) -> None:
    """Remove our files. If this process is killed meanwhile, the folder is new to the next writer, who continues.

    Args:
        last: files that are removed after all others.
    """
    write_text(root / MARKER, replace(marker, discarded=True).text())
    # First, so that no reader takes the rest for complete.
    (root / marker.last).unlink(missing_ok=True)
    _remove_partial(root, marker)
    at_last = {root / name for name in last}
    for path in sorted(_present(root, marker.ours), key=at_last.__contains__):
        if path.name == MARKER:
            _discard_nested(path.parent)
        else:
            _remove(path)
    folders = {folder for name in marker.ours for folder in PurePosixPath(name).parents if _is_reached(root, folder)}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):  # something that is not ours is in it
            (root / folder).rmdir()


def _discard_nested(root: Path) -> None:
    marker = Marker.read(root)
    assert marker is not None
    with _lock_folder(root):
        _discard(root, marker)
        (root / MARKER).unlink()


def _remove_partial(root: Path, marker: Marker) -> None:
    """Remove temporary files of writers that were killed. Only the process that holds the folder's lock may do so."""
    for entry, name in list(_entries(root, (MARKER, *marker.ours))):
        if entry.name != name:
            _remove(entry)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _present(root: Path, ours: Iterable[str]) -> Iterator[Path]:
    """The files and folders of a marker's list that exist."""
    return (entry for entry, name in _entries(root, ours) if entry.name == name)


def _entries(root: Path, ours: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """The files and folders of a marker's list that exist, also under temporary names, each with its final name."""
    by_folder: dict[PurePosixPath, list[str]] = {}
    for name in ours:
        by_folder.setdefault(PurePosixPath(name).parent, []).append(name)
    for folder, names in by_folder.items():
        if not _is_reached(root, folder) and folder.name:
            continue
        files = {PurePosixPath(name).name for name in names if not name.endswith("/")}
        folders = {PurePosixPath(name).name for name in names if name.endswith("/")}
        patterns = [re.compile(re.escape(name).replace(r"\*", ".*")) for name in files if "*" in name]
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = PARTIAL.sub("", entry.name)
                of_files = name in files or any(pattern.fullmatch(name) for pattern in patterns)
                is_folder = entry.is_dir(follow_symlinks=False)
                if (of_files and not is_folder) or (name in folders and (is_folder or entry.is_symlink())):
                    yield root / folder / entry.name, name


def _in_the_way(root: Path, ours: Iterable[str]) -> Iterator[Path]:
    """Files and links that stand where our files, or the folders that hold them, will be written."""
    names = [PurePosixPath(name) for name in ours]
    for folder in dict.fromkeys(folder for name in names for folder in name.parents if folder.name):
        if os.path.lexists(root / folder) and not _is_reached(root, folder):
            yield root / folder
    yield from (root / name for name in names if "*" not in name.name and os.path.lexists(root / name))
    yield from _present(root, [str(name) for name in names if "*" in name.name])


def _is_reached(root: Path, folder: PurePosixPath) -> bool:
    """Whether it is a folder in ``root`` that is reached without a symbolic link: targets of links are not ours."""
    ways = [root / part for part in (folder, *folder.parents) if part.name]
    return bool(ways) and all(way.is_dir() and not way.is_symlink() for way in ways)


def _is_trace(name: str) -> bool:
    """Whether a file of this name is ignored when a folder without a marker is tested for being empty."""
    return name == LOCK or PARTIAL.sub("", name) == MARKER or is_system_leftover(name)


def _is_nested(name: str) -> bool:
    return PurePosixPath(name).name == MARKER


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and name != MARKER
