"""Errors in a plugin's code become one line that names the plugin, its package, and the file and line."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from types import FrameType

from formulavision.generators.contract import Generator
from formulavision.generators.registry import plugins
from formulavision.util.errors import FormulaVisionError, PluginError

__all__ = ["ask_for_names", "ask_for_number", "blamed", "is_own"]


_READ_ONLY = " (category.parameters is read-only: copy it before changing it)"


@contextmanager
def blamed(name: str, when: str) -> Iterator[None]:
    """Turn any exception of the block, ``SystemExit`` too, into a ``PluginError`` of the generator ``name``.

    Exceptions of FormulaVision, which say what to change, are passed on, and so is ``KeyboardInterrupt`` (Ctrl-C).

    Args:
        name: of a generator.
        when: the work of the block, such as "while drawing".

    Raises:
        PluginError: the block raised. The message names the plugin, its package, the error, and the innermost line of
            the plugin's own files.
    """
    try:
        yield
    except (FormulaVisionError, KeyboardInterrupt):
        raise
    except BaseException as error:
        registered = plugins()[name]
        text = textwrap.shorten("".join(traceback.format_exception_only(error)), 400, placeholder=" ...")
        place = _place(error, registered.generator)
        hint = _READ_ONLY if isinstance(error, ValueError) and "read-only" in text else ""
        raise PluginError(f"'{name}' ({registered.origin}) failed {when}: {text}{hint}{place}") from error


def _place(error: BaseException, generator: type[Generator]) -> str:
    """File and line of the innermost frame in the generator's own packages; empty where there is none."""
    lines = [
        f" ({frame.f_code.co_filename}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_own(frame, generator)
    ]
    return lines[-1] if lines else ""


def is_own(frame: FrameType, generator: type[Generator]) -> bool:
    """Whether a frame runs code of the packages that the generator's class and its base classes come from."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    own = {cls.__module__.partition(".")[0] for cls in generator.__mro__}
    return package in own - {"formulavision", "builtins"}


def ask_for_number(generator: Generator, method: str) -> int | None:
    """The number that ``max_categories``, ``default_categories`` or ``max_instances`` returns, checked.

    Raises:
        PluginError: the method raised, or returned no whole number above 0 (or None, for a maximum).
    """
    with blamed(generator.name, f"in {method}()"):
        number = getattr(generator, method)()
        unlimited = method.startswith("max_")
        if unlimited and number is None:
            return None
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            limits = "a whole number above 0" + (", or None" if unlimited else "")
            raise TypeError(f"returned {number!r}, must be {limits}")
        return int(number)


def ask_for_names(generator: Generator, count: int) -> list[str]:
    """The names that ``instance_name`` returns for the first ``count`` instances, checked.

    Raises:
        PluginError: the method raised, or returned a name that a file cannot have, or one name twice.
    """
    names: dict[str, int] = {}
    with blamed(generator.name, "in instance_name()"):
        for instance in range(count):
            name = generator.instance_name(instance)
            if not isinstance(name, str) or not name.isprintable() or not name or set(name) & set("/\\."):
                raise TypeError(f"returned {name!r} for instance {instance}, must be a text without '/', '\\' and '.'")
            if names.setdefault(name, instance) != instance:
                raise ValueError(f"returned {name!r} for instances {names[name]} and {instance}")
    return list(names)
