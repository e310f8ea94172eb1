"""``formulavision bench`` names what it measured and what went wrong; its figures are positive and fit together."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import Discs
from typer.main import get_command
from typer.testing import CliRunner

from formulavision import Category, Generator, Recipe, find_categories
from formulavision.cli import app
from formulavision.data.bench import Figures, bench
from formulavision.generators.registry import Registered, plugins
from formulavision.recipes.category_files import write_folder

IFS = {"generator": {"name": "ifs", "dots": 1000, "fill_rate": 0.01}, "canvas": {"size": 32}}
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


@pytest.mark.usefixtures("wide")
def test_every_recipe_is_named_with_what_it_means_for_a_large_dataset(tmp_path: Path) -> None:
    files = [recipe_file(tmp_path / "fractals.yaml", IFS), recipe_file(tmp_path / "curves.yaml", BEZIER)]
    result = CliRunner().invoke(app, ["bench", *files, "--plugin", "perlin", "--seconds", "0.01"])
    assert result.exit_code == 0, result.output
    heading, *_ = (line for line in result.stdout.splitlines() if line.strip())
    assert heading.split()[-3:] == ["fractals", "curves", "perlin"]
    assert "1,000 x 1,000 images on" in result.stdout
    (sizes,) = (line for line in result.stdout.splitlines() if line.startswith("    size"))
    assert sizes.count("B") == 3


def test_many_recipes_fit_on_a_narrow_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulavision.util.console.STDOUT._width", 80)
    files = [recipe_file(tmp_path / f"recipe-{n}.yaml", BEZIER) for n in range(3)]
    result = CliRunner().invoke(app, ["bench", *files, "--seconds", "0.001"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("1,000 x 1,000 images") == 2
    assert all(f"recipe-{n}" in result.stdout for n in range(3))


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
    assert line.startswith(
        "not measured: 'raising' (broken 9.9) failed while drawing category 00000, instance 0: "
        f"ZeroDivisionError: no such picture ({__file__}, line "
    )
    assert next(line for line in lines if line.strip()).split()[-2:] == ["bezier", "perlin"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/absent/recipe.yaml"], "/absent/recipe.yaml: No such file or directory"),
        (["--plugin", "ifz"], "there is no generator 'ifz' (did you mean 'ifs'?)"),
        (["--plugin", "perlin", "--seconds", "0"], "seconds: 0 is not allowed: must be above 0"),
        (["--plugin", "perlin", "--seconds", "nan"], "seconds: nan is not allowed"),
        (["--plugin", "raising", "--seconds", "0.01"], "'raising' (broken 9.9) failed while drawing category 00000"),
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


@pytest.mark.parametrize("settings", [{}, PUBLISHED, {**PUBLISHED, "patch": "point"}], ids=["ours", "published", "few"])
def test_figures_are_positive_and_fit_together(settings: dict[str, str]) -> None:
    recipe = Recipe.from_dict({**IFS, "generator": {**IFS["generator"], **settings}, "categories": 3})
    steps: list[tuple[int, int]] = []
    (figures,) = bench([recipe], seconds=0.01, progress=lambda done, total: steps.append((done, total)))
    assert figures.recipe == recipe
    assert figures.categories_per_second is not None
    assert min(positive(figures)) > 0
    milliseconds = figures.draw_ms + figures.encode_ms + figures.write_ms
    assert figures.generate_seconds(1_000_000, 4) == pytest.approx(milliseconds * 250)
    assert 60 < figures.image_bytes < 32 * 32 + 400
    assert steps == [(done, 5) for done in range(6)]


def positive(figures: Figures) -> tuple[float, ...]:
    return (
        figures.categories_per_second or 1,
        figures.on_demand_ms,
        figures.draw_ms,
        figures.encode_ms,
        figures.write_ms,
        figures.read_ms,
        figures.image_bytes,
    )


def test_a_gpu_is_one_for_all_cores() -> None:
    cpu = Figures(Recipe.from_dict(BEZIER), "cpu", None, 9.0, 4.0, 5.0, 1.0, 1.0, 100.0)
    gpu = replace(cpu, device="NVIDIA Test")
    assert [cpu.generate_seconds(1000, cores) for cores in (1, 2, 10)] == [10.0, 5.0, 1.0]
    assert [gpu.generate_seconds(1000, cores) for cores in (1, 2, 10)] == [10.0, 5.0, 4.0]


@pytest.fixture
def gpu(cuda_is_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins().generators, "discs", Registered(Discs, "discs", "1"))
    monkeypatch.setattr("formulavision.recipes.device.device_name", lambda device: "NVIDIA Test")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("instances", [3, 1000])
def test_a_device_is_measured_by_what_it_draws(monkeypatch: pytest.MonkeyPatch, instances: int) -> None:
    monkeypatch.setattr(Discs, "render", None)
    monkeypatch.setattr(Discs, "max_instances", lambda self: instances)
    recipe = Recipe.from_dict({"generator": "discs", "instances": 2, "canvas": {"size": 32}})
    (figures,) = bench([recipe], seconds=0.01, device="cuda")
    assert figures.device == "NVIDIA Test"
    assert min(positive(figures)) > 0


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
    bench([Recipe.from_dict({"generator": "discs", "canvas": {"size": 32}})], seconds=0.01, device="cuda")
    assert max(len(apart) for apart in seen) == 256


@pytest.mark.usefixtures("wide", "gpu")
def test_a_table_says_what_drew_and_what_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins()["perlin"].generator, "device_renderer", Generator.device_renderer)
    result = CliRunner().invoke(
        app, ["bench", "--plugin", "perlin", "--plugin", "discs", "--seconds", "0.01", "--device", "cuda"]
    )
    assert result.exit_code == 0, result.output
    gpu, cpu = result.stdout.split("one core of this machine")[1:]
    assert gpu.split()[:7] == [",", "drawing", "on", "its", "NVIDIA", "Test", "discs"]
    assert "1,000 x 1,000 images on one GPU and " in gpu
    assert "at random, on the GPU" in gpu
    assert cpu.split()[0] == "perlin"
    assert "GPU" not in cpu.partition("perlin draws on the CPU only\n")[0]
    assert "no less than the one GPU takes" in cpu


def test_categories_from_a_folder_and_on_a_grid_are_not_searched(tmp_path: Path) -> None:
    write_folder(find_categories(Recipe.from_dict({**IFS, "categories": 18})), tmp_path)
    folder = Recipe.from_dict({**IFS, "categories": {"folder": str(tmp_path), "count": 17}})
    steps: list[int] = []
    measured = bench([folder, Recipe.from_dict(BEZIER)], seconds=0.01, progress=lambda done, total: steps.append(done))
    assert [figures.categories_per_second for figures in measured] == [None, None]
    assert all(min(positive(figures)) > 0 for figures in measured)
    assert steps == list(range(11))


def test_help_explains_every_option_shows_an_example_and_imports_nothing_heavy() -> None:
    command = get_command(app).commands["bench"]  # type: ignore[attr-defined]
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []
    assert "formulavision bench configs/" in command.help
    code = (
        "import sys\n"
        "from formulavision.cli import app\n"
        "app(['bench', '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'numba', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
