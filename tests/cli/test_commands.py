"""What all commands have in common: options given once, ``--debug``, and one line for whatever goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from formulavision.cli import app
from formulavision.cli.options import as_settings
from formulavision.util.config import apply_settings


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(result: Any) -> list[str]:
    """What is told on standard error, but for what progress bars leave there."""
    return [line for line in result.stderr.splitlines() if line.strip()]


def options() -> Iterator[tuple[list[str], Any]]:
    """Every option of every command that takes one value, with the command's name."""
    commands = dict(get_command(app).commands)  # type: ignore[attr-defined]
    plugins = commands.pop("plugins")
    found = [([name], command) for name, command in commands.items()]
    found += [(["plugins", name], command) for name, command in plugins.commands.items()]
    for name, command in found:
        for option in command.params:
            if option.param_type_name == "option" and not option.is_flag and not option.multiple:
                yield name, option


@pytest.mark.parametrize(
    ("name", "option"), list(options()), ids=lambda part: getattr(part, "name", None) or " ".join(part)
)
def test_an_option_that_is_given_twice_is_refused(name: list[str], option: Any) -> None:
    flag = option.opts[0]
    for arguments in ([flag, 1, flag, 2], [f"{flag}=1", "--debug", flag, 1]):
        result = run(*name, *arguments)
        assert result.exit_code == 2
        assert lines(result) == [f"error: {flag}: is given 2 times: it takes one value"]


def test_an_option_of_several_values_may_be_repeated(tmp_path: Path) -> None:
    sheet = ["preview", "--plugin", "perlin", "--categories", 1, "--instances", 1, "--out", tmp_path / "sheet.png"]
    result = run(*sheet, "--set", "canvas.size=32", "--set", "canvas.padding=0", "--overwrite", "--overwrite")
    assert result.exit_code == 0, result.output


ABSENT = ["verify", "/absent"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--debug", *ABSENT],
        [*ABSENT, "--debug"],
        ["verify", "--debug", "/absent"],
        ["plugins", "show", "none", "--debug"],
        ["plugins", "--debug", "show", "none"],
        ["--debug", "plugins", "show", "none"],
    ],
)
def test_debug_shows_the_traceback_before_the_line(arguments: list[str]) -> None:
    shown = lines(run(*arguments))
    plain = run(*(argument for argument in arguments if argument != "--debug"))
    assert shown[0].startswith("Traceback (most recent call last):")
    assert shown[-1:] == lines(plain)
    assert plain.exit_code == 2


def test_every_command_takes_debug() -> None:
    def walk(name: str, command: Any) -> Iterator[str]:
        yield from () if "debug" in [option.name for option in command.params] else (name,)
        for inner, below in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {inner}", below)

    assert list(walk("formulavision", get_command(app))) == []


