"""Lines of a generator's code that probably cause a problem."""

from __future__ import annotations

import ast
import inspect
import random
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from formulavision.generators.contract import Generator
from formulavision.generators.failures import is_own

__all__ = [
    "clock_reads",
    "global_random_state",
    "line_of_global_random_numbers",
    "line_of_method",
    "line_that_changes",
    "line_with",
    "other_random_numbers",
    "state_of",
]

_CLOCKS = {
    "time": {"time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time",
             "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "localtime", "gmtime", "strftime",
             "ctime", "asctime"},
    "datetime": {"now", "utcnow", "today"},
    "posix": {"urandom", "getpid", "times", "getrandom"},
}  # fmt: skip
"""Functions that give another value each time, by module."""
_THROUGH = {"random", "secrets", "uuid", "datetime", "os", "tempfile", "_strptime"}
"""Modules of the standard library that call these functions for a generator."""


def line_of_method(generator: type[Generator], *names: str) -> str:
    """`` (file, line N)`` of the first of these methods that the generator implements; of its class without one."""
    for name in names:
        method = getattr(generator, name, None)
        if inspect.isfunction(method) and not method.__module__.startswith("formulavision."):
            return f" ({method.__code__.co_filename}, line {method.__code__.co_firstlineno})"
    for file, tree, offset in _sources(generator):
        return f" ({file}, line {tree.body[0].lineno + offset})"
    return ""


def line_with(generator: type[Generator], *names: str) -> str:
    """`` (file, line N)`` of the first use of one of these names in the generator's class, or else in its module."""
    for file, tree, offset in _sources(generator):
        for node in ast.walk(tree):
            if (isinstance(node, ast.Attribute) and node.attr in names) or (
                isinstance(node, ast.Name) and node.id in names
            ):
                return f" ({file}, line {node.lineno + offset})"
    return ""


def _sources(generator: type[Generator]) -> Iterator[tuple[str, ast.Module, int]]:
    """File, syntax tree, and what to add to its lines: of the generator's classes, and then of their modules."""
    classes = _own_classes(generator)
    for source in [*classes, *dict.fromkeys(sys.modules.get(cls.__module__) for cls in classes)]:
        try:
            lines, first = inspect.getsourcelines(source)  # type: ignore[arg-type]
            file = inspect.getsourcefile(source)  # type: ignore[arg-type]
            yield file or "?", ast.parse(textwrap.dedent("".join(lines))), max(first - 1, 0)
        except (OSError, TypeError, SyntaxError):
            continue  # a class that was typed into a terminal has no file


def _own_classes(generator: type[Generator]) -> list[type]:
    """The generator's class and its base classes, without FormulaVision's and Python's."""
    return [cls for cls in generator.__mro__ if cls.__module__.partition(".")[0] not in ("formulavision", "builtins")]


# Watched drawing -----------------------------------------------------------------------------------------------------


def clock_reads(generator: type[Generator], work: Callable[[], object]) -> dict[str, str]:
    """The clocks, and sources of the operating system's random numbers, that the generator's own code reads in work.

    Returns:
        By the name of each function, `` (file, line N)`` of its first call.
    """
    found: dict[str, str] = {}

    def watch(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        owner = getattr(function, "__self__", None)
        module = getattr(function, "__module__", None) or getattr(owner, "__module__", None) or ""
        if function.__name__ not in _CLOCKS.get(module, ()):
            return
        caller: FrameType | None = frame
        while caller is not None and caller.f_globals.get("__name__") in _THROUGH:
            caller = caller.f_back
        if caller is not None and is_own(caller, generator):
            found.setdefault(f"{module}.{function.__name__}", _line(caller))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


def line_that_changes(generator: type[Generator], state: Callable[[], Any], work: Callable[[], object]) -> str:
    """`` (file, line N)`` of the first line of the generator's own code after which a state differs; or empty.

    Args:
        state: reads the state; two are compared by ``==``.
        work: what runs.
    """
    last, place, found = state(), "", ""

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal place, found
        if found or not is_own(frame, generator):
            return None
        if place and state() != last:
            found = place
            return None
        place = _line(frame)
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        work()
    finally:
        sys.settrace(before)
    return found or (place if state() != last else "")


def _line(frame: FrameType) -> str:
    return f" ({frame.f_code.co_filename}, line {frame.f_lineno})"


def global_random_state() -> tuple[Any, ...]:
    """The state of Python's, numpy's and, where it was imported, torch's global random numbers."""
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    torch = sys.modules.get("torch")
    return (
        random.getstate(),
        state["pos"],
        state["key"].tobytes(),
        torch.get_rng_state().numpy().tobytes() if torch is not None else b"",
    )


@contextmanager
def other_random_numbers() -> Iterator[None]:
    """Global random numbers of another state within the block; afterwards the state is as before."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002


def line_of_global_random_numbers(generator: type[Generator], work: Callable[[], object]) -> str:
    """`` (file, line N)`` of the generator's own code that draws or seeds global random numbers; or empty."""
    with other_random_numbers():
        return line_that_changes(generator, global_random_state, work)


def state_of(generator: Generator) -> dict[str, Any]:
    """What a generator keeps between calls: its attributes, and its class's and module's, as comparable values."""
    own, kept = _own_classes(type(generator)), int | float | str | list | dict | set | np.ndarray | Iterator
    holders = [vars(generator), *map(vars, own), *(vars(sys.modules.get(cls.__module__, ast)) for cls in own)]
    return {
        name: value.tobytes() if isinstance(value, np.ndarray) else repr(value)
        for holder in holders
        for name, value in holder.items()
        if not name.startswith("__") and isinstance(value, kept)
    }
