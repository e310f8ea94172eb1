"""Kill a program before each of its file operations, to try whether it goes on from everywhere.

A file operation is what changes files below a folder: opening for writing, renaming, removing, making or removing a
folder, and flushing. In this process "killed" means that the operation raises :class:`Killed`, and so does each one
after it, so that no clean-up happens that a killed process would not have done; with ``for_good`` the process ends.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from formulavision.util.folders import LOCK

__all__ = ["EVERY", "Killed", "contents", "kill_everywhere", "killed_before", "operations_of"]

EVERY = int(os.environ.get("CRASH_POINTS_EVERY", "11"))
"""Of so many crash points the tests try one; 1 for all."""

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killed(BaseException):
    """The process is dead."""


class _Watch:
    """Counts operations below a folder, and kills before one of them."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.at = -1
        self.count = 0
        self.kill: Callable[[], None] = _raise
        self.log: list[str] = []

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self.operation("open", path)
        elif event in ("os.remove", "os.rmdir") and arguments[1] >= 0:
            # shutil.rmtree names files from the descriptor of their folder.
            self.operation(event, Path(f"/proc/self/fd/{arguments[1]}").readlink() / os.fsdecode(arguments[0]))
        elif event in _CHANGES:
            self.operation(event, arguments[0])

    def operation(self, what: str, path: Any) -> None:
        if self.root is None or not isinstance(path, str | bytes | os.PathLike):
            return
        if not Path(os.fsdecode(path)).is_relative_to(self.root):
            return
        if self.count >= self.at >= 0:
            self.kill()
        self.log.append(f"{what} {os.fsdecode(path).removeprefix(self.root)}")
        self.count += 1


def _raise() -> None:
    raise Killed


_watch = _Watch()
_hooked = False


@contextmanager
def _watching(root: Path, at: int, kill: Callable[[], None] = _raise) -> Iterator[_Watch]:
    global _hooked
    if not _hooked:
        sys.addaudithook(_watch.audit)
        _hooked = True
    with pytest.MonkeyPatch.context() as patch:
        # No event tells of these; and to flush in earnest, a thousand times, would take minutes.
        patch.setattr(os, "fsync", lambda descriptor: _watch.operation("fsync", _watch.root))
        patch.setattr(os, "sync", lambda: _watch.operation("sync", _watch.root))
        _watch.root, _watch.at, _watch.count, _watch.kill, _watch.log = str(root), at, 0, kill, []
        try:
            yield _watch
        finally:
            _watch.root = None


def operations_of(work: Callable[[], object], root: Path) -> list[str]:
    """Do the work, and tell the operations that it takes."""
    with _watching(root, -1) as watch:
        work()
    return watch.log


def killed_before(number: int, work: Callable[[], object], root: Path, *, for_good: bool = False) -> bool:
    """Do the work until before its operation of that number, from 0; False where it has no more than so many.

    Args:
        for_good: end this process there, at once, with status 9.
    """
    kill = (lambda: os._exit(9)) if for_good else _raise
    with _watching(root, number, kill):
        try:
            work()
        except Killed:
            return True
    return False


def kill_everywhere(
    work: Callable[[], object],
    root: Path,
    *,
    fresh: Callable[[], object],
    ways_on: Mapping[str, Callable[[], object]],
    whole: Mapping[str, bytes],
    first: int = 0,
    every: int = EVERY,
) -> int:
    """Kill some work before its operations, one after the other, and require that each way on leads to the same files.

    Args:
        work: what is killed; it changes files below ``root`` only.
        fresh: makes what the work begins with.
        ways_on: by name, what must succeed after each kill.
        whole: what :func:`contents` must give then.
        first, every: which operations to kill before.

    Returns:
        The number of operations that the work takes.
    """
    before, killed = root.with_name(f"{root.name}-before"), root.with_name(f"{root.name}-killed")
    fresh()
    _copy(root, before)
    total = len(operations_of(work, root))
    assert contents(root) == whole
    for number in range(first, total, every):
        _copy(before, root)
        assert killed_before(number, work, root)
        if number % 2:
            # And a second time, somewhere in the first way on.
            killed_before(number * 7 % total, next(iter(ways_on.values())), root)
        _copy(root, killed)
        for name, go_on in ways_on.items():
            _copy(killed, root)
            go_on()
            assert contents(root) == whole, f"{name}, after a kill before operation {number}"
    return total


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder, but for its lock's."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target)
