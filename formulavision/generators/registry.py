"""Finds plugins in the entry-point group ``formulavision``, and looks generators up by name.

A plugin is a module with the hook of ``hookspecs.py``. Its package names it in the entry-point group. The generators
that FormulaVision ships are found in the same way. A plugin that fails is listed with the reason, and the others work.
"""

from __future__ import annotations

import functools
import importlib.metadata
import multiprocessing
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pluggy

from formulavision.generators import hookspecs
from formulavision.generators.contract import CONTRACT_VERSION, Generator, Params
from formulavision.util.config import did_you_mean
from formulavision.util.errors import PluginError, one_line

__all__ = ["THIS_PROCESS", "Registered", "Registry", "plugins", "register"]

THIS_PROCESS = "this process"
"""Stands for the package of a generator that was registered without one, as in a notebook."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


# Plugins that are installed ------------------------------------------------------------------------------------------


@functools.cache
def plugins() -> Registry:
    """The registry of this process. The first call fills it from the entry points of all installed packages."""
    registry = Registry()
    # In a fixed order, so that of two generators with one name the same one is always taken: ours, then by package.
    for entry_point in sorted(
        importlib.metadata.entry_points(group=hookspecs.PROJECT),
        key=lambda e: (_package(e)[0] != hookspecs.PROJECT, _package(e), e.name),
    ):
        package, version = _package(entry_point)
        try:
            for generator in _load(entry_point):
                registry.add(generator, package, version)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's code may raise anything, SystemExit too; the others must work
            reason = one_line(error)
            if not isinstance(error, PluginError):
                reason = f"{type(error).__name__}: {reason}".rstrip(": ")
            registry.problems[f"{entry_point.name} ({package} {version})"] = reason
    return registry


def _load(entry_point: importlib.metadata.EntryPoint) -> list[type[Generator]]:
    """Import a plugin and call its hook."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(entry_point.load())
    manager.check_pending()
    generators: list[type[Generator]] = []
    manager.hook.register_generators(register=generators.append)
    if not generators:
        raise PluginError("registers no generator")
    return generators


