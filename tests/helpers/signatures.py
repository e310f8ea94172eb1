"""While the tests run, functions that take arrays check them against their signatures (jaxtyping, beartype).

Checked are all annotated functions of the rooms below, whoever calls them, and all annotated kernels that Python calls.
Other rooms take the users' input and refuse bad input by themselves, which their tests try: they are not checked.
The import hook of jaxtyping would wrap kernels as well, before numba and Triton read them, so this is one of our own.
"""

from __future__ import annotations

import functools
import importlib.machinery
import inspect
import random
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from jaxtyping import jaxtyped
from numba.core.dispatcher import Dispatcher
from numpy.typing import ArrayLike

# beartype looks at random items of lists: with numbers of its own, so that it leaves Python's generator alone.
with mock.patch("random.getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, FrozenDict, beartype
    from beartype.door import is_bearable

__all__ = ["check_signatures"]

ROOMS = ("formulavision.rendering.", "formulavision_plugins.")
RULES = BeartypeConf(
    is_pep484_tower=True,  # an int is a float
    hint_overrides=FrozenDict({ArrayLike: Any}),  # for beartype, numpy's type has no tuples of numbers
)
checked = jaxtyped(typechecker=beartype(conf=RULES))


def check_signatures() -> None:
    """From now on. Modules of the rooms must not have been imported yet."""
    assert not [name for name in sys.modules if name.startswith(ROOMS)]
    sys.meta_path.insert(0, CheckingFinder())
    Dispatcher.__call__ = call_kernel  # type: ignore[method-assign, assignment]


class CheckingFinder:
    """Finds modules as Python does, and replaces the functions and methods of an imported module by checking ones."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(ROOMS):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_check(module: types.ModuleType) -> None:
                execute(module)
                replace_functions(module, module.__name__)

            spec.loader.exec_module = execute_and_check  # type: ignore[method-assign]
        return spec


def replace_functions(owner: types.ModuleType | type, module: str) -> None:
    for name, value in list(vars(owner).items()):
        if getattr(value, "__module__", None) != module:
            continue
        if isinstance(value, types.FunctionType) and value.__annotations__:
            setattr(owner, name, checked(value))
        elif isinstance(value, type):
            replace_functions(value, module)


call_compiled = Dispatcher.__call__


def call_kernel(kernel: Any, *arguments: Any, **named: Any) -> Any:
    signature, hints = signature_of(kernel.py_func)
    with jaxtyped("context"):
        for name, value in signature.bind(*arguments, **named).arguments.items():
            if name in hints and not is_bearable(value, hints[name], conf=RULES):
                shown = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(value)
                raise TypeError(f"{kernel.__name__}(): {name} is {shown}, not {hints[name]}")
    return call_compiled(kernel, *arguments, **named)


@functools.cache
def signature_of(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    return inspect.signature(function), typing.get_type_hints(function)
