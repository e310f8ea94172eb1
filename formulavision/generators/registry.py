"""Finds plugins through the entry-point group ``formulavision`` and looks generators up by name."""

from __future__ import annotations

import functools
import importlib.metadata
import multiprocessing
import re
from dataclasses import dataclass, field

import pluggy

from formulavision.generators import hookspecs
from formulavision.generators.contract import CONTRACT_VERSION, Generator, Params
from formulavision.util.config import did_you_mean
from formulavision.util.errors import PluginError

__all__ = ["THIS_PROCESS", "Registered", "Registry", "plugins", "register"]

THIS_PROCESS = "this process"
"""The package of a generator that has none."""
ENTRY_POINT_GROUP = hookspecs.PROJECT
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Registered:
    """A generator and where it came from."""

    generator: type[Generator]
    package: str
    package_version: str

    @property
    def origin(self) -> str:
        return f"{self.package} {self.package_version}".strip()

    @property
    def draws_on_devices(self) -> bool:
        """Whether it draws on a GPU itself, with some settings at least."""
        return self.generator.device_renderer is not Generator.device_renderer


@dataclass
class Registry:
    """The generators that were found, and one line for each plugin that was not taken."""

    generators: dict[str, Registered] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, generator: type[Generator], package: str = THIS_PROCESS, package_version: str = "") -> None:
        """Take a generator in.

        Raises:
            PluginError: it is no generator, was written for another contract, or its name is bad or taken.
        """
        flaw = _flaw(generator)
        if not flaw and generator.name in self.generators:
            taken = self.generators[generator.name]
            if not _is_newer(generator, taken.generator):
                flaw = f"the name '{generator.name}' is taken by {taken.origin}"
        if flaw:
            raise PluginError(f"{getattr(generator, '__name__', generator)}: {flaw}")
        self.generators[generator.name] = Registered(generator, package, package_version)

    def __getitem__(self, name: str) -> Registered:
        if name in self.generators:
            return self.generators[name]
        broken = "; ".join(f"{plugin} failed: {line}" for plugin, line in self.problems.items())
        if multiprocessing.parent_process() is not None:
            raise PluginError(
                f"there is no generator '{name}' in a worker process: one that a notebook registers is drawn with "
                "workers=1, others come from a module that can be imported"
            )
        raise PluginError(
            f"there is no generator '{name}'{did_you_mean(name, self.generators)}"
            f"; installed: {', '.join(sorted(self.generators)) or 'none'}" + (f"; {broken}" if broken else "")
        )


def _is_newer(generator: type[Generator], taken: type[Generator]) -> bool:
    """Whether a class is another one's after its notebook cell has run again, or its module was loaded again."""
    place = generator.__module__
    return place == taken.__module__ and (place == "__main__" or generator.__qualname__ == taken.__qualname__)


def _flaw(generator: object) -> str:
    if not (isinstance(generator, type) and issubclass(generator, Generator)):
        return "is not a subclass of formulavision.Generator"
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
        if not info.description:
            return f"its parameter '{name}' has no description"
        if info.is_required():
            return f"its parameter '{name}' has no default"
    if not isinstance(generator.default_instances, int) or generator.default_instances < 1:
        return f"its default_instances is {generator.default_instances!r}, must be a whole number above 0"
    return ""


@functools.cache
def plugins() -> Registry:
    """The registry of this process, filled from the entry points on first use."""
    result = Registry()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    # In a fixed order, so that of two plugins with one name it is always the same that is taken: ours, then by package.
    for entry_point in sorted(
        importlib.metadata.entry_points(group=ENTRY_POINT_GROUP),
        key=lambda e: (_distribution(e)[0] != hookspecs.PROJECT, _distribution(e), e.name),
    ):
        package, version = _distribution(entry_point)
        plugin_name = f"{entry_point.name} ({package} {version})"
        try:
            plugin = entry_point.load()
            manager.register(plugin, name=plugin_name)
            manager.check_pending()
            offered: list[type[Generator]] = []
            hook = manager.subset_hook_caller(
                "register_generators", [p for p in manager.get_plugins() if p is not plugin]
            )
            hook(register=offered.append)
            if not offered:
                raise PluginError("registers no generator")
            for generator in offered:
                result.add(generator, package, version)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # Somebody else's code runs here: whatever it does, even sys.exit, the other plugins must go on working.
            result.problems[plugin_name] = _one_line(error)
            if manager.has_plugin(plugin_name):
                manager.unregister(name=plugin_name)
    return result


def register(generator: type[Generator]) -> type[Generator]:
    """Make a generator of this process known without packaging it; usable as a decorator.

    A notebook's cell can run again: a class of ``__main__``, or the same class of a module that was loaded again,
    replaces the one of its name. Recipes that exist draw with the new one.

    Raises:
        PluginError: it is no generator, was written for another contract, or its name is bad or taken.
    """
    plugins().add(generator)
    return generator


def _distribution(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (entry_point.dist.name, entry_point.dist.version) if entry_point.dist else ("?", "")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")
