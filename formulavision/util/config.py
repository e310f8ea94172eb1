"""Validated configuration: what every YAML file and option of the project is checked with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from formulavision.util.errors import ConfigError

__all__ = ["Config", "apply_settings", "did_you_mean", "dump_yaml", "load_yaml", "parse"]


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys, and does not turn words into numbers or numbers into truth."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_conversion(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        kinds = {annotation, *get_args(annotation)}
        wrong = isinstance(value, str | bool) and kinds & {int, float} and not kinds & {str, bool}
        if wrong or (annotation is bool and not isinstance(value, bool)):
            expected = (
                "true or false" if annotation is bool else "a valid integer" if int in kinds else "a valid number"
            )
            raise ValueError(f"{_short(value)} is not allowed: must be {expected}")
        return value


Model = TypeVar("Model", bound=BaseModel)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"``, or nothing where no known word is near."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def parse(model: type[Model], data: Any, path: str = "") -> Model:
    """Validate ``data`` as ``model``.

    Raises:
        ConfigError: one line a problem, each with the path of the key, the value, and what is allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems: list[str] = []
        for detail in error.errors():
            problems += _describe(detail, model, path)
        raise ConfigError(*dict.fromkeys(problems)) from None


def _describe(detail: Any, model: type[BaseModel], path: str) -> list[str]:
    # A union reports its branches as path parts such as `function-before[...]`; they are no keys of the user's.
    keys = [str(k) for k in detail["loc"] if not (isinstance(k, str) and ("[" in k or k in {"int", "str"}))]
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
    if cause is not None:
        return [f"{where}: {cause}"]
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return [f"{where}: {_short(detail['input'])} is not allowed: must be {message}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(model: type[BaseModel], keys: list[str]) -> list[str]:
    for key in keys:
        field = model.model_fields.get(key)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of YAML 1.2: ``1e-3`` is one, which PyYAML takes for text, as it has no point."""


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that the loader would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def dump_yaml(data: Any) -> str:
    """Plain values as YAML that :func:`load_yaml` reads as the same values, in the order that they have."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else than a mapping.
    """
    path = Path(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"{path}: {reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold a mapping of settings, holds {type(data).__name__}")
    return data


def apply_settings(data: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """``data`` with each ``path.to.key=value`` (the value is YAML) laid over it.

    Raises:
        ConfigError: a setting has no ``=``, or its path leads through something that is not a mapping.
    """
    result = _copy(data)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting}: must read path.to.key=value")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            raise ConfigError(f"--set {setting}: the value is not YAML") from None
        *parents, last = path.split(".")
        node = result
        for key in parents:
            node = node.setdefault(key, {})
            if node is None or not isinstance(node, dict):
                raise ConfigError(f"--set {setting}: '{key}' holds a plain value, not settings")
        node[last] = value
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value
