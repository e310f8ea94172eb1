"""Validated configurations: YAML files and ``--set`` options are checked by pydantic models."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import to_jsonable_python

from formulavision.util.errors import ConfigError
from formulavision.util.remote import folder_of
from formulavision.util.yaml import dump_yaml, load_yaml, parse_yaml

__all__ = [
    "WRITTEN_OUT",
    "Config",
    "apply_settings",
    "did_you_mean",
    "dump_yaml",
    "identity",
    "load_yaml",
    "parse",
    "parse_yaml",
    "user_path",
]

WRITTEN_OUT = "written out"
"""Context of :func:`parse` for settings that were written with every value, as in a store. A setting that is missing in
them did not exist at that time, so it gets its neutral value instead of its default."""

_NEUTRAL = "neutral"


class Config(BaseModel):
    """A frozen pydantic model. It refuses unknown keys, text in place of numbers, and numbers in place of booleans.

    A field that is added to published settings declares ``json_schema_extra={"neutral": value}``: the value that gives
    the behaviour from before the field existed. :func:`identity` leaves the field out at that value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    if not TYPE_CHECKING:

        def __init__(self, /, **settings: Any) -> None:
            """Validate the settings.

            Raises:
                ConfigError: as of :func:`parse`.
            """
            try:
                super().__init__(**settings)
            except ValidationError as error:
                raise _all_problems(error, type(self), settings, "") from None

        # pydantic calls an __init__ without this mark for nested models too, and passes it no context.
        __init__.__pydantic_base_init__ = True

    @model_validator(mode="before")
    @classmethod
    def _neutral_where_it_did_not_exist(cls, data: Any, info: ValidationInfo) -> Any:
        if info.context != WRITTEN_OUT or not isinstance(data, Mapping):
            return data
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        neutral = {name: e[_NEUTRAL] for name, e in extras.items() if isinstance(e, dict) and _NEUTRAL in e}
        return {**neutral, **data}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """The settings that differ from their defaults."""
        fields = type(self).model_fields
        own = ((name, value) for name, value in super().__repr_args__() if name in fields)
        return ((name, value) for name, value in own if value != fields[name].get_default(call_default_factory=True))

    @field_validator("*", mode="before")
    @classmethod
    def _no_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        _refuse_conversion(value, cls.model_fields[info.field_name].annotation)
        return value


def _refuse_conversion(value: Any, annotation: Any) -> None:
    """Refuse text and booleans in place of numbers, and numbers in place of booleans, in lists and mappings too."""
    kinds = list(_choices(annotation))
    numbers = [kind for kind in (int, float) if kind in kinds]
    literals = [literal for kind in kinds if get_origin(kind) is Literal for literal in get_args(kind)]
    equal = [literal for literal in literals if isinstance(value, str | int | float) and value == literal]
    if any(type(value) is type(literal) for literal in equal):
        return
    if isinstance(value, str | bool) and numbers and str not in kinds and bool not in kinds:
        number = "a valid integer" if int in numbers else "a valid number"
        raise ValueError(f"{_short(value)} is not allowed: must be {_one_of([number, *map(repr, literals)])}")
    if bool in kinds and all(kind in (bool, NoneType) for kind in kinds) and not isinstance(value, tuple(kinds)):
        raise ValueError(f"{_short(value)} is not allowed: must be true or false")
    also_allowed = bool in kinds if isinstance(value, bool) else bool(numbers)
    if not also_allowed and any(isinstance(literal, bool) != isinstance(value, bool) for literal in equal):  # 1 == True
        raise ValueError(f"{_short(value)} is not allowed: must be {_one_of(list(map(repr, literals)))}")
    held = [(get_origin(kind), get_args(kind)) for kind in kinds if get_origin(kind) in (list, tuple, dict)]
    for origin, inner in held if len(held) == 1 else ():
        if origin is dict and isinstance(value, Mapping):
            for item in value.values():
                _refuse_conversion(item, inner[1])
        elif origin is not dict and isinstance(value, list | tuple):
            fixed = origin is tuple and ... not in inner
            for item, own in zip(value, inner if fixed else itertools.repeat(inner[0]), strict=False):
                _refuse_conversion(item, own)


