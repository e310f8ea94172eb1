"""One process at a time computes a stage: comparisons that run at once may share their stages."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["claimed"]


@contextmanager
def claimed(lock: Path, taken: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock on a file for this process; wait while another holds it. The file is there for as long.

    The lock ends with its process, however that ends. Among machines it works where their file system has locks.

    Args:
        lock: the file, which need not be there.
        taken: told who holds it, where somebody does, before the wait; may raise to refuse instead.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _lock(lock, taken)
    try:
        yield
    finally:
        # While it is still locked: who waits for it sees that the name is gone, and makes another.
        lock.unlink(missing_ok=True)
        file.close()


def _lock(path: Path, taken: Callable[[str], None]) -> IO[str]:
    told = False
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    file.seek(0)
                    taken(file.read().strip() or "another process")
                    told = True
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still(path, file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_still(path: Path, file: IO[str]) -> bool:
    """Whether a locked file is the one of that name, which its last holder may have removed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
