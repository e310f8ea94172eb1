"""The same words and defaults on the command line and in Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.recipes.recipe import Recipe
from formulavision.training.settings import TrainSettings

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "preview": fv.preview, "generate": fv.generate, "categories": fv.find_categories, "verify": fv.verify,
    "bench": fv.bench, "pretrain": fv.pretrain, "finetune": fv.finetune, "export": fv.export_model,
    "evaluate": fv.evaluate, "probe": fv.probe, "filters": fv.first_layer_filters, "grad-cam": fv.grad_cam_sheet,
    "per-class": fv.per_class_difference, "compare": fv.compare, "report": fv.report, "export-data": fv.export_data,
    "score": fv.score, "explore": fv.explore, "push": fv.push, "pull": fv.pull,
}  # fmt: skip
"""The function of each command."""

RECIPE = {"name", "plugin", "categories_from", "size", "seed", "instances", "categories"}
"""Options that make a recipe: ``recipe`` in Python, where they are settings of it."""

ONLY_COMMANDS: dict[str, dict[str, str]] = {
    "*": {"settings": "--set changes any setting by its path; Python has mappings", "debug": "shows a traceback"},
    "preview": dict.fromkeys(RECIPE - {"categories", "instances"}, "of the recipe"),
    "generate": dict.fromkeys(RECIPE, "of the recipe") | {"plan": "bench and plan_pieces"},
    "categories": dict.fromkeys(RECIPE | {"count"}, "of the recipe")
    | dict.fromkeys(("out", "overwrite"), "the command writes the files of what the function returns"),
    "verify": {"every": "--all: sample=None"},
    "bench": dict.fromkeys(RECIPE | {"names"}, "of the recipes: the command takes several"),
    "pretrain": dict.fromkeys(RECIPE | {"recipe"}, "of the recipe, which Python takes as data")
    | dict.fromkeys(("label_noise", "clusters"), "labels={'noise': 0.25}"),
    "finetune": {"train_per_class": "of the downstream"},
    "probe": {"model": "of settings"},
    "filters": dict.fromkeys(("out", "overwrite"), "the function returns the image"),
    "grad-cam": dict.fromkeys(("out", "overwrite"), "the function returns the image")
    | {"checkpoint": "repeated: the mapping checkpoints"},
    "per-class": dict.fromkeys(("out", "overwrite"), "the function returns the table"),
    "compare": {"downstream": "makes the configuration", "minutes": "makes the configuration", "plan": "print_plan"},
    "report": {"runs": "folders"},
    "score": {"names": "of recipes and stores: the command takes several"}
    | dict.fromkeys(("out", "csv", "overwrite"), "the command writes what the functions return"),
}  # fmt: skip
"""Options that no parameter has the name of: of all commands and of each, with the reason."""

ONLY_PYTHON: dict[str, dict[str, str]] = {
    "*": dict.fromkeys(("recipe", "settings", "data"), "made of options")
    | dict.fromkeys(("progress", "show_progress", "note"), "commands always show progress"),
    "categories": {"pools": "of generate --on"},
    "preview": {"workers": "one per core"},
    "pretrain": {"labels": "made of options"}
    | dict.fromkeys(("logger", "callbacks", "trainer_args", "transform"), "objects of Python"),
    "finetune": dict.fromkeys(("logger", "callbacks", "trainer_args", "transform"), "objects of Python"),
    "evaluate": dict.fromkeys(("batch_size", "workers"), "chosen by the machine") | {"model": "an object of Python"},
    "filters": {"smallest": "for the report, which leaves small filters out"},
    "probe": {"workers": "chosen by the machine"},
    "grad-cam": {"checkpoints": "--checkpoint, repeated"},
    "report": {"folders": "runs"},
}
"""Parameters that no option has the name of."""

OTHER_DEFAULTS: dict[tuple[str, str], str] = {
    ("generate", "workers"): "0 on the command line: one per core; worker processes of a script need a __main__ guard",
    ("categories", "workers"): "as of generate",
    ("pretrain", "logger"): "an option that may be repeated has no default; True is used",
    ("finetune", "logger"): "as of pretrain",
    ("compare", "out"): "commands that are tried out need a place",
}
"""Options whose default differs, with the reason."""


def options(command: str) -> dict[str, Any]:
    return {p.name: p for p in get_command(app).commands[command].params if p.name not in ("debug", "help")}  # type: ignore[attr-defined]


def parameters(command: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(FUNCTIONS[command]).parameters)


def test_every_command_is_compared() -> None:
    groups = {"plugins", "configs", "doctor"}  # which list things
    assert get_command(app).commands.keys() - groups == FUNCTIONS.keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", FUNCTIONS)
def test_options_have_the_names_of_parameters_or_settings(command: str) -> None:
    known = {*parameters(command), *ONLY_COMMANDS["*"], *ONLY_COMMANDS.get(command, {})}
    if "settings" in parameters(command):
        known |= TrainSettings.model_fields.keys()
    assert options(command).keys() - known == set()
    assert ONLY_COMMANDS.get(command, {}).keys() - options(command).keys() <= RECIPE, "not an option any more"


@pytest.mark.parametrize("command", FUNCTIONS)
def test_parameters_have_options(command: str) -> None:
    absent = parameters(command).keys() - options(command).keys()
    assert absent - ONLY_PYTHON["*"].keys() - ONLY_PYTHON.get(command, {}).keys() == set()


@pytest.mark.parametrize("command", FUNCTIONS)
def test_defaults_are_the_same(command: str) -> None:
    given, different = parameters(command), {}
    for name, option in options(command).items():
        if name not in given or (command, name) in OTHER_DEFAULTS or name in ONLY_COMMANDS["*"]:
            continue
        default = given[name].default
        expected = None if default is inspect.Parameter.empty else default
        if option.default != expected:
            different[name] = (option.default, expected)
    assert different == {}


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_options_of_training_show_the_defaults_of_its_settings(command: str) -> None:
    fields, shown = TrainSettings.model_fields, {}
    for name, option in options(command).items():
        if name in fields and name not in parameters(command) and option.show_default not in (True, False):
            shown[name] = option.show_default
    assert shown and shown == {name: str(getattr(TrainSettings(), name)) for name in shown}


def test_options_of_recipes_are_its_settings() -> None:
    assert RECIPE - {"name", "plugin", "categories_from", "size"} <= Recipe.model_fields.keys()
    assert "size" in fv.Canvas.model_fields


@pytest.mark.parametrize("command", FUNCTIONS)
def test_help_shows_a_value_in_the_words_of_the_command_line(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"TERMINAL_WIDTH": "200"}).output
    lines = {name: line for line in shown.splitlines() for name in line.split() if name.startswith("--")}
    assert "<bool>" not in lines["--debug"] and "<bool>" not in lines["--help"], "a flag takes no value"
    assert [option for option, line in lines.items() if "<list" in line] == [], "name one of the values"