def _one_of(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if len(choices) > 1 else choices[0]


def _choices(annotation: Any) -> Iterator[Any]:
    """The types that a value may be of: of ``Annotated[int, ...] | None`` they are ``int`` and ``None``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for inner in get_args(annotation):
            yield from _choices(inner)
    else:
        yield annotation


Model = TypeVar("Model", bound=BaseModel)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"``, or ``""`` if no known word is similar."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def identity(settings: BaseModel) -> dict[str, Any]:
    """Plain values of settings for hashing, without the fields that have their neutral value.

    A field that is added with a neutral value so changes no existing hash. The rule also holds for models inside of
    models, lists and mappings.
    """
    result: dict[str, Any] = _identity(settings, settings.model_dump(mode="json"))
    return result


def _identity(value: Any, plain: Any) -> Any:
    """``plain``, the dump of ``value``, without neutral fields."""
    if isinstance(value, set | frozenset):
        return sorted(plain, key=repr)  # their order differs between processes
    if isinstance(value, Sequence) and isinstance(plain, list):
        return [_identity(*pair) for pair in zip(value, plain, strict=True)]
    if not isinstance(plain, dict):
        return plain
    if isinstance(value, Mapping):
        return {key: _identity(inner, plain[key]) for key, inner in zip(plain, value.values(), strict=True)}
    fields = getattr(type(value), "__pydantic_fields__", {})
    result = {}
    for key, full in plain.items():
        inner = getattr(value, key, None)
        short = _identity(inner, full)
        extra = fields[key].json_schema_extra if key in fields else None
        if not (isinstance(extra, dict) and _NEUTRAL in extra and to_jsonable_python(extra[_NEUTRAL]) in (full, short)):
            result[key] = short
    return result


def parse(model: type[Model], data: Any, path: str = "", *, context: str | None = None) -> Model:
    """Validate ``data`` as ``model``.

    Args:
        path: of ``data`` in the file that it comes from, for messages.
        context: ``WRITTEN_OUT``, or None where settings that are not given have their defaults.

    Raises:
        ConfigError: one line a problem, each with the path of the key, the value, and what is allowed.
    """
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        raise _all_problems(error, model, data, path) from None


def _all_problems(error: ValidationError, model: type[BaseModel], data: Any, path: str) -> ConfigError:
    problems = [problem for detail in error.errors() for problem in _describe(detail, model, data, path)]
    return ConfigError(*dict.fromkeys(problems))


def _describe(detail: Any, model: type[BaseModel], data: Any, path: str) -> list[str]:
    if detail["type"] == "default_factory_not_called":  # a default that depends on a field that is wrong
        return []
    keys = _keys_of(detail["loc"], data)
    where = ".".join(([path] if path else []) + keys)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        prefix = ".".join(([path] if path else []) + keys)
        return list((cause.under(prefix) if prefix else cause).problems)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, keys[:-1])
        hint = did_you_mean(keys[-1], known) or (f" (known: {', '.join(known)})" if known else "")
        return [f"{where}: there is no such setting{hint}"]
    if detail["type"] == "missing":
        return [f"{where}: is missing"]
    if detail["type"] == "too_short" and detail["ctx"]["min_length"] == 1:
        return [f"{where}: is empty"]
    if cause is not None:
        return [f"{where}: {cause}"]
    if detail["type"] == "model_type" and (known := _fields_at(model, keys)):
        return [f"{where}: {_short(detail['input'])} is not allowed: must be settings ({', '.join(known)})"]
    _, should, rule = detail["msg"].partition(" should ")  # "Input should be ...", "String should match pattern ..."
    rule = rule.partition(" or instance of")[0] if should else f"be {detail['msg']}"
    return [f"{where}: {_short(detail['input'])} is not allowed: must {rule}"]


def _keys_of(location: tuple[int | str, ...], data: Any) -> list[str]:
    """The user's keys in a location that pydantic reports; it also names branches of unions: ``int``, ``list[int]``."""
    keys = []
    for part in location:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(part, str) and ("[" in part or part in {"int", "str"}):
            continue
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
        keys.append(str(part))
    return keys


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more than 4,300 digits; nested too deep
        text = f"such a value ({type(value).__name__})"
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(annotation: Any, keys: list[str]) -> list[str]:
    """Names of the settings under ``keys`` of a model; none where there is no model, or one of several."""
    models = list(_models_in(annotation))
    if len(models) != 1:
        return []
    if keys and _is_number(keys[0]):  # one of a list
        return _fields_at(models[0], keys[1:])
    fields = models[0].model_fields
    if not keys:
        return list(fields)
    inner = fields[keys[0]].annotation if keys[0] in fields else None
    # In a mapping of models by name, the next key is such a name.
    named = any(get_origin(kind) is dict for kind in (inner, *get_args(inner)))
    return _fields_at(inner, keys[2 if named else 1 :])


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of: of ``dict[str, Arm]`` and of ``Arm | None`` it is ``Arm``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def apply_settings(data: Mapping[str, Any], settings: Iterable[str], *, null_removes: bool = False) -> dict[str, Any]:
    """A copy of ``data`` with each ``path.to.key=value`` set (the value is YAML). Keys of ``data`` may hold dots.

    Args:
        null_removes: ``path.to.key=null`` removes the key.

    Raises:
        ConfigError: a setting has no ``=``, its value holds a comment, its path leads through something that is not a
            mapping, it removes what is not there, or another setting replaces its value.
    """
    result = _copy(data)
    given: list[tuple[list[str], Any]] = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not (equals and all(path.split("."))):
            raise ConfigError(f"--set {setting}: must read path.to.key=value")
        try:
            value = parse_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"--set {setting}: the value {error}") from None
        if _has_comment(text, value):
            raise ConfigError(
                f"--set {setting}: '#' begins a comment: put text in quotes, as in --set '{path}=\"a #b\"'"
            )
        *parents, last = keys = _keys(path, result)
        node: Any = result
        for depth, key in enumerate(parents, 1):
            if isinstance(node, list):
                node = node[int(key)] if _is_number(key) and int(key) < len(node) else None
            else:
                node = node.setdefault(key, {})
            if node is None or not isinstance(node, dict | list):
                inner = ": {".join([*parents[depth:], last])
                whole = f"{'.'.join(parents[:depth])}={{..., {inner}: {text}{'}' * (len(parents) - depth + 1)}"
                raise ConfigError(
                    f"--set {setting}: '{key}' holds a plain value, not settings: give all of its settings, as in "
                    f"--set '{whole}'"
                )
        if isinstance(node, list):
            raise ConfigError(f"--set {setting}: one of a list has a number, as in 0.{last}")
        if value is None and null_removes:
            if last not in node:
                raise ConfigError(f"--set {setting}: null removes a setting, and this one is not there")
            del node[last]
        else:
            node[last] = value
            given.append((keys, _copy(value)))
    for keys, value in given:
        if not _is_at(keys, result, value):
            raise ConfigError(
                f"{'.'.join(keys)}: is given twice: {_short(value)} is replaced by another value: give one of them"
            )
    return result


