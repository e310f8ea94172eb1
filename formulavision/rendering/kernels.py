"""``kernel``, the decorator of every CPU kernel: numba's compiler, with a cache of machine code on disk.

The name of a file in the cache holds a digest of what it was compiled from (``kernel_digest.py``): no index is needed,
and a kernel is compiled again when anything of that changes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import multiprocessing
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import config
from numba.core import types as numba_types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from formulavision.rendering.kernel_digest import digest
from formulavision.util.files import cache_folder
from formulavision.util.interrupts import held_back
from formulavision.util.version import __version__

__all__ = ["kernel"]

_MOST_FILES = 32
"""Largest number of files of a kernel: for its signatures, and for sources that have changed since. The oldest go."""


def kernel(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile a function with numba at its first call, and keep the machine code on disk.

    This is ``numba.njit(nogil=True, **options)`` with another cache than numba's ``cache=True``, which looks only at
    the function's own file and so misses changes in functions and constants of other modules. Here machine code is kept
    under a digest of the bytecode and the constants of the function and of all functions that it leads to, those of
    plugins included, and of the versions of Python, numpy, numba and formulavision. Functions that
    ``numba.extending.overload`` registers are not part of the digest.

    The cache's folder is ``NUMBA_CACHE_DIR`` where that is set, else ``kernels`` in the user's cache folder; never a
    folder of the package, where pip would leave the files behind. Installations of the same code share them. A damaged
    file is replaced. Where no folder can be written, each process compiles in memory, and one warning says so. Machine
    code is kept where all arguments are numbers, arrays, strings and tuples of these, and where it holds no addresses
    of this process (numba calls these dynamic globals).

    Args:
        function: a function that numba can compile in nopython mode.
        options: options of ``numba.njit``, such as ``error_model="numpy"`` or ``inline="always"``.
    """
    if function is None:
        return functools.partial(kernel, **options)
    with held_back():  # LLVM calls back into Python, where Ctrl-C would be printed and forgotten
        dispatcher = numba.njit(**{"nogil": True, **options})(function)
    dispatcher._cache = _KernelCache(dispatcher)
    dispatcher.compile = held_back()(dispatcher.compile)
    return dispatcher


class _KernelCache(NullCache):
    """The files of one kernel, one for each signature and digest. numba calls it around each compilation."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        function = dispatcher.py_func
        self._module = function.__module__ or "__main__"
        name = function.__qualname__.replace("<", "").replace(">", "")
        self._stem = f"{name[:100]}.py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
        self._keys: dict[Any, str] = {}

    @property
    def cache_path(self) -> str:
        return str(next(self._folders()))

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """The machine code of a signature; None where it has to be compiled."""
        target_context.refresh()
        self._keys.pop(sig, None)
        sources = digest(self._dispatcher)
        if sources is None or not all(_is_told_by_its_name(argument) for argument in getattr(sig, "args", sig)):
            return None
        versions = sys.version_info[:2], np.__version__, numba.__version__, __version__
        key = repr((versions, target_context.codegen().magic_tuple(), str(sig), sources))
        self._keys[sig] = hashlib.sha256(key.encode()).hexdigest()
        for folder in self._folders():
            code = _read(folder / self._file(sig), self._keys[sig])
            if code is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(code))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the machine code of a signature, for which ``load_overload`` had found none."""
        if sig not in self._keys or data.library.has_dynamic_globals or not all(part.can_cache for part in data.lifted):
            return
        code = dumps(data._reduce())
        problems = []
        for folder in self._folders():
            try:
                _write(folder / self._file(sig), self._keys[sig], code)
            except OSError as error:
                problems.append(f"{folder} ({error.strerror or error})")
                continue
            with contextlib.suppress(OSError):  # another process may do the same
                for old in sorted(folder.glob(f"{self._stem}-*.nbc"), key=lambda f: f.stat().st_mtime)[:-_MOST_FILES]:
                    old.unlink()
            return
        if multiprocessing.parent_process() is None:  # worker processes meet the same problem
            _warn_once(problems)

    def _file(self, sig: Any) -> str:
        return f"{self._stem}-{self._keys[sig][:24]}.nbc"

    def _folders(self) -> Iterator[Path]:
        """Folders for the files, in the order in which they are tried."""
        if config.CACHE_DIR:  # type: ignore[attr-defined]
            yield Path(config.CACHE_DIR) / self._module  # type: ignore[attr-defined]
        yield cache_folder() / "kernels" / self._module


_warned: list[str] = []


def _warn_once(problems: list[str]) -> None:
    if not _warned:
        _warned.append(
            f"compiled kernels cannot be kept in {' or '.join(problems)}: every process compiles them again, which "
            "takes some seconds; set NUMBA_CACHE_DIR to a folder that can be written"
        )
        logging.getLogger("formulavision").warning(_warned[0])


def _read(path: Path, key: str) -> bytes | None:
    """The machine code that ``_write`` wrote; None where there is no such file or where it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content[32:] if content[:32] == _checksum(key, content[32:]) else None


def _write(path: Path, key: str, code: bytes) -> None:
    """Write a file whole or not at all, whatever other processes write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        temporary.write_bytes(_checksum(key, code) + code)
        temporary.replace(path)


def _checksum(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + code).digest()


def _is_told_by_its_name(argument: Any) -> bool:
    """Whether the name of an argument's type identifies it; the names of functions and named tuples do not."""
    if isinstance(argument, numba_types.Tuple | numba_types.UniTuple):
        return all(_is_told_by_its_name(part) for part in argument)
    if isinstance(argument, numba_types.Array | numba_types.Optional):
        return _is_told_by_its_name(argument.dtype if isinstance(argument, numba_types.Array) else argument.type)
    plain = numba_types.Number, numba_types.Boolean, numba_types.UnicodeType, numba_types.NoneType, numba_types.Omitted
    return isinstance(argument, (*plain, numba_types.Literal, numba_types.Record))
