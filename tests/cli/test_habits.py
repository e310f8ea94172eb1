"""What users type without looking it up: short options, names for files, configs that ship; suggested commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import slow
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.cli.plugins import range_text
from formulavision.recipes.category_files import read_folder
from formulavision.util.shipped import shipped_configs

COMMANDS = ("generate", "categories", "preview", "verify", "export-data", "bench", "plugins", "configs", "pretrain",
            "finetune", "export", "evaluate", "probe", "filters", "grad-cam", "per-class", "compare",
            "report", "score")  # fmt: skip
TINY = ["--categories", "3", "--instances", "4", "--size", "32"]
CONFIGS = Path(__file__).parents[2] / "configs"


def run(*arguments: object, status: int = 0) -> str:
    """A command's output, on one line where it was wrapped."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output


def suggested(output: str) -> list[list[str]]:
    """The commands that an output suggests, as words."""
    return [shlex.split(line)[1:] for line in re.findall(r"^(?:next:| {5}) (formulavision .*)$", output, re.MULTILINE)]


@pytest.mark.parametrize(
    "command", [[], *([command] for command in COMMANDS), ["plugins", "show"], ["configs", "copy"]]
)
def test_every_command_explains_itself_with_h(command: list[str]) -> None:
    assert run(*command, "-h") == run(*command, "--help")


def test_the_version_has_a_short_form() -> None:
    assert run("-V") == run("--version") == f"{fv.__version__}\n"


def test_a_shell_completes_commands() -> None:
    environment = {**os.environ, "_FORMULAVISION_COMPLETE": "complete_bash", "COMP_WORDS": "formulavision gen",
                   "COMP_CWORD": "1"}  # fmt: skip
    code = "import sys; sys.argv[0] = 'formulavision'; from formulavision.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["generate"], "")


# Recipes by name -----------------------------------------------------------------------------------------------------


def test_a_generator_is_named_with_and_without_its_option(tmp_path: Path) -> None:
    run("generate", "perlin", *TINY, "-o", tmp_path / "named")
    run("generate", "--plugin", "perlin", *TINY, "--out", tmp_path / "option")
    assert fv.Store(tmp_path / "named").recipe == fv.Store(tmp_path / "option").recipe


@pytest.mark.parametrize("name", [*slow("fractaldb-1k"), "bezier-1024", "perlin-1296"])
def test_a_recipe_that_ships_is_known_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = run("categories", name, "--categories", "2", "-o", "cats")
    assert "cats: 2 categories" in out
    assert sorted(path.stem for path in (tmp_path / "cats").glob("*.csv")) == ["00000", "00001"]