def _keys(path: str, data: Any) -> list[str]:
    """The keys of a path, each the longest that is there: ``arms.ifs-0.7.recipe`` may lead to an arm ``ifs-0.7``."""
    keys: list[str] = []
    while path:
        known = data if isinstance(data, Mapping) else {}
        there = [k for k in known if isinstance(k, str) and f"{path}.".startswith(f"{k}.")]
        key = max(there, key=len, default=path.partition(".")[0])
        data = known.get(key)
        keys.append(key)
        path = path[len(key) + 1 :]
    return keys


def _has_comment(text: str, value: Any) -> bool:
    """Whether a part of the text is a comment: without it, the value is the same."""
    for begin in re.finditer("#", text):
        with contextlib.suppress(ConfigError):  # the # is in quotes, one of which is cut off
            if parse_yaml(text[: begin.start()]) == value:
                return True
    return False


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < 10


def _is_at(path: Sequence[str], node: Any, value: Any) -> bool:
    """Whether a value is at a path; mappings in it may have got more settings there."""
    try:
        for key in path:
            node = node[int(key) if isinstance(node, list) else key]
    except (LookupError, TypeError, ValueError):
        return False
    if isinstance(value, Mapping):
        return isinstance(node, Mapping) and all(_is_at([key], node, inner) for key, inner in value.items())
    if isinstance(value, list):
        same_length = isinstance(node, list) and len(node) == len(value)
        return same_length and all(_is_at([], *pair) for pair in zip(node, value, strict=True))
    return type(node) is type(value) and bool(node == value)


def user_path(text: str | Path) -> Path:
    """The path that a user wrote, or its ``file://`` URL; ``~`` is the home folder.

    Raises:
        ConfigError: there is no such user, the URL names no folder, or the system refuses to look at such a path: a
            name that is too long.
    """
    folder = folder_of(text)
    try:
        path = (folder if isinstance(folder, Path) else Path(text)).expanduser()
        path.exists()
    except RuntimeError:
        raise ConfigError(f"{text}: there is no such user's home folder") from None
    except OSError as error:
        raise ConfigError(f"{_short(str(text))}: cannot be a path here: {error.strerror or error}") from None
    return path


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
