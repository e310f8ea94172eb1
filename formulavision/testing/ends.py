"""Drawing with every parameter at the ends of its range."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from formulavision.generators.contract import Params
from formulavision.testing.subject import Subject
from formulavision.util.errors import ConfigError, PluginError

__all__ = ["Ends", "ends_of"]

_CANVAS = {"size": 16, "padding": 0}
_MEMORY_BYTES = 16 << 30
"""Address space of the process that draws: a parameter may ask for more memory than the machine has."""


def ends_of(params: type[Params]) -> Iterator[tuple[str, Any]]:
    """Parameters with their smallest and largest values; both of a boolean; all of several choices.

    Yields:
        The name of the parameter and the value; None as the value where there is no limit.
    """
    schema = params.model_json_schema()
    for name, facts in schema["properties"].items():
        kinds = facts.get("anyOf", [facts])
        kinds = [schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind for kind in kinds]
        for kind in kinds:
            yield from ((name, value) for value in _ends(kind))


def _ends(kind: dict[str, Any]) -> list[Any]:
    if "enum" in kind:
        return list(kind["enum"])
    if kind.get("type") == "boolean":
        return [False, True]
    if kind.get("type") in ("integer", "number"):
        return [_end(kind, "inimum", np.inf), _end(kind, "aximum", -np.inf)]
    return [] if "const" in kind or kind.get("type") == "null" else [None]


def _end(kind: dict[str, Any], limit: str, inwards: float) -> Any:
    """The smallest or the largest number of a range."""
    value, beyond = kind.get(f"m{limit}"), kind.get(f"exclusiveM{limit}")
    if value is None and beyond is not None:
        whole = kind["type"] == "integer"
        value = beyond + int(np.sign(inwards)) if whole else float(np.nextafter(beyond, inwards))
    return int(value) if value is not None and kind["type"] == "integer" else value


@dataclass
class Ends:
    """Draws at ends of ranges; it runs in a process of its own, which is killed where an end takes too long."""

    subject: Subject
    values: list[tuple[str, Any]]

    def run(self) -> Iterator[tuple[str, str]]:
        """Yields, for each value, a problem and a reason for which it was not reached; empty where there is none.

        Before them it yields once, when all is ready.
        """
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, most))
        self.usual = self._draw_a_few(self.subject)  # kernels are compiled now
        yield "", ""
        for name, value in self.values:
            yield self._draw(name, value)

    def _draw(self, name: str, value: Any) -> tuple[str, str]:
        fields, refused = self.subject.generator.Params.model_fields, ""
        other = name.removesuffix("_min") + "_max" if name.endswith("_min") else name.removesuffix("_max") + "_min"
        for params in ({name: value}, {name: value, other: value}):
            if not fields.keys() >= params.keys():
                continue
            try:
                found = self._draw_a_few(Subject(self.subject.name, {**self.subject.params, **params}))
            except ConfigError as error:  # perhaps the other end of a range has to move, too
                refused = refused or textwrap.shorten(str(error), 100, placeholder=" ...")
            except PluginError as error:
                return ("", "takes too much memory") if isinstance(error.__cause__, MemoryError) else (str(error), "")
            else:
                known = Subject(self.subject.name, self.subject.params).recipe(_CANVAS).build().category_params
                if known is not None and not params.keys() & known and found != self.usual:
                    return "categories change with it, so it belongs to category_params", ""
                return "", ""
        return "", refused

    def _draw_a_few(self, subject: Subject) -> bytes:
        """Draw two images of the first category, and a scene.

        Returns:
            The category's parameters.

        Raises:
            PluginError: the generator raised, or drew an image of a batch otherwise than alone.
        """
        recipe = subject.recipe(_CANVAS)
        categories = subject.categories(recipe, 1)
        generator = subject.build(recipe, categories)
        if subject.draws_images:
            instances = subject.instances(recipe)[:2]
            images = subject.draw(generator, categories[0], instances)
            if not np.array_equal(images[-1], subject.draw_one_by_one(recipe, categories, [(0, instances[-1])])):
                raise PluginError("an image of a batch differs from the same image alone")
        if subject.has_scenes:
            subject.draw_scene(generator, categories, 0)
        for misdeed in subject.misdeeds.values():
            raise PluginError(misdeed)
        return categories[0].parameters.tobytes()
