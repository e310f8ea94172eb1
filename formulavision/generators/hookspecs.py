"""Everything that a plugin can hook."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

from formulavision.generators.contract import Generator

PROJECT = "formulavision"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_generators(register: Callable[[type[Generator]], None]) -> None:
    """Call ``register(MyGenerator)`` once for each generator that this plugin brings."""