def test_a_file_comes_before_a_generator_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ifs").write_text("generator: perlin\ncategories: 2\ninstances: 2\ncanvas: {size: 16, padding: 0}\n")
    assert "perlin: 2 categories" in run("generate", "ifs", "-o", "store")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["generate", "perln", "-o", "x"], "and no generator of this name (did you mean 'perlin'?)"),
        (["generate", "-o", "x"], "give one recipe: the name of a generator"),
        (["generate", "ifs", "--plugin", "ifs", "-o", "x"], "give one recipe: the name of a generator"),
        (["generate", str(CONFIGS / "quickstart.yaml"), "-o", "x"], "is a comparison, not a recipe"),
        (["generate", "quickstart", "-o", "x"], "is a comparison, not a recipe: formulavision compare"),
        (["compare", str(CONFIGS / "fractaldb-1k.yaml")], "is a recipe, not a comparison: formulavision generate"),
        (["compare", "fractaldb-1k"], "is a recipe, not a comparison: formulavision generate"),
        (["pretrain", "--recipe", "quickstart", "--out", "x"], "is a comparison, not a recipe"),
        (["preview", "ifs", "-o", "x.jpg"], "x.jpg: pictures are written as PNG: name it x.png"),
        (["compare", "table-9"], "no such file, and no comparison of this name (did you mean 'paper/table-9'?)"),
        (["compare", "quickstrat"], "no such file, and no comparison of this name (did you mean 'quickstart'?)"),
        (["compare", "perlin"], "perlin: is a generator, not a comparison: formulavision preview perlin --out FILE"),
        (["pretrain", "--out", "nope", "--resume"], "resume: nope: holds no run"),
        (["finetune", "--out", "nope", "--resume"], "resume: nope: holds no run"),
        (["preview", "ifs", "-o", "x.csv"], "pictures are written as PNG: name it x.png"),
        (["preview", "ifs", "-o", "x.TIFF"], "pictures are written as PNG: name it x.png"),
        (["filters", "--checkpoint", "nowhere", "-o", "x.pdf"], "pictures are written as PNG: name it x.png"),
        (["configs", "copy", "quickstrat"], "quickstrat: there is no config of this name (did you mean 'quickstart'?)"),
        (["configs", "copy", "1p-frac", "field/1p-frac"], "another one of these configs is named 1p-frac.yaml"),
        (["configs", "copy", "quickstart", "-o", "a.yaml"], "--out a.yaml: names a folder, not a file"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_one_line(
    command: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = run(*command, status=2).strip()
    assert told in output and len(output.splitlines()) == 1 and len(output) < 300 + len(str(CONFIGS)) * 2
    assert not list(tmp_path.iterdir())


def test_fewer_than_no_workers_are_refused(tmp_path: Path) -> None:
    out = run("generate", "perlin", *TINY, "--workers", "-3", "-o", str(tmp_path / "x"), status=2)
    assert "error: --workers -3: must be 0 (one per core) or more" in out and not (tmp_path / "x").exists()


def test_the_options_of_a_recipe_are_those_of_every_command_that_takes_one(tmp_path: Path) -> None:
    out = run("bench", "perlin", *TINY, "--seconds", "0.01")
    assert re.search(r" 12 +32 +[0-9.]+ ms ", out)
    run("preview", "bezier", "--size", "24", "--set", "generator.grid=2", "-o", tmp_path / "sheet.png")


# Configs that ship ---------------------------------------------------------------------------------------------------


def test_every_config_of_the_repository_ships_and_is_listed() -> None:
    names = {path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert set(shipped_configs()) == names and "paper/table-9" in names
    listed = run("configs")
    assert all(name in listed for name in names)


def test_a_copied_config_reads_as_the_one_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formulavision.comparison import ComparisonSettings

    monkeypatch.chdir(tmp_path)
    run("configs", "copy", "quickstart", "fractaldb-1k", "paper/table-6", "-o", "mine")
    assert sorted(path.name for path in Path("mine").iterdir()) == [
        "fractaldb-1k.yaml", "imagenet-100.txt", "places-30.txt", "quickstart.yaml", "table-6.yaml"]  # fmt: skip
    assert ComparisonSettings.load("mine/quickstart.yaml") == ComparisonSettings.load("quickstart")
    assert fv.Recipe.load("mine/fractaldb-1k.yaml") == fv.Recipe.load(CONFIGS / "fractaldb-1k.yaml")
    Path("mine/quickstart.yaml").write_text("changed")
    assert "exists already" in run("configs", "copy", "quickstart", "-o", "mine", status=2)
    assert Path("mine/quickstart.yaml").read_text() == "changed"


# Suggested commands --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_suggested_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verify, pretrain = suggested(run("generate", "perlin", *TINY, "-o", "my data"))
    assert "all as the recipe says" in run(*verify)
    assert pretrain[:3] == ["pretrain", "--data", "my data"] and pretrain[5:7] == ["--crop", "32"]
    small = ["--epochs", "1", "--batch-size", "4", "--model", "test_resnet", "--set", "device=cpu"]
    with_small_model = [word for word in pretrain if word not in ("--model", "resnet18")]
    (finetune,) = suggested(run(*with_small_model, *small))
    (evaluate,) = suggested(run(*finetune, "--epochs", "1", "--train-per-class", "2", "--set", "device=cpu"))
    assert "top-1" in run(*evaluate)


def test_suggested_categories_are_drawn_with_the_settings_that_they_were_found_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "generator.search=published", "--set", "generator.max_transformations=7", "--size", "64"]
    (generate,) = suggested(run("categories", "ifs", "--categories", "2", *settings, "-o", "cats"))
    run(*generate, "--instances", "1")
    drawn = fv.Store(Path("data/cats")).recipe
    assert drawn.build().params.model_dump()["search"] == "published" and drawn.canvas.size == 64
    generator = drawn.build()
    for found, stored in zip(read_folder(Path("cats"), generator).values(),
                             read_folder(Path("data/cats"), generator).values(), strict=True):  # fmt: skip
        np.testing.assert_array_equal(found, stored)


def test_the_library_suggests_no_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"generator": "perlin", "categories": 2, "instances": 4, "canvas": {"size": 16, "padding": 0}}
    fv.pretrain(recipe, out=tmp_path / "run", settings={
        "model": "test_resnet", "epochs": 1, "batch_size": 4, "crop": 16, "resize": 16, "device": "cpu"})  # fmt: skip
    told = capsys.readouterr().out
    assert "accuracy" in told and "formulavision " not in told


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"minimum": 2.0, "maximum": 100.0}, "2 to 100"),
        ({"exclusiveMinimum": 0, "maximum": 0.5}, "0 to 0.5"),
        ({"minimum": 0, "maximum": 2**64 - 1}, "0 to 18446744073709551615"),
        ({"exclusiveMaximum": 1.0}, "to 1"),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2**32}, "1 to 4294967295"),
        ({"minimum": 1e-6}, "from 1e-06"),
        ({}, ""),
    ],
)
def test_the_limits_of_a_number_are_told_alike_whatever_pydantic_gives(schema: dict[str, Any], told: str) -> None:
    assert range_text(schema) == told
