"""What the commands that draw say of scenes and of several parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cases import slow
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app

SCENES = ["--plugin", "ifs", "--categories", "3", "--size", "64", "--set", "generator.dots=1000",
          "--set", "scene.objects=[1,8]", "--set", "images=12"]  # fmt: skip
PARTS = """
parts:
  - {generator: {name: perlin}, categories: 2, instances: 3}
  - {generator: {name: bezier}, categories: 1, instances: 4}
canvas: {size: 16, padding: 0}
"""
COMPOSED = """
parts:
  - {generator: {name: perlin}, categories: 2, object: fill}
  - {generator: {name: bezier}, categories: 1}
scene: {objects: 2}
images: 30
canvas: {size: 64}
"""


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("format", "files"), [("imagefolder", ", 24 files"), *slow(("parquet", ""))])
def test_generate_says_what_scenes_it_draws(format: str, files: str, tmp_path: Path) -> None:
    first, second, *_ = said("generate", *SCENES, "--format", format, "--out", tmp_path / "store").splitlines()
    facts = "12 scenes of 64 x 64, gray, with 1 to 8 objects of 3 ifs categories"
    assert re.fullmatch(rf"{facts} \(recipe [0-9a-f]{{16}}{files}\)", first)
    assert second.startswith(f"{tmp_path / 'store'}: 12 scenes, ")
    verified = said("verify", tmp_path / "store", "--all")
    assert "12 of 12 images drawn again: all as the recipe says" in verified


def test_options_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    said("generate", "perlin", "--categories", 2, "--instances", 3, "--size", 16, "--out", store)
    for arguments, told in (
        (["verify", store, "--all", "--sample", 3], "--all: not together with --sample"),
        *(
            (["generate", "perlin", "--out", store, "--plan", *more], f"--plan: not together with {more[0]}")
            for more in (["--finish"], ["--overwrite"], ["--on", "ray"], ["--per-task", "cpus=1"])
        ),
        (["generate", "perlin", "--out", store, "--plan", "--png", "tiny"], "png"),
    ):
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 2 and told in result.stderr, result.output
    assert "0 of 6 images drawn again: all bytes as they were written" in said("verify", store, "--sample", 0)
    assert "6 of 6 images drawn again: all as the recipe says" in said("verify", store)


def test_generate_says_what_parts_it_draws(tmp_path: Path) -> None:
    (tmp_path / "parts.yaml").write_text(PARTS)
    first = said("generate", tmp_path / "parts.yaml", "--out", tmp_path / "store").splitlines()[0]
    assert first.startswith("perlin: 2 categories x 3 images; bezier: 1 category x 4 images of 16 x 16, gray (recipe")


def test_a_sheet_of_scenes_is_drawn(tmp_path: Path) -> None:
    arguments = [argument for argument in SCENES if argument not in ("--categories", "3")]
    told = said("preview", *arguments, "--set", "categories=3", "--out", tmp_path / "sheet.png")
    assert told.startswith(f"{tmp_path / 'sheet.png'}: ifs, recipe ")
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "setting", ["scene.objects=0", "scene.objects=70000", "scene.size=1.5", "target=class", "images=0", "scene=mine"]
)
def test_scenes_that_cannot_be_are_refused_in_one_line(setting: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["generate", *SCENES, "--set", setting, "--out", str(tmp_path / "store")])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_categories_of_several_parts_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "parts.yaml").write_text(PARTS)
    command = ["categories", str(tmp_path / "parts.yaml"), "--out", str(tmp_path / "cats")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: recipe: has parts of perlin, bezier: name one generator, whose folder it will be"
    ]
    assert not (tmp_path / "cats").exists()


def test_a_plan_of_several_parts_counts_the_images_of_all(tmp_path: Path) -> None:
    (tmp_path / "parts.yaml").write_text(PARTS)
    told = said("generate", tmp_path / "parts.yaml", "--out", tmp_path / "store", "--plan")
    assert "store: 1 piece of parquet, 10 images, about " in told
    assert not (tmp_path / "store").exists()


def test_bench_measures_scenes(tmp_path: Path) -> None:
    (tmp_path / "scenes.yaml").write_text(COMPOSED)
    cost = fv.bench(tmp_path / "scenes.yaml", seconds=0.01)
    assert min(cost.draw_ms, cost.store_ms, cost.image_bytes) > 0
    assert cost.categories_per_second is None
    assert cost.search_seconds(2) == 0
    table = said("bench", tmp_path / "scenes.yaml", "--seconds", "0.01")
    # On a slow machine numbers are wide, and a terminal of 80 columns breaks the names.
    assert "search, time: a store with" in table and "30" in table
