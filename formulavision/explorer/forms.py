"""Forms: a control for each setting of a recipe, made from the fields of its pydantic models."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from formulavision.generators.contract import Canvas
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.scenes import SceneSettings
from formulavision.util.config import parse_yaml
from formulavision.util.errors import ConfigError

__all__ = ["Control", "Section", "change", "problems_at", "sections"]

_WIDEST = 2000
"""A number in a range of more steps than this is typed, not slid."""
_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
"""Bounds of a number as pydantic names them, in words."""


@dataclass(frozen=True)
class Control:
    """A setting as a visitor changes it.

    Attributes:
        path: of the setting in the recipe: ``generator.dots``.
        kind: slider and number for numbers, choice, switch for true and false, text for anything else, as YAML.
        value: what it shows: a plain value; of a text its YAML.
        info: unit, range and description.
        low, high: the range, ends included; None where there is none.
        whole: whether the number is whole.
        choices: the values of a choice.
    """

    path: str
    kind: Literal["slider", "number", "choice", "switch", "text"]
    value: Any
    info: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def label(self) -> str:
        return self.path.rpartition(".")[2] if not self.path.endswith("categories.count") else "categories"

    @property
    def step(self) -> float:
        """The step of a slider."""
        if self.whole:
            return 1
        assert self.low is not None and self.high is not None
        return min(0.1, 10.0 ** (math.floor(math.log10(self.high - self.low)) - 2))

    def read(self, shown: Any) -> Any:
        """The plain value of what the control shows.

        Raises:
            ConfigError: it shows nothing, or no YAML.
        """
        if self.kind == "text":
            try:
                return parse_yaml(shown)
            except ConfigError as error:
                raise ConfigError(f"{self.path}: {error}") from None
        if shown is None:
            raise ConfigError(f"{self.path}: is missing")
        return int(shown) if self.whole and isinstance(shown, float) and shown.is_integer() else shown


@dataclass(frozen=True)
class Section:
    """Controls under a heading."""

    title: str
    controls: tuple[Control, ...]


def sections(recipe: Recipe) -> list[Section]:
    """All controls of a recipe: its generators' parameters, its canvas, its scene, and its numbers."""
    data = recipe.to_dict()
    found = []
    for number, part in enumerate(recipe.all_parts):
        prefix = f"parts.{number}." if recipe.parts else ""
        title = f"Part {number + 1}: {part.generator.name}" if recipe.parts else f"Parameters of {part.generator.name}"
        own = list(_controls(type(part.generator.params), f"{prefix}generator", data))
        if recipe.parts:
            own += _controls(type(part), prefix.rstrip("."), data, only=("instances", "share"))
            own += _controls(type(part.categories), f"{prefix}categories", data, only=("count",))
        found.append(Section(title, tuple(own)))
    if isinstance(recipe.scene, SceneSettings):
        found.append(Section("Scene", tuple(_controls(SceneSettings, "scene", data))))
    rest = [*_controls(Canvas, "canvas", data), *_controls(Recipe, "", data, only=("seed", "instances", "images"))]
    if not recipe.parts:
        rest += _controls(type(recipe.categories), "categories", data, only=("count",))
    if recipe.is_scene:
        rest += _controls(Recipe, "", data, only=("target",))
    return [*found, Section("Canvas, seed and numbers", tuple(rest))]


def change(recipe: Recipe, controls: Sequence[Control], shown: Sequence[Any]) -> dict[str, Any]:
    """A recipe's plain values with those of its controls in place.

    Numbers of categories and instances that are the defaults follow the other settings, as a generator's parameters may
    decide them.

    Raises:
        ConfigError: one line for each control that shows no value.
    """
    data, defaults = recipe.to_dict(), _default_numbers(recipe)
    problems: list[str] = []
    for control, value in zip(controls, shown, strict=True):
        try:
            new = control.read(value)
        except ConfigError as error:
            problems += error.problems
            continue
        *parents, last = control.path.split(".")
        node = _at(data, parents)
        if new == node[last] == defaults.get(control.path):
            del node[last]
        else:
            node[last] = new
    if problems:
        raise ConfigError(*problems)
    return data


def _default_numbers(recipe: Recipe) -> dict[str, Any]:
    """By their paths, the numbers of categories and instances that a recipe without them would have."""
    paths = []
    for number, part in enumerate(recipe.all_parts):
        if part.categories.folder is None:
            prefix = f"parts.{number}." if recipe.parts else ""
            paths += [f"{prefix}{name}" for name in ("categories.count", *([] if recipe.is_scene else ["instances"]))]
    data = recipe.to_dict()
    for path in paths:
        *parents, last = path.split(".")
        del _at(data, parents)[last]
    without = Recipe.from_dict(data).to_dict()
    return {path: _at(without, path.split(".")) for path in paths}


def _at(data: Any, keys: Sequence[str]) -> Any:
    """The value under a path of plain values."""
    for key in keys:
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


def problems_at(controls: Sequence[Control], problems: Sequence[str]) -> tuple[list[str], list[str]]:
    """Problems by the control that they concern, an empty text where there is none; and those of no control."""
    at, others = [""] * len(controls), []
    paths = [control.path for control in controls]
    for problem in problems:
        path, _, text = problem.partition(": ")
        # A problem of generator.base.0 stands at generator.base.
        near = [place for place, own in enumerate(paths) if path == own or path.startswith(f"{own}.")]
        if near:
            at[near[0]] = text
        else:
            others.append(problem.removeprefix(": "))
    return at, others


def _controls(
    model: type[BaseModel], path: str, data: dict[str, Any], only: Sequence[str] | None = None
) -> Iterator[Control]:
    """Controls of a model's fields that the plain values have."""
    node = _at(data, path.split(".") if path else [])
    for name, info in model.model_fields.items():
        if name in node and (only is None or name in only):
            yield _control(f"{path}.{name}".lstrip("."), info, node[name])


def _control(path: str, info: FieldInfo, value: Any) -> Control:
    kinds = _alternatives(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    low, high, range_text = _range(info)
    facts = [str(extra.get("unit", "")), range_text]
    about = (info.description or "") + (f" ({', '.join(filter(None, facts))})" if any(facts) else "")
    if kinds == [bool]:
        return Control(path, "switch", value, about)
    choices = tuple(choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind))
    if choices and all(get_origin(kind) is Literal or kind is type(None) for kind in kinds) and value is not None:
        return Control(path, "choice", value, about, choices=choices)
    if len(kinds) == 1 and kinds[0] in (int, float):
        whole = kinds[0] is int
        steps = None if low is None or high is None else high - low if whole else 0
        narrow = steps is not None and steps <= _WIDEST
        return Control(path, "slider" if narrow else "number", value, about, low, high, whole)
    if set(kinds) == {int, type(None)} and value is not None:
        return Control(path, "number", value, about, low, high, whole=True)
    return Control(path, "text", json.dumps(value, ensure_ascii=False), f"{about} (as YAML)".lstrip())


def _alternatives(annotation: Any) -> list[Any]:
    """The types of a union, or the only type."""
    return list(get_args(annotation)) if get_origin(annotation) in (Union, types.UnionType) else [annotation]


def _range(info: FieldInfo) -> tuple[float | None, float | None, str]:
    """The ends of a number's range that a control can show, and the range in words.

    An end that is not allowed itself (``gt``, ``lt``) is left to the check of the recipe.
    """
    bounds = {key: getattr(each, key) for each in info.metadata for key in _BOUNDS if hasattr(each, key)}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    return low, high, " ".join(f"{word} {bounds[key]:,}" for key, word in _BOUNDS.items() if key in bounds)