def _package(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the package that an entry point belongs to."""
    return (entry_point.dist.name, entry_point.dist.version) if entry_point.dist else ("?", "")


def register(generator: type[Generator]) -> type[Generator]:
    """Register a generator in this process, without a package; usable as a decorator.

    A notebook's cell can run again: a class of ``__main__``, or the same class of a module that was reloaded, replaces
    the one of its name. Existing recipes then draw with the new class.

    Raises:
        PluginError: the class is no generator, was written for a newer contract, or its name is bad or taken.
    """
    plugins().add(generator)
    return generator


# The registry --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registered:
    """A generator, and the package and version that it came from."""

    generator: type[Generator]
    package: str
    package_version: str

    @property
    def origin(self) -> str:
        """Package and version, as in ``formulavision-rings 0.3.0``."""
        return f"{self.package} {self.package_version}".strip()

    @property
    def draws_on_devices(self) -> bool:
        """Whether the generator can draw images or its own scenes on a GPU, at least with some settings."""
        drawn = ("device_renderer", "device_scenes")
        return any(getattr(self.generator, name) is not getattr(Generator, name) for name in drawn)


@dataclass(repr=False)
class Registry:
    """Generators by name.

    Attributes:
        generators: the generators that can be used.
        problems: the reason, in one line, for each plugin that could not be loaded.
    """

    generators: dict[str, Registered] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, generator: type[Generator], package: str = THIS_PROCESS, package_version: str = "") -> None:
        """Register a generator.

        Raises:
            PluginError: the class is no generator, was written for a newer contract, or its name is bad or taken.
        """
        problem = _problem(generator)
        if not problem and generator.name in self.generators:
            taken = self.generators[generator.name]
            if not _replaces(generator, taken.generator):
                problem = f"the name '{generator.name}' is taken by {taken.origin}"
        if problem:
            raise PluginError(f"{getattr(generator, '__name__', generator)}: {problem}")
        self.generators[generator.name] = Registered(generator, package, package_version)

    def __repr__(self) -> str:
        failed = f"; failed: {', '.join(self.problems)}" if self.problems else ""
        return f"Registry({', '.join(sorted(self.generators))}{failed})"

    def __getitem__(self, name: str) -> Registered:
        if name in self.generators:
            return self.generators[name]
        if multiprocessing.parent_process() is not None:
            raise PluginError(
                f"there is no generator '{name}' in a worker process: a generator that a notebook registers needs "
                "workers=1; others must come from a module that can be imported"
            )
        installed = ", ".join(sorted(self.generators)) or "none"
        by_custom = f" (its package is called formulavision-{name} by custom)" if _NAME.fullmatch(name) else ""
        failed = "".join(f"; {plugin} failed: {reason}" for plugin, reason in self.problems.items())
        raise PluginError(
            f"there is no generator '{name}'{did_you_mean(name, self.generators) or by_custom}; installed: "
            f"{installed}{failed}"
        )


def _problem(generator: object) -> str:
    """Why a class cannot be registered; empty where it can."""
    if not (isinstance(generator, type) and issubclass(generator, Generator)):
        return "is not a subclass of formulavision.Generator"
    for name, (allowed, must_be) in _ATTRIBUTES.items():
        if not allowed(value := getattr(generator, name)):
            return f"its {name} is {textwrap.shorten(repr(value), 80)}, must be {must_be}"
    if generator.contract > CONTRACT_VERSION:
        return (
            f"asks for contract {generator.contract}, this formulavision has {CONTRACT_VERSION}: "
            "upgrade formulavision or install an older release of the plugin"
        )
    if not _NAME.fullmatch(generator.name):
        return f"the name '{generator.name}' must be lower-case letters, digits, '-' and '_'"
    if not (isinstance(generator.Params, type) and issubclass(generator.Params, Params)):
        return "its Params is not a subclass of formulavision.Params"
    for name, info in generator.Params.model_fields.items():
        if name in ("name", "version"):
            reason = f"in recipes, generator.{name} is the {name} of the generator"
            return f"its parameter '{name}' needs another name: {reason}"
        if not info.description:
            return f"its parameter '{name}' has no description"
        if info.is_required():
            return f"its parameter '{name}' has no default"
    for name in generator.category_params or ():
        if name not in generator.Params.model_fields:
            known = did_you_mean(name, generator.Params.model_fields)
            return f"its category_params name '{name}', and there is no such parameter{known}"
    return ""


def _above_zero(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _all_texts(values: object, *kinds: type) -> bool:
    return isinstance(values, kinds) and all(isinstance(value, str) for value in cast("Iterable[object]", values))


_ATTRIBUTES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda name: isinstance(name, str), "a text"),
    "version": (_above_zero, "a whole number above 0"),
    "contract": (_above_zero, "a whole number above 0"),
    "columns": (lambda names: _all_texts(names, tuple, list), "a tuple of texts"),
    "category_params": (
        lambda names: names is None or _all_texts(names, frozenset, set, tuple, list), "a set of texts, or None"
    ),
    "default_instances": (_above_zero, "a whole number above 0"),
    "default_channels": (lambda channels: channels in (1, 3), "1 (gray) or 3 (colour)"),
    "background": (
        lambda level: isinstance(level, property) or (type(level) is int and 0 <= level <= 255),
        "a gray level, 0 to 255",
    ),
    "draws_masks": (lambda value: isinstance(value, bool), "True or False"),
    "fills_canvas": (lambda value: isinstance(value, bool), "True or False"),
    "min_visible": (_above_zero, "a whole number above 0"),
}  # fmt: skip
"""Class attributes of a generator: whether a value is allowed, and what it must be."""


def _replaces(generator: type[Generator], taken: type[Generator]) -> bool:
    """Whether a class is a later version of another: its notebook cell ran again, or its module was reloaded."""
    module = generator.__module__
    return module == taken.__module__ and (module == "__main__" or generator.__qualname__ == taken.__qualname__)
