"""The hook of a plugin: ``register_generators``. Implement it with the decorator ``formulavision.hookimpl``."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from formulavision.generators.contract import Generator

PROJECT = "formulavision"
"""Name of the entry-point group and of pluggy's project."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    """Call ``register(MyGenerator)`` for each generator of the plugin."""
