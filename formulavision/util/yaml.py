"""YAML 1.2 with limits: no file takes more than seconds to read, and a bad one is refused in one line."""

from __future__ import annotations

import io
import math
import re
import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.parser import Parser
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver, implicit_resolvers

from formulavision.util.errors import ConfigError, one_line

__all__ = ["dump_yaml", "load_yaml", "parse_yaml"]

_BYTES = 1_000_000
_NODES = 100_000
_DEPTH = 100
_DIGITS = 30

_KINDS: dict[type, str] = {list: "a list", str: "text", type(None): "nothing", int: "a number", float: "a number"}
"""What a file holds in place of settings, in words."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that YAML can write as escapes, but that no name of a file and no file in UTF-8 can hold."""

_TAG = "tag:yaml.org,2002:"


class _CoreSchema(BaseResolver):
    """The core schema of YAML 1.2 (section 10.3.2): plain text that is null, true, false or a number; and merging."""

    processing_version = (1, 2)

    def __init__(self, version: Any = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loadumper if loader is None else loader)  # whatever version a file claims


for _name, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _CoreSchema.add_implicit_resolver_base(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))


class _BothSchemas(_CoreSchema):
    """Also plain text that YAML 1.1 does not read as text: it is written in quotes, since most readers follow 1.1."""


for _versions, _tag, _regexp, _first in implicit_resolvers:
    if (1, 1) in _versions:
        _BothSchemas.add_implicit_resolver_base(_tag, _regexp, _first)


class _Parser(Parser):
    """Refuses a text as soon as its values would be too large: events come before any value is built."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.nodes = 0
        self.sizes: dict[str, int] = {}
        """Number of nodes that an anchor stands for, with aliases expanded; 0 until the anchor's end is read."""
        self.open_nodes: list[tuple[str | None, int]] = []

    def check_event(self, *choices: Any) -> bool:
        self.read_event()
        return bool(super().check_event(*choices))

    def peek_event(self) -> Any:
        self.read_event()
        return super().peek_event()

    def get_event(self) -> Any:
        self.read_event()
        return super().get_event()

    def read_event(self) -> None:
        if self.current_event is None and self.state:
            event = self.current_event = self.state()
            if problem := self.problem(event):
                raise ConstructorError(None, None, problem, event.start_mark)

    def problem(self, event: Any) -> str | None:
        if isinstance(event, CollectionEndEvent):
            anchor, before = self.open_nodes.pop()
            if anchor is not None:
                self.sizes[anchor] = self.nodes - before
        elif isinstance(event, AliasEvent):
            size = self.sizes.get(event.anchor, 1)
            if size == 0:
                return f"the alias *{event.anchor} stands inside of what it names"
            self.nodes += size
        elif isinstance(event, ScalarEvent | CollectionStartEvent):
            self.nodes += 1
            if event.tag is not None:
                return f"the tag {event.tag} is not allowed: values are plain"
            if event.anchor in self.sizes:
                return f"the anchor &{event.anchor} stands there twice"
            if event.anchor is not None:
                self.sizes[event.anchor] = int(isinstance(event, ScalarEvent))
            if isinstance(event, CollectionStartEvent):
                self.open_nodes.append((event.anchor, self.nodes - 1))
            elif _NO_TEXT.search(event.value):
                return "text holds a character that no text has"
        if len(self.open_nodes) > _DEPTH:
            return f"is nested more than {_DEPTH} deep"
        if self.nodes > _NODES:
            return f"expands to more than {_NODES:,} values"
        return None


class _Constructor(SafeConstructor):
    """Builds plain values. Every key is text, ``1``, ``on`` and ``null`` too."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, MappingNode):
            self.flatten_mapping(node)
            for key, _ in node.value:
                if not isinstance(key, ScalarNode):
                    raise ConstructorError(None, None, "a key must be text", key.start_mark)
                key.tag = f"{_TAG}str"
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > _DIGITS:
            raise ConstructorError(None, None, f"a number has more than {_DIGITS} digits", node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: Any) -> float:
        value = float(super().construct_yaml_float(node))
        if not math.isfinite(value):
            raise ConstructorError(None, None, f"{node.value[:60]} is not a finite number", node.start_mark)
        return value


_Constructor.add_constructor(f"{_TAG}int", _Constructor.construct_yaml_int)
_Constructor.add_constructor(f"{_TAG}float", _Constructor.construct_yaml_float)


class _Representer(SafeRepresenter):
    def represent_float(self, data: Any) -> ScalarNode:
        node: ScalarNode = super().represent_float(data)
        if "." not in node.value:  # 1e-07, which YAML 1.1 takes for text
            node.value = node.value.replace("e", ".0e")
        return node

    def represent_str(self, data: str) -> ScalarNode:
        # Between other quotes U+0085 is a line break, which a reader takes for a space.
        node: ScalarNode = self.represent_scalar(f"{_TAG}str", data, style='"' if "\x85" in data else None)
        return node


_Representer.add_representer(float, _Representer.represent_float)
_Representer.add_representer(str, _Representer.represent_str)


def _yaml(resolver: type[BaseResolver]) -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Parser, yaml.Constructor, yaml.Representer = resolver, _Parser, _Constructor, _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def dump_yaml(data: Any) -> str:
    """Plain values as YAML, in their order; readers of YAML 1.1 and 1.2 read the same values."""
    text = io.StringIO()
    _yaml(_BothSchemas).dump(data, text)
    return text.getvalue()


def parse_yaml(text: str) -> Any:
    """Read YAML 1.2 as plain values: mappings with text as keys, lists, text, numbers, true, false, null.

    Raises:
        ConfigError: it is not YAML, is larger than 1 MB, is nested more than 100 deep, expands to more than 100,000
            values, or holds a key twice, a tag, an alias inside of what it names, or a number of more than 30 digits.
    """
    if len(text.encode("utf-8", "replace")) > _BYTES:
        raise ConfigError(f"is larger than {_BYTES:,} bytes: a configuration holds settings, not data")
    try:
        return _yaml(_CoreSchema).load(text)
    except ConfigError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = " ".join((error.problem or error.context or "").partition(" with value ")[0].split())
        raise ConfigError(f"is not YAML that can be used{where}: {problem[:200]}") from None
    except Exception as error:  # any error of a parser means that the text is wrong
        raise ConfigError(f"is not YAML: {one_line(error)[:200] or type(error).__name__}") from None


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is not a regular file, cannot be used (:func:`parse_yaml`), or holds
            something else than a mapping.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would wait, a device would never end
            raise ConfigError(f"{path}: is not a file" + (" but a folder" if path.is_dir() else ""))
        with path.open("rb") as file:
            text = file.read(_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"{path}: {reason}") from None
    try:
        data = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        held = _KINDS.get(type(data), "a value")
        raise ConfigError(f"{path}: must hold settings, NAME: VALUE, and holds {held}")
    return data
