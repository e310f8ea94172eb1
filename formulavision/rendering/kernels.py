"""Compiled functions, kept on disk under a name that says from what they were compiled."""

from __future__ import annotations

import contextlib
import enum
import functools
import hashlib
import logging
import multiprocessing
import os
import pickle
import sys
import tempfile
import types
import weakref
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

from formulavision.util.files import cache_folder
from formulavision.util.interrupts import held_back
from formulavision.util.version import __version__

__all__ = ["kernel"]

_MOST_FILES = 32
"""Files of a function that stay when another one is written: of other signatures, and of sources that have changed."""


def kernel(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Compile a function when it is called first, and keep the machine code on disk: the decorator of all CPU kernels.

    It is ``numba.njit(nogil=True, **options)`` with another cache than numba's ``cache=True``, which looks at the
    function's own file only and so misses a change in a function or a constant of another module. Here the code is
    kept under a digest of the bytecode and the constants of the function and of all functions that it leads to,
    plugins' included, beside the versions of Python, numpy, numba and formulavision. What
    ``numba.extending.overload`` registers elsewhere is not among them.

    The folder is ``NUMBA_CACHE_DIR`` where that is set, else ``__pycache__`` beside the source, else the user's cache
    folder. A damaged file is replaced. Where none of the folders can be written, each process compiles for itself, and
    a line on standard error (``logging``) says so. Code is kept where all arguments are numbers, arrays, strings and
    tuples of these, and where it holds no addresses of this process (in numba's words: dynamic globals).

    Args:
        function: what numba can compile in nopython mode.
        options: of ``numba.njit``, such as ``error_model="numpy"`` or ``inline="always"``.
    """
    if function is None:
        return functools.partial(kernel, **options)
    with held_back():  # LLVM calls back into Python, where Ctrl-C would be printed and forgotten
        dispatcher = numba.njit(**{"nogil": True, **options})(function)
    dispatcher._cache = _KernelCache(dispatcher)
    dispatcher.compile = held_back()(dispatcher.compile)
    return dispatcher


class _KernelCache(NullCache):
    """The files of one function, one for each signature and digest. Its dispatcher asks it when it compiles."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        function = dispatcher.py_func
        self._source = Path(function.__code__.co_filename)
        name = f"{self._source.stem}.{function.__qualname__}".replace("<", "").replace(">", "")
        self._stem = f"{name[:100]}.py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
        self._keys: dict[Any, str] = {}

    @property
    def cache_path(self) -> str:
        return str(next(self._folders()))

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """What was compiled for a signature; None where it has to be compiled."""
        target_context.refresh()
        self._keys.pop(sig, None)
        digest = _digest(self._dispatcher)
        if digest is None or not all(_has_a_name(argument) for argument in getattr(sig, "args", sig)):
            return None
        versions = sys.version_info[:2], np.__version__, numba.__version__, __version__
        key = repr((versions, target_context.codegen().magic_tuple(), str(sig), digest))
        self._keys[sig] = hashlib.sha256(key.encode()).hexdigest()
        for folder in self._folders():
            code = _read(folder / self._file(sig), self._keys[sig])
            if code is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(code))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature, since ``load_overload`` had none."""
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
        # Worker processes are stopped by what stops their parent.
        if multiprocessing.parent_process() is None:
            _say_once(problems)

    def _file(self, sig: Any) -> str:
        return f"{self._stem}-{self._keys[sig][:24]}.nbc"

    def _folders(self) -> Iterator[Path]:
        """In the order in which they are tried."""
        source = self._source.absolute()
        folder = f"{source.parent.name}_{hashlib.sha256(str(source.parent).encode()).hexdigest()[:16]}"
        if config.CACHE_DIR:  # type: ignore[attr-defined]
            yield Path(config.CACHE_DIR) / folder  # type: ignore[attr-defined]
        if source.is_file():
            yield source.parent / "__pycache__"
        yield cache_folder() / "kernels" / folder


_told: list[str] = []


def _say_once(problems: list[str]) -> None:
    if not _told:
        _told.append(
            f"compiled kernels cannot be kept in {' or '.join(problems)}: every process compiles them again, for "
            "some seconds; set NUMBA_CACHE_DIR to a folder that can be written"
        )
        logging.getLogger("formulavision").warning(_told[0])


def _read(path: Path, key: str) -> bytes | None:
    """What ``_write`` was given; None where there is no such file, or where it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content[32:] if content[:32] == _checksum(key, content[32:]) else None


def _write(path: Path, key: str, code: bytes) -> None:
    """Whole or not at all, whatever other processes write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        temporary.write_bytes(_checksum(key, code) + code)
        temporary.replace(path)


def _checksum(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + code).digest()


def _has_a_name(argument: Any) -> bool:
    """Whether the text of an argument's type tells it: not that of a function or a named tuple."""
    if isinstance(argument, numba_types.Tuple | numba_types.UniTuple):
        return all(_has_a_name(part) for part in argument)
    if isinstance(argument, numba_types.Array | numba_types.Optional):
        return _has_a_name(argument.dtype if isinstance(argument, numba_types.Array) else argument.type)
    plain = numba_types.Number, numba_types.Boolean, numba_types.UnicodeType, numba_types.NoneType, numba_types.Omitted
    return isinstance(argument, (*plain, numba_types.Literal, numba_types.Record))


# What a function was compiled from -----------------------------------------------------------------------------------

_PYTHON = Path(os.__file__).parent
_first_seen: weakref.WeakKeyDictionary[types.FunctionType, str] = weakref.WeakKeyDictionary()


def _digest(dispatcher: Any) -> str | None:
    """Of all that numba compiles a function from; None where that has changed since this process first looked.

    Then the machine code may be of both, since what is compiled stays.
    """
    reached = [dispatcher.py_func]
    total = hashlib.sha256(_options(dispatcher).encode())
    for function in reached:  # which grows
        content, others = _content(function)
        if _first_seen.setdefault(function, content) != content:
            return None
        reached += [other for other in others if other not in reached]
        total.update(f"{content} {[reached.index(other) for other in others]}".encode())
    return total.hexdigest()


def _content(function: types.FunctionType) -> tuple[str, list[types.FunctionType]]:
    """A function's bytecode and the values that it names, as text, and the functions among them."""
    others: list[types.FunctionType] = []
    names = _names(function.__code__)
    describe = functools.partial(_describe, names=names, others=others, seen=set())
    used = {name: describe(function.__globals__[name]) for name in sorted(names & function.__globals__.keys())}
    cells = [describe(cell.cell_contents) for cell in function.__closure__ or ()]
    return repr((describe(function.__code__), used, cells, describe(function.__defaults__))), others


def _names(code: types.CodeType) -> frozenset[str]:
    """Names of globals and of attributes in a function and the functions inside of it."""
    inner = [_names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


def _describe(value: Any, names: frozenset[str], others: list[types.FunctionType], seen: set[int]) -> Any:
    """A value as what ``repr`` writes alike in every process; functions are numbered by their place in ``others``."""
    describe = functools.partial(_describe, names=names, others=others, seen=seen)
    if isinstance(value, types.FunctionType):
        if _is_of_a_library(value):
            return value.__module__, value.__qualname__
        if value not in others:
            others.append(value)
        return "function", others.index(value)
    if isinstance(value, types.ModuleType | type):
        name = value.__name__ if isinstance(value, types.ModuleType) else f"{value.__module__}.{value.__qualname__}"
        if _is_of_a_library(value) or id(value) in seen:
            return name
        seen.add(id(value))
        if isinstance(value, enum.EnumType):
            return name, [(key, describe(value[key].value)) for key in value.__members__]
        if isinstance(value, type):
            return name, {key: describe(part) for key, part in vars(value).items()}
        return name, {key: describe(getattr(value, key)) for key in sorted(names) if hasattr(value, key)}
    for wrapped in ("py_func", "__wrapped__"):  # a kernel; numba's intrinsics and ufuncs
        if hasattr(value, wrapped):
            options = _options(value) if hasattr(value, "targetoptions") else ""
            return type(value).__qualname__, options, describe(getattr(value, wrapped))
    if isinstance(value, types.CodeType):
        constants = [describe(constant) for constant in value.co_consts]
        arguments = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
        variables = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
        return value.co_code, value.co_exceptiontable, constants, arguments, variables
    if isinstance(value, types.BuiltinFunctionType):
        return value.__module__, value.__qualname__
    if isinstance(value, types.MethodType):
        return describe(value.__func__)
    if isinstance(value, np.ndarray):
        return repr(value.dtype), value.shape, value.strides, value.tobytes()
    if isinstance(value, enum.Enum):
        return describe(type(value)), value.name
    if isinstance(value, np.generic):
        return repr(value.dtype), value.tobytes()
    if isinstance(value, tuple | list):
        return describe(type(value)), [describe(part) for part in value]
    if isinstance(value, set | frozenset):
        return describe(type(value)), sorted(repr(describe(part)) for part in value)
    if isinstance(value, dict):
        return [(describe(key), describe(part)) for key, part in value.items()]
    return repr(value) if _is_of_a_library(type(value)) else (describe(type(value)), dumps(value))


def _options(dispatcher: Any) -> str:
    return repr(sorted(dispatcher.targetoptions.items()))


def _is_of_a_library(value: types.ModuleType | types.FunctionType | type) -> bool:
    """Whether it changes with the version of Python, numpy or numba only."""
    if isinstance(value, types.ModuleType):
        module = value.__name__
    else:
        module = value.__globals__.get("__name__", "") if isinstance(value, types.FunctionType) else value.__module__
    root = module.partition(".")[0]
    if root in ("builtins", "numpy", "numba"):
        return True
    # Somebody's own module may have the name of one of Python's.
    file = Path(getattr(sys.modules.get(root), "__file__", None) or _PYTHON / root)
    return root in sys.stdlib_module_names and file.is_relative_to(_PYTHON) and "site-packages" not in file.parts
