"""``formulavision bench`` names what it measured and what went wrong; its figures are positive and fit together."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import slow
from discs import Discs
from typer.main import get_command
from typer.testing import CliRunner

from formulavision import Category, Generator, Recipe, find_categories, generate
from formulavision.cli import app
from formulavision.data.bench import RecipeCost, _store_seconds, bench
from formulavision.generators.registry import Registered, plugins
from formulavision.recipes.category_files import write_folder

IFS: dict[str, Any] = {"generator": {"name": "ifs", "dots": 1000, "fill_rate": 0.01}, "canvas": {"size": 32}}
PUBLISHED = {"search": "published", "orbit": "published", "weights": "table"}
BEZIER = {"generator": "bezier", "categories": 2, "instances": 3, "canvas": {"size": 32, "channels": 3}}


class Raising(Generator):
    name = "raising"

    def category(self, index: int) -> list[float]:
        return [index]

    def render(self, category: Category, instance: int) -> None:  # type: ignore[override]
        raise ZeroDivisionError("no such picture")


def recipe_file(path: Path, data: dict[str, object]) -> str:
    path.write_text(Recipe.from_dict(data).to_yaml())
    return str(path)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulavision.util.console.STDOUT._width", 200)


def row(output: str, name: str) -> list[str]:
    (found,) = (line.split() for line in output.splitlines() if line.split()[:1] == [name] and line.strip()[-1] == "B")
    return found


@pytest.mark.usefixtures("wide")
def test_every_recipe_has_a_row_with_its_images_its_time_and_its_size(tmp_path: Path) -> None:
    files = [recipe_file(tmp_path / "fractals.yaml", IFS), recipe_file(tmp_path / "curves.yaml", BEZIER)]
    result = CliRunner().invoke(app, ["bench", *files, "--plugin", "perlin", "--seconds", "0.01"])
    assert result.exit_code == 0, result.output
    heading, *_ = (line for line in result.stdout.splitlines() if line.strip())
    assert heading.split() == ["recipe", "drawn", "on", "images", "pixels", "draw", "store", "search", "time", "size"]
    assert row(result.stdout, "curves")[1:4] == ["cpu", "6", "32"]
    for name in ("fractals", "curves", "perlin"):
        assert row(result.stdout, name)[-1] in ("B", "kB", "MB", "GB")


def test_the_table_fits_on_a_narrow_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulavision.util.console.STDOUT._width", 80)
    file = recipe_file(tmp_path / "a-recipe-with-a-name-of-its-own.yaml", BEZIER)
    result = CliRunner().invoke(app, ["bench", file, "--seconds", "0.001"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[:6])) <= 80
    assert "…" not in result.stdout


@pytest.mark.usefixtures("wide")
def test_generators_that_fail_are_named_in_one_line_and_the_others_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plugins()
    monkeypatch.setattr(found, "generators", {n: found.generators[n] for n in ("bezier", "perlin")})
    monkeypatch.setitem(found.generators, "raising", Registered(Raising, "broken", "9.9"))
    monkeypatch.setitem(found.problems, "absent (broken 9.9)", "there is no such module")
    result = CliRunner().invoke(app, ["bench", "--seconds", "0.01"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "not loaded absent (broken 9.9): there is no such module" in lines
    (line,) = (line for line in lines if "raising" in line)
    assert re.fullmatch(
        r"not measured: 'raising' \(broken 9.9\) failed while drawing category \d{5}, instance \d+: "
        rf"ZeroDivisionError: no such picture \({re.escape(__file__)}, line \d+\)",
        line,
    )
    assert row(result.stdout, "bezier") and row(result.stdout, "perlin")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/absent/recipe.yaml"], "/absent/recipe.yaml: No such file or directory"),
        (["--plugin", "ifz"], "there is no generator 'ifz' (did you mean 'ifs'?)"),
        (["--plugin", "perlin", "--seconds", "0"], "seconds: 0 is not allowed: must be above 0"),
        (["--plugin", "perlin", "--seconds", "nan"], "seconds: nan is not allowed"),
        (["--plugin", "raising", "--seconds", "0.01"], "'raising' (broken 9.9) failed while drawing category 0"),
    ],
)
def test_what_is_named_and_wrong_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.setitem(plugins().generators, "raising", Registered(Raising, "broken", "9.9"))
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.strip() and not line.startswith("bench "))
    assert line.startswith("error: ")
    assert told in line


@pytest.mark.parametrize(
    "settings", [{}, *slow({**PUBLISHED, "patch": "point"}, PUBLISHED)], ids=["ours", "few", "published"]
)
def test_measurements_are_positive_and_fit_together(settings: dict[str, str]) -> None:
    recipe = Recipe.from_dict({**IFS, "generator": {**IFS["generator"], **settings}, "categories": 3})
    cost = bench(recipe, seconds=0.01)
    assert cost.recipe == recipe
    assert cost.categories_per_second is not None
    assert min(positive(cost)) > 0
    assert cost.store_seconds(4) == pytest.approx(len(recipe) * cost.store_ms / 4000)
    alone = 3 / cost.categories_per_second
    assert cost.search_seconds(2) == pytest.approx(alone / 2 if settings == {} else alone)
    assert 60 < cost.image_bytes < 32 * 32 + 400


def positive(cost: RecipeCost) -> tuple[float, ...]:
    return (cost.categories_per_second or 1, cost.draw_ms, cost.store_ms, cost.image_bytes)


def test_several_parts_cost_what_their_images_cost_one_by_one() -> None:
    canvas = {"size": 32, "channels": 3}
    parts = [
        {"generator": IFS["generator"], "categories": 3, "instances": 8},
        {"generator": "bezier", "categories": 2, "instances": 4},
    ]
    cost = bench(Recipe.from_dict({"parts": parts, "canvas": canvas}), seconds=0.01)
    assert [part.recipe for part in cost.parts] == [Recipe.from_dict({**part, "canvas": canvas}) for part in parts]
    for name in ("draw_ms", "store_ms", "image_bytes"):
        fractals, curves = (getattr(part, name) for part in cost.parts)
        assert getattr(cost, name) == pytest.approx((24 * fractals + 8 * curves) / 32)
    assert cost.search_seconds(2) == sum(part.search_seconds(2) for part in cost.parts) > 0
    assert cost.store_seconds(1) == pytest.approx(32 * cost.store_ms / 1000)


@pytest.mark.slow
def test_it_takes_about_as_long_as_generate(tmp_path: Path) -> None:
    recipe = Recipe.from_dict({**IFS, "categories": 4, "instances": 250})
    cost = bench(recipe, seconds=1)
    started = time.perf_counter()
    store = generate(recipe, tmp_path / "store")
    took = time.perf_counter() - started
    # A busy machine measures both badly; a factor of 5 would be a mistake in what is counted.
    assert took / 5 < cost.store_seconds(1) < took * 5
    assert cost.image_bytes == pytest.approx(store.manifest.bytes / len(store), rel=0.2)


@pytest.mark.parametrize(
    ("least", "most", "per_image"),
    [(0.1, 4.1, 0.05), (0.1, 0.1, 0.1 / 84), (0.2, 0.1, 0.1 / 84), (0.1, 0.11, 0.11 / 84)],
    ids=["a large store", "no time is left", "less than none is left", "noise is left"],
)
def test_the_time_of_any_store_is_subtracted_unless_nearly_all_is_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, least: float, most: float, per_image: float
) -> None:
    def store(recipe: Recipe, root: Path, chosen: list[Category], instances: int, device: str) -> tuple[Any, ...]:
        return (least if instances == 1 else most), instances * len(chosen), 8400

    monkeypatch.setattr("formulavision.data.bench._store", store)
    recipe = Recipe.from_dict({**BEZIER, "categories": 4, "instances": 21})
    found = _store_seconds(recipe, tmp_path, find_categories(recipe), images=84, device="cpu")
    assert found == (pytest.approx(per_image), 100)


@pytest.mark.parametrize("shape", [{"categories": 3, "instances": 4}, {"categories": 1, "instances": 1}])
def test_a_small_store_takes_time(shape: dict[str, int]) -> None:
    recipe = Recipe.from_dict({"generator": "perlin", "canvas": {"size": 32}, **shape})
    assert bench(recipe, seconds=0.001).store_ms > 0.01


def test_a_gpu_is_one_for_all_cores() -> None:
    recipe = Recipe.from_dict({**BEZIER, "categories": 4, "instances": 250})
    cpu = RecipeCost(recipe, "cpu", None, draw_ms=4.0, store_ms=10.0, image_bytes=100.0)
    gpu = replace(cpu, device="NVIDIA Test")
    assert [cpu.store_seconds(cores) for cores in (1, 2, 10)] == [10.0, 5.0, 1.0]
    assert [gpu.store_seconds(cores) for cores in (1, 2, 10)] == [10.0, 5.0, 4.0]


@pytest.fixture
def gpu(cuda_is_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins().generators, "discs", Registered(Discs, "discs", "1"))
    monkeypatch.setattr("formulavision.data.bench.device_name", lambda device: "NVIDIA Test")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("instances", [3, 1000])
def test_a_device_is_measured_by_what_it_draws(monkeypatch: pytest.MonkeyPatch, instances: int) -> None:
    monkeypatch.setattr(Discs, "render", None)
    monkeypatch.setattr(Discs, "max_instances", lambda self: instances)
    recipe = Recipe.from_dict({"generator": "discs", "instances": 2, "canvas": {"size": 32}})
    cost = bench(recipe, seconds=0.01, device="cuda")
    assert cost.device == "NVIDIA Test"
    assert min(positive(cost)) > 0


@pytest.mark.usefixtures("gpu")
def test_on_demand_a_device_draws_256_images_that_share_no_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from formulavision.recipes.drawing import DeviceDrawer

    seen: list[set[tuple[int, int]]] = []
    draw = DeviceDrawer.draw_instances

    def watch(self: DeviceDrawer, labels: np.ndarray, instances: np.ndarray) -> object:
        seen.append(set(zip(labels.tolist(), (instances % 25).tolist(), strict=True)))
        return draw(self, labels, instances)

    monkeypatch.setattr(DeviceDrawer, "draw_instances", watch)
    monkeypatch.setattr(Discs, "shared_work", lambda self, instances: instances % 25)
    bench(Recipe.from_dict({"generator": "discs", "canvas": {"size": 32}}), seconds=0.01, device="cuda")
    assert max(len(apart) for apart in seen) == 256


@pytest.mark.usefixtures("wide", "gpu")
def test_a_table_says_what_drew_and_what_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins()["perlin"].generator, "device_renderer", Generator.device_renderer)
    result = CliRunner().invoke(
        app, ["bench", "--plugin", "perlin", "--plugin", "discs", "--seconds", "0.01", "--device", "cuda"]
    )
    assert result.exit_code == 0, result.output
    assert row(result.stdout, "discs")[1:3] == ["NVIDIA", "Test"]
    assert row(result.stdout, "perlin")[1] == "cpu"
    assert "perlin draws on the CPU only" in result.stdout


def test_categories_from_a_folder_and_on_a_grid_are_not_searched(tmp_path: Path) -> None:
    write_folder(find_categories(Recipe.from_dict({**IFS, "categories": 18})), tmp_path)
    folder = Recipe.from_dict({**IFS, "categories": {"folder": str(tmp_path), "count": 17}, "instances": 3})
    for recipe in (folder, Recipe.from_dict(BEZIER)):
        cost = bench(recipe, seconds=0.01)
        assert (cost.categories_per_second, cost.search_seconds(1)) == (None, 0)
        assert min(positive(cost)) > 0


def test_help_explains_every_option_shows_an_example_and_imports_nothing_heavy() -> None:
    command = get_command(app).commands["bench"]  # type: ignore[attr-defined]
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []
    assert "formulavision bench fractaldb-1k" in command.help
    code = (
        "import sys\n"
        "from formulavision.cli import app\n"
        "app(['bench', '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'numba', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