def commands_with_names(names: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    """Every command and group, with the words that call it."""
    yield names, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands_with_names([*names, name], below)


@pytest.mark.parametrize(
    ("names", "command"),
    [pytest.param(*found, id=" ".join(found[0])) for found in commands_with_names(["formulavision"], get_command(app))],
)
def test_help_shows_no_type_of_python(names: list[str], command: Any) -> None:
    shown = run(*names[1:], "--help").output
    context = command.context_class(command, info_name="formulavision")
    records = [option.get_help_record(context) for option in command.get_params(context)]  # of the documents' page
    for text in (shown, *(" ".join(record) for record in records if record)):
        assert re.findall(r"<[^>]*>|\b(?:str|int|float|bool|tuple|list\[.*?\]|None|\w*Path)\b", text) == []


class WithExitCode(Exception):
    """As of torch's processes, which is no answer of Typer's."""

    exit_code = -9


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("a\nb"), AssertionError(), RecursionError("deep"), WithExitCode()]
)
def test_a_bug_is_told_in_one_line_and_exits_with_1(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("formulavision.storage.verify", broken)
    result = run(*ABSENT)
    assert result.exit_code == 1
    (line,) = lines(result)
    assert line.startswith("error: this is a bug in FormulaVision (" + type(error).__name__)
    assert "--debug" in line
    assert "in broken" in run(*ABSENT, "--debug").stderr


@pytest.mark.parametrize("arguments", [["--version"], ["plugins", "--help"], ["--help"]])
def test_what_is_no_error_ends_with_0(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 0


@pytest.mark.parametrize("arguments", [["nothing"], ["verify"], ["verify", "--none", "x"], ["bench", "--seconds", "x"]])
def test_what_typer_refuses_ends_with_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "bug" not in result.stderr


# Settings


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``pretrain`` was called with, which runs nothing."""
    import formulavision.training

    seen: dict[str, Any] = {}
    monkeypatch.setattr(formulavision.training, "pretrain", lambda source, **given: seen.update(given, source=source))
    return seen


def test_pretrain_takes_the_settings_of_the_recipe_and_of_training(pretrained: dict[str, Any], tmp_path: Path) -> None:
    result = run(
        "pretrain", "--plugin", "perlin", "--set", "generator.grid=5", "--size", 48, "--categories", 9, "--set",
        "recipe.seed=7", "--set", "seed=3", "--set", "canvas.padding=2", "--set", "instances=4", "--set",
        "recipe.canvas.channels=3", "--set", "weight_decay=1e-3", "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe, training = pretrained["source"], pretrained["settings"]
    assert (recipe.generator.params.grid, recipe.canvas.size, recipe.num_categories, recipe.seed) == (5, 48, 9, 7)
    assert (recipe.canvas.padding, recipe.num_instances, recipe.canvas.channels) == (2, 4, 3)
    assert (training["seed"], training["weight_decay"]) == (3, 1e-3)


@pytest.mark.parametrize(
    ("out", "tuned"), [(".", "../{here}-digits"), ("..", "../../{above}-digits"), ("a/b", "a/b-digits")]
)
def test_pretrain_suggests_fine_tuning_beside_any_folder(
    pretrained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, tuned: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("pretrain", "--plugin", "perlin", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"--out {tuned.format(here=tmp_path.name, above=tmp_path.parent.name)}" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["generate", "perlin", "--categories", 4, "--set", "categories.count=5"],
            "categories.count: is given twice: 4",
        ),
        (["generate", "perlin", "--seed", 1, "--set", "seed=2"], "seed: is given twice: 1"),
        (["pretrain", "--plugin", "perlin", "--epochs", 2, "--set", "epochs=1"], "epochs: is given twice: 2"),
        (["finetune", "--downstream", "digits", "--model", "a", "--set", "model=b"], "model: is given twice: 'a'"),
        (
            ["finetune", "--downstream", "digits", "--train-per-class", 8, "--set", "downstream.train_per_class=4"],
            "downstream.train_per_class: is given twice: 8",
        ),
    ],
)
def test_a_setting_that_is_given_in_two_words_with_two_values_is_refused(
    arguments: list[object], told: str, pretrained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("formulavision.training.finetune", lambda *given, **more: None)
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert lines(result) == [f"error: {told} is replaced by another value: give one of them"]


def test_a_setting_may_be_given_in_two_words_with_one_value(pretrained: dict[str, Any], tmp_path: Path) -> None:
    assert run("pretrain", "--plugin", "perlin", "--lr", 0.1, "--set", "learning_rate=1e-1", "--model", "on", "--set",
               "model=on", "--out", tmp_path / "run").exit_code == 0  # fmt: skip
    assert pretrained["settings"] == {"learning_rate": 0.1, "model": "on"}


@pytest.mark.parametrize("command", ["generate", "categories", "preview", "pretrain", "bench"])
def test_a_recipe_is_set_by_the_same_words_in_every_command(command: str, tmp_path: Path) -> None:
    out = [] if command == "bench" else ["--out", tmp_path / "out"]
    result = run(command, "--plugin", "perlin", "--set", "generator.grid=0", *out)
    assert "generator.grid: 0 is not allowed" in result.stderr
    assert result.exit_code == 2
    options = [option.opts[0] for option in get_command(app).commands[command].params]  # type: ignore[attr-defined]
    assert "--set" in options
    assert command == "bench" or {"--categories", "--size", "--seed"} <= set(options)


@pytest.mark.parametrize("name", ["12", "1e3", "on", "a: b", "[x]", "#1", "a #1", "null", "\U0001f600"])
def test_a_path_is_text_whatever_it_looks_like(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert run("generate", "--plugin", "ifs", "--categories-from", name, "--out", "store").stderr == (
        f"error: categories.folder: {tmp_path / name}: holds no CSV file\n"
    )


@pytest.mark.parametrize(
    "text", ["", " a", "a\nb", "\u2028", "a\x85b", "\x7f", "\xa0", "'\"\\", "e\u0301", "\U000f0000", "1"]
)
def test_an_option_of_text_is_read_as_it_is(text: str) -> None:
    assert apply_settings({}, as_settings({"a.b": text, "c": [text, 1], "d": None})) == {
        "a": {"b": text},
        "c": [text, 1],
    }


@pytest.mark.parametrize(
    "command",
    [
        ["finetune", "--out", "run"],
        ["evaluate", "--checkpoint", "run"],
        ["probe", "--checkpoint", "run"],
        ["grad-cam", "--checkpoint", "a=run", "--out", "a.png"],
    ],
    ids=lambda command: command[0],
)
def test_a_dataset_is_set_by_the_same_words_in_every_command(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    def run_nothing(first: Any, downstream: Any, **given: Any) -> Any:
        seen.append(downstream)
        return SimpleNamespace(settings={"downstream": {}})

    for module, name in [
        ("training", "finetune"),
        *(("evaluation", n) for n in ("evaluate", "probe", "grad_cam_sheet")),
    ]:
        monkeypatch.setattr(f"formulavision.{module}.{name}", run_nothing)
    result = run(
        *command, "--downstream", "birds", "--set", "downstream.test_share=0.3", "--set", "downstream.download=true"
    )
    assert [(d.kind, str(d.root), d.test_share, d.download) for d in seen] == [("folder", "birds", 0.3, True)], result
    result = run(*command, "--downstream", "birds", "--set", "downstream.test_shaer=0.3")
    assert "downstream.test_shaer: there is no such setting (did you mean 'test_share'?)" in result.stderr
    result = run(*command, "--downstream", "birds", "--set", "test_share=0.3")
    # finetune hands its settings over as they are and checks them itself; a probe has that setting.
    assert result.exit_code == (0 if command[0] in ("finetune", "probe") else 2)
    assert run(*command, "--downstream", "brids").stderr.startswith(
        "error: downstream: 'brids': there is no such folder"
    )
