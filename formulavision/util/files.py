"""Files are written whole or not at all: under a temporary name, flushed, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from formulavision.util.errors import FolderError
from formulavision.util.remote import refuse_url

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "PARTIAL",
    "atomic_write",
    "cache_folder",
    "check_new_file",
    "commit",
    "flush_everything",
    "flush_folder",
    "is_system_leftover",
    "json_digest",
    "not_a_folder",
    "partial_path",
    "write_errors",
    "write_json",
    "write_png",
    "write_text",
]

PARTIAL = re.compile(r"\.[0-9a-f]{16}\.partial\Z")
"""The end of a temporary name; the final name stands before it."""

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


def not_a_folder(path: Path) -> str:
    """Why a path that should be a folder is none, in words."""
    return f"{path}: is a file, not a folder" if path.exists() else f"{path}: no such folder"


def is_system_leftover(name: str) -> bool:
    """Whether operating systems and file browsers leave files or folders of this name (``.DS_Store``, ``Thumbs.db``,
    ``@eaDir``). Every reader of a folder ignores them.

    Args:
        name: the last part of a path.
    """
    return _SYSTEM_LEFTOVER.fullmatch(name) is not None


def partial_path(path: Path) -> Path:
    """A temporary name for ``path``, in the same folder, which no other process uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file under a temporary name; flush and rename it to ``path`` unless the block raises."""
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
    """Flush a written file to the disk and rename it to ``path``."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(content: Any, path: Path) -> None:
    """``content`` as JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def json_digest(content: Any) -> str:
    """SHA-256 of ``content`` as JSON in one line, in hexadecimal digits. A file of JSON that holds it shows damage."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Tell an error of the operating system in one line, while the block writes a file or makes a folder.

    Raises:
        FolderError: ``path`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise FolderError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_png(path: Path, image: Image.Image) -> None:
    """Write a picture as PNG.

    Raises:
        FolderError: the file cannot be written.
    """
    with write_errors(path), atomic_write(path) as file:
        image.save(file, "PNG")


_PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf")


def check_new_file(path: Path, *, overwrite: bool, picture: bool = True) -> None:
    """Refuse the name of a file before any work is done.

    Args:
        picture: whether a picture is written; else a table, as CSV, or settings.

    Raises:
        FolderError: it is a folder, it exists and must not be overwritten, or its name is that of something else than a
            PNG, or of any picture where something else is written.
    """
    refuse_url(path)
    suffix = path.suffix.lower()
    if suffix not in ("", ".png") if picture else suffix in (*_PICTURES, ".png"):
        what, suffix = ("pictures are written as PNG", ".png") if picture else ("tables are written as CSV", ".csv")
        raise FolderError(f"{path}: {what}: name it {path.with_suffix(suffix).name}")
    if path.is_dir():
        raise FolderError(f"{path}: is a folder: name a file in it, such as {path / 'picture.png'}")
    if path.exists() and not overwrite:
        raise FolderError(f"{path}: exists already: give another --out, or --overwrite")


def flush_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk, so that renames survive a crash of the machine (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """The folder for files that can be computed again: ``FORMULAVISION_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("FORMULAVISION_CACHE") or platformdirs.user_cache_dir("formulavision"))


def flush_everything() -> None:
    """Flush all files of the machine to the disk, so that they survive a crash (not on Windows)."""
    if hasattr(os, "sync"):
        os.sync()
