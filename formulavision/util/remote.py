"""Folders on other file systems than the machine's own, by fsspec URLs: ``s3://``, ``gs://``, ``memory://``, ``hf://``.

fsspec and its file systems send the requests, and repeat those that fail for a while. What they raise in the end is
told in one line, as :class:`formulavision.util.errors.RemoteError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from formulavision.util.errors import ConfigError, FolderError, RemoteError, one_line

__all__ = ["AnyFolder", "RemoteFolder", "folder_of", "is_url", "refuse_url"]

_URL = re.compile(r"([a-z][a-z0-9+.:-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_SHORTENED = re.compile(r"([a-z][a-z0-9+.-]+):/(.*)", re.IGNORECASE | re.DOTALL)
"""A URL that was made a Path, which has one slash for two."""
_EXTRAS = {"s3": "s3fs: pip install formulavision[s3]", "s3a": "s3fs: pip install formulavision[s3]"}
_CREATES = ("s3", "s3a", "gs", "gcs", "memory")
"""File systems that create a file only if it does not exist, also when several writers try at once."""
_PATTERN = re.compile(r"[*?[]")
"""Characters for which fsspec takes a name for a pattern where it removes files, or reads several at once."""


def is_url(path: object) -> bool:
    """Whether a path is an fsspec URL of a folder that is not on this machine."""
    return isinstance(path, str | PathLike) and isinstance(folder_of(path), RemoteFolder)


def folder_of(path: str | PathLike[str]) -> AnyFolder:
    """The folder that a path or an fsspec URL names; ``file://`` is on this machine.

    Raises:
        ConfigError: the URL names no folder.
    """
    if isinstance(path, RemoteFolder):
        return path
    text = fspath(path)
    match = _URL.fullmatch(text)
    if match is None and isinstance(path, Path) and (shortened := _SHORTENED.fullmatch(text)):
        import fsspec

        match = shortened if shortened[1] in fsspec.available_protocols() else None
    if match is None:
        return Path(path)
    protocol, place = match[1].lower(), match[2].rstrip("/")
    if protocol in ("file", "local"):
        return Path("/", place)
    if "::" in protocol or not place.strip("/"):
        raise ConfigError(f"{text}: names no folder: write {protocol.rpartition(':')[2]}://BUCKET/FOLDER")
    if protocol == "hf" and place.partition("/")[0] not in ("datasets", "models", "spaces", "buckets"):
        place = f"datasets/{place}"  # stores and recipes are datasets
    return RemoteFolder(f"{protocol}://{place}")


def refuse_url(path: str | PathLike[str]) -> None:
    """Refuse a URL where something else than a store is to be written, before a folder of its name is made.

    Raises:
        FolderError: it is one.
    """
    if folder_of(path) != Path(path):
        raise FolderError(f"{fspath(path)}: is a URL: only stores are written there, by 'generate': name a folder here")


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on object storage, or on another file system of fsspec. Names of files are relative to it.

    Raises RemoteError from all methods: the file system is not installed, does not answer, or refuses.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemoteFolder:
        return RemoteFolder(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def protocol(self) -> str:
        return self.url.partition(":")[0]

    @property
    def is_shared(self) -> bool:
        """Whether other processes see the same folder."""
        return self.protocol != "memory"

    def check_writable(self) -> None:
        """Refuse a URL that cannot be written safely, before any work is done.

        Raises:
            ConfigError: the file system cannot create a file only once, or takes the URL for a pattern, which may match
                other folders.
        """
        if self.protocol not in _CREATES:
            known = ", ".join(f"{name}://" for name in _CREATES)
            raise ConfigError(f"{self}: {self.protocol}:// is read, not written: write to a folder, or to {known}")
        if found := _PATTERN.search(self.url):
            raise ConfigError(f"{self}: {found[0]} is not allowed in a URL that is written, as it makes it a pattern")
        self._system()

    def sizes(self) -> dict[str, int]:
        """The size in bytes of every file below the folder, by name; empty where there is none."""
        system, root = self._system()
        with self._told():
            found = system.find(root, detail=True)
            return {name[len(root) :].strip("/"): info["size"] for name, info in found.items() if name != root}

    def is_empty(self) -> bool:
        """Whether nothing is in the folder. Only its first level is listed."""
        system, root = self._system()
        with self._told():
            try:
                return all(entry["name"].strip("/") == root.strip("/") for entry in system.ls(root, detail=True))
            except FileNotFoundError:
                return True

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is no such file."""
        system, root = self._system()
        with self._told(name):
            try:
                content: bytes = system.cat_file(f"{root}/{name}")
            except FileNotFoundError as error:
                if "bucket does not exist" in str(error):
                    raise
                return None
            return content

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of a file."""
        system, root = self._system()
        with self._told(name):
            content: bytes = system.cat_file(f"{root}/{name}", start=start, end=end)
            return content

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of those of several files that exist, which are requested at the same time.

        Only where :meth:`check_writable` allows to write: of another URL, a file system may read other files.
        """
        system, root = self._system()
        with self._told():
            found = system.cat([f"{root}/{name}" for name in names], on_error="return") if len(names) > 1 else {}
            contents = {name: found[f"{root}/{name}"] for name in names if found}
            failed = (content for content in contents.values() if isinstance(content, Exception))
            if error := next((error for error in failed if not isinstance(error, FileNotFoundError)), None):
                raise error
        if len(names) == 1:  # fsspec's answer has another form
            contents = {name: self.read(name) for name in names}
        return {name: content for name, content in contents.items() if isinstance(content, bytes)}

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in the place of one that is there."""
        system, root = self._system()
        with self._told(name):
            system.pipe_file(f"{root}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless one is there: of several writers only one succeeds. Returns whether it was written.

        False also where the answer to a request was lost and the repeated one found the file: compare its content.
        """
        system, root = self._system()
        with self._told(name):
            try:
                system.pipe_file(f"{root}/{name}", content, mode="create")
            except OSError:
                # S3-compatible servers tell of an existing file by different errors.
                if not system.exists(f"{root}/{name}"):
                    raise
                return False
            return True

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        """Write files from a folder of this machine, under the same names. A file appears when it is complete."""
        system, root = self._system()
        with self._told():
            system.put([str(folder / name) for name in names], [f"{root}/{name}" for name in names])

    def download(self, names: Sequence[str], folder: Path) -> None:
        """Read files into a folder of this machine, under the same names.

        Raises:
            FileNotFoundError: one of them does not exist.
        """
        system, root = self._system()
        for parent in {(folder / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        with self._told(missing=FileNotFoundError):
            system.get([f"{root}/{name}" for name in names], [str(folder / name) for name in names])

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if there is one.

        Only where :meth:`check_writable` allows to write: of another URL, a file system may remove other folders.
        """
        system, root = self._system()
        with self._told(name), suppress(FileNotFoundError):
            system.rm(f"{root}/{name}", recursive=True)

    def _system(self) -> tuple[Any, str]:
        """The file system, and the folder's path in it.

        It is asked for each time: fsspec keeps one for each process, because a forked process cannot use its parent's.
        """
        import fsspec

        try:
            # Listings are not kept: other processes write to the same folder.
            system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            needed = _EXTRAS.get(self.protocol, one_line(error))
            raise RemoteError(f"{self}: {self.protocol}:// needs a package that is not installed: {needed}") from None
        except ValueError as error:
            raise RemoteError(f"{self}: {one_line(error)}; s3://, gs:// and hf:// are known") from None
        return system, root

    @contextmanager
    def _told(self, name: str = "", *, missing: type[Exception] | None = None) -> Iterator[None]:
        """Tell what the file system raises in one line. Its libraries have exception classes of their own."""
        place = f"{self}/{name}" if name else str(self)
        try:
            yield
        except Exception as error:
            if missing is not None and isinstance(error, missing):
                raise
            told = re.sub(r"^\[Errno -?\d+\] ", "", one_line(error)) or type(error).__name__
            if isinstance(error, PermissionError):
                told = f"is refused: {told}: check your credentials and their permissions"
            raise RemoteError(f"{place}: {told}") from None


AnyFolder = Path | RemoteFolder
"""A folder of this machine, or of another file system."""
