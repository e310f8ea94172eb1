"""What all commands have in common: ``--debug``, and options that are given once."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["App", "Group"]

_Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from (the traceback).")]


_WORDS = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "path": "PATH"}
"""By the name of a Python type, the word that help texts have for it."""


def _word_of_type(option: Any, ctx: Any) -> str:
    """``TEXT...`` for an option or argument that Typer calls ``<list[str]>``."""
    shown = type(option).display_type(option, ctx).strip("<>").removesuffix(" range").lower()
    one = shown.removeprefix("list[").rstrip("]")
    return _WORDS[one] + ("" if one == shown else "...")


class _Checked:
    """Refuses an option that is given twice, of which the first would be dropped in silence; passes ``--debug`` and
    ``--overwrite`` up, of which the end of the command speaks."""

    def make_parser(self, ctx: Any) -> Any:
        from formulavision.util.errors import ConfigError

        parser = super().make_parser(ctx)  # type: ignore[misc]
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for option, times in Counter(p for p in order if p.param_type_name == "option").items():
                if times > 1 and not (option.multiple or option.is_flag):
                    raise ConfigError(f"{option.opts[0]}: is given {times} times: it takes one value")
            return values, rest, order

        parser.parse_args = parse_once
        return parser

    def get_params(self, ctx: Any) -> list[Any]:
        """Flags are shown without a type: ``--overwrite`` takes no value. Other types are words, not Python's names."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for option in found:
            if getattr(option, "is_flag", False):
                option.metavar = ""
            elif hasattr(option, "display_type"):  # Typer before 0.29 shows words by itself
                option.display_type = functools.partial(_word_of_type, option)
        return found

    def invoke(self, ctx: Any) -> Any:
        for name in ("debug", "overwrite"):
            if ctx.params.get(name):
                ctx.find_root().params[name] = True
        return super().invoke(ctx)  # type: ignore[misc]


class Command(_Checked, TyperCommand):
    """A command."""


class Group(_Checked, TyperGroup):
    """A command with subcommands."""


class App(typer.Typer):
    """A Typer whose every command takes ``--debug``, before its name and after it."""

    def command(self, *args: Any, **keywords: Any) -> Callable[[Any], Any]:
        register = super().command(*args, cls=Command, **keywords)
        return lambda function: register(_with_debug(function))

    def callback(self, *args: Any, **keywords: Any) -> Callable[[Any], Any]:
        register = super().callback(*args, **keywords)
        return lambda function: register(_with_debug(function))


def _with_debug(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with one more option, which is meant for the group that it runs in."""

    @functools.wraps(function)
    def run(*args: Any, debug: bool, **keywords: Any) -> Any:
        return function(*args, **keywords)

    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Debug)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, "debug": _Debug}
    return run
