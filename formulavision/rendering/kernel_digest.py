"""A digest of everything that a kernel is compiled from.

That is the bytecode of the kernel and of all functions that it leads to, in any module, and the constants that they
use. The code of Python, numpy and numba is left out: the cache of kernels is kept apart for each of their versions.
"""

from __future__ import annotations

import enum
import hashlib
import os
import sys
import types
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.serialize import dumps

__all__ = ["digest"]

_PYTHON = Path(os.__file__).parent
_first_seen: weakref.WeakKeyDictionary[types.FunctionType, str] = weakref.WeakKeyDictionary()


def digest(dispatcher: Any) -> str | None:
    """The digest of a kernel, given by its numba dispatcher.

    Returns:
        Hexadecimal digits, the same in every process. None where a function or a constant has changed since this
        process first looked: numba keeps what it has compiled, so machine code of now may be from both states.
    """
    functions = [dispatcher.py_func]
    total = hashlib.sha256(_options(dispatcher).encode())
    for function in functions:  # the list grows by the functions that are met
        describe = _Describe(function)
        description = repr(describe.function(function))
        if _first_seen.setdefault(function, description) != description:
            return None
        functions += [other for other in describe.functions if other not in functions]
        total.update(f"{description} {[functions.index(other) for other in describe.functions]}".encode())
    return total.hexdigest()


class _Describe:
    """Describes what a function refers to by tuples and texts, which ``repr`` writes alike in every process.

    Attributes:
        functions: functions that were met; a description holds their index here.
    """

    def __init__(self, function: types.FunctionType) -> None:
        self.names = _names(function.__code__)
        self.functions: list[types.FunctionType] = []
        self.seen: set[int] = set()

    def function(self, function: types.FunctionType) -> Any:
        """Bytecode, constants, values of globals and of closures, and defaults."""
        used = sorted(self.names & function.__globals__.keys())
        return (
            function.__module__,  # machine code names the module that it was compiled in
            self.code(function.__code__),
            {name: self.value(function.__globals__[name]) for name in used},
            [self.value(cell.cell_contents) for cell in function.__closure__ or ()],
            self.value(function.__defaults__),
        )

    def code(self, code: types.CodeType) -> Any:
        constants = [self.value(constant) for constant in code.co_consts]
        arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        variables = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        return code.co_code, code.co_exceptiontable, constants, arguments, variables

    def value(self, value: Any) -> Any:
        match value:
            case types.BuiltinFunctionType():
                return value.__module__, value.__qualname__
            case types.FunctionType() if _is_of_a_library(value):
                return value.__module__, value.__qualname__
            case types.FunctionType():
                if value not in self.functions:
                    self.functions.append(value)
                return "function", self.functions.index(value)
            case types.ModuleType() | type():
                return self.module_or_class(value)
        for wrapped in ("py_func", "__wrapped__"):  # of kernels, and of numba's intrinsics and ufuncs
            if hasattr(value, wrapped):
                options = _options(value) if hasattr(value, "targetoptions") else ""
                return type(value).__qualname__, options, self.value(getattr(value, wrapped))
        match value:
            case types.CodeType():
                return self.code(value)
            case types.MethodType():
                return self.value(value.__func__)
            case np.ndarray() | np.generic():
                return type(value).__name__, repr(value.dtype), value.shape, value.strides, value.tobytes()
            case enum.Enum():
                return self.value(type(value)), value.name
            case tuple() | list():
                return self.value(type(value)), [self.value(part) for part in value]
            case set() | frozenset():
                return self.value(type(value)), sorted(repr(self.value(part)) for part in value)
            case dict():
                return [(self.value(key), self.value(part)) for key, part in value.items()]
        return repr(value) if _is_of_a_library(type(value)) else (self.value(type(value)), dumps(value))

    def module_or_class(self, value: types.ModuleType | type) -> Any:
        """The name, and the members: of a module those that the function names, of a class all."""
        name = value.__name__ if isinstance(value, types.ModuleType) else f"{value.__module__}.{value.__qualname__}"
        if _is_of_a_library(value) or id(value) in self.seen:
            return name
        self.seen.add(id(value))
        if isinstance(value, enum.EnumType):
            return name, [(key, self.value(value[key].value)) for key in value.__members__]
        if isinstance(value, type):
            return name, {key: self.value(part) for key, part in vars(value).items()}
        return name, {key: self.value(getattr(value, key)) for key in sorted(self.names) if hasattr(value, key)}


def _names(code: types.CodeType) -> frozenset[str]:
    """Names of globals and of attributes in a function and in the functions inside of it."""
    inner = [_names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


def _options(dispatcher: Any) -> str:
    """Options of ``numba.njit``."""
    return repr(sorted(dispatcher.targetoptions.items()))


def _is_of_a_library(value: types.ModuleType | types.FunctionType | type) -> bool:
    """Whether a module, function or class is of Python, numpy or numba, and so changes with their versions only.

    Each version of numba works with one minor version of llvmlite.
    """
    if isinstance(value, types.ModuleType):
        module = value.__name__
    elif isinstance(value, types.FunctionType):
        module = value.__globals__.get("__name__", "")
    else:
        module = value.__module__
    root = module.partition(".")[0]
    if root in ("builtins", "numpy", "numba", "llvmlite"):
        return True
    # A user's own module may have the name of one of Python's.
    file = Path(getattr(sys.modules.get(root), "__file__", None) or _PYTHON / root)
    return root in sys.stdlib_module_names and file.is_relative_to(_PYTHON) and "site-packages" not in file.parts
