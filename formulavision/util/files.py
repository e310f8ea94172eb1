"""Writing so that a file is whole or absent."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "PARTIAL",
    "atomic_write",
    "cache_folder",
    "commit",
    "flush_everything",
    "flush_folder",
    "is_system_leftover",
    "partial_path",
    "write_text",
]

PARTIAL = re.compile(r"\.[0-9a-f]{16}\.partial\Z")
"""End of the name of a file that is being written; the name that it will get stands before it."""

_SYSTEM_LEFTOVER = re.compile(
    r"""
    \._.* | \.DS_Store | \.localized | Icon\r | \.AppleDouble | \.apdisk | \.TemporaryItems  # macOS
    | \.Spotlight-V100 | \.Trashes | \.fseventsd | \.DocumentRevisions-V100 | __MACOSX
    | Thumbs\.db | ehthumbs\.db | ehthumbs_vista\.db | desktop\.ini | \$RECYCLE\.BIN | System\ Volume\ Information
    | \.directory | \.Trash | \.Trash-\d+ | lost\+found | \.hidden | \.goutputstream-.*  # Linux desktops
    | \.nfs[0-9a-f]+ | \.fuse_hidden.* | \.snapshots? | @eaDir | \#recycle | \#snapshot  # network storage
    | \.ipynb_checkpoints
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_system_leftover(name: str) -> bool:
    """Whether a file or folder of this name is left behind by operating systems and file browsers (``.DS_Store``,
    ``Thumbs.db``, ``@eaDir``): every reader of a folder ignores these.

    Args:
        name: the last part of a path.
    """
    return _SYSTEM_LEFTOVER.fullmatch(name) is not None


def partial_path(path: Path) -> Path:
    """Where to write what becomes ``path``: beside it, under a name that no other process has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file under a temporary name, flushed to disk and renamed to ``path`` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            yield file
        commit(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def commit(temporary: Path, path: Path) -> None:
    """Flush a written file to the disk and give it its name."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """``text`` as UTF-8 to ``path``, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def flush_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a crash of the machine. Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Where what can be found or compiled again is kept: ``FORMULAVISION_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("FORMULAVISION_CACHE") or platformdirs.user_cache_dir("formulavision"))


def flush_everything() -> None:
    """Make all that was written survive a crash of the machine. Windows has no such call."""
    if hasattr(os, "sync"):
        os.sync()
