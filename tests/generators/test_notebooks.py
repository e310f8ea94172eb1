"""A notebook's cells: they run again, and long work shows how far it is."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cases import slow
from torch.utils.data import DataLoader

import formulavision
from formulavision import (
    Drawer,
    FormulaDataset,
    Recipe,
    contact_sheet,
    generate,
    plugins,
    pretrain,
    preview,
    register,
)
from formulavision.recipes import categories
from formulavision.util.errors import PluginError

CELL = """
import numpy as np
from formulavision import Generator

class {name}(Generator):
    name = "cell-test"
    def category(self, index):
        return [index + {shift}]
    def render(self, category, instance):
        return np.full((self.canvas.size, self.canvas.size), {level}, np.uint8)
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    plugins().generators.pop("cell-test", None)


def cell(module: str = "__main__", name: str = "Cell", level: int = 1, shift: int = 0) -> type:
    namespace: dict[str, Any] = {"__name__": module}
    exec(CELL.format(name=name, level=level, shift=shift), namespace)
    return namespace[name]


def recipe() -> Recipe:
    return Recipe.from_dict({"generator": "cell-test", "categories": 2, "instances": 3, "canvas": {"size": 16}})


def test_a_cell_that_runs_again_replaces_its_generator() -> None:
    register(cell(level=1))
    before = recipe()
    assert Drawer(before).draw(0)[0].max() == 1
    register(cell(level=2))
    assert Drawer(recipe()).draw(0)[0].max() == 2 == Drawer(before).draw(0)[0].max()
    register(cell(name="Renamed", level=3))  # the cell was edited
    assert Drawer(recipe()).draw(0)[0].max() == 3


def test_a_generator_in_colour_says_so_in_its_class(tmp_path: Path) -> None:
    code = CELL.format(name="Cell", level=1, shift=0).replace("canvas.size)", "canvas.size, 3)")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(code.replace('name = "cell-test"', 'name = "cell-test"\n    default_channels = 3'), namespace)
    register(namespace["Cell"])
    assert recipe().canvas.channels == 3 and Drawer(recipe()).draw(0)[0].shape == (16, 16, 3)
    stated = Recipe.from_dict({"generator": "cell-test", "canvas": {"channels": 1}})
    assert stated.canvas.channels == 1 and Recipe.from_dict(stated.to_dict()).id == stated.id
    assert Recipe.from_dict({"generator": "cell-test"}).id != stated.id
    assert generate(recipe(), tmp_path / "store").read(0).shape == (16, 16, 3)


def test_a_module_that_is_loaded_again_replaces_its_own_class_only() -> None:
    register(cell("my_module"))
    register(cell("my_module", level=2))
    for other in (cell("my_module", name="Other"), cell("another_module"), cell()):
        with pytest.raises(PluginError, match="the name 'cell-test' is taken by this process"):
            register(other)
    assert Drawer(recipe()).draw(0)[0].max() == 2


def test_a_cell_does_not_replace_what_is_installed() -> None:
    impostor = cell()
    impostor.name = "perlin"  # type: ignore[attr-defined]
    with pytest.raises(PluginError, match="the name 'perlin' is taken by formulavision"):
        register(impostor)


@pytest.mark.parametrize(("categories", "instances"), [(2, 2500), *slow((1, 5000))])
def test_workers_that_do_not_know_the_generator_say_so_in_one_line(
    tmp_path: Path, categories: int, instances: int
) -> None:
    code = (
        "from formulavision import Recipe, generate, register\n"
        f"{CELL.format(name='Cell', level=1, shift=0)}\n"
        "register(Cell)\n"
        f"recipe = {{'generator': 'cell-test', 'categories': {categories}, 'instances': {instances}}}\n"
        "recipe = Recipe.from_dict({**recipe, 'canvas': {'size': 16}})\n"
        "try:\n"
        f"    generate(recipe, {str(tmp_path / 'store')!r}, workers=2)\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "there is no generator 'cell-test' in a worker process" in done.stdout and "workers=1" in done.stdout
    assert done.stderr == ""


def test_categories_of_a_cell_are_searched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categories, "_CACHE_WORTH_S", -1)
    for shift in (1, 2):
        register(cell(shift=shift))
        assert Drawer(recipe()).categories[0].parameters.tolist() == [[shift]]


class ZMQInteractiveShell:
    """IPython's class of the shell of a notebook, by whose name Rich knows one."""


class Output(contextlib.AbstractContextManager["Output"]):
    """ipywidgets' widget in which Rich shows progress."""

    def __exit__(self, *error: object) -> None:
        pass

    def clear_output(self, wait: bool) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that a notebook displays, as text, with stand-ins for IPython and ipywidgets."""
    importlib.import_module("formulavision.training.fit")  # whose libraries ask IPython more than it can tell
    texts: list[str] = []

    def display(thing: Any) -> None:
        texts.append("" if isinstance(thing, Output) else thing._repr_mimebundle_([], [])["text/plain"])

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    for name, content in (
        ("IPython", {}),
        ("IPython.display", {"display": display}),
        ("ipywidgets", {"Output": Output}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return texts


def test_progress_is_shown_in_a_notebook(tmp_path: Path, shown: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    register(cell())
    generate(recipe(), tmp_path / "store")
    assert any("images" in text and "6/6" in text for text in shown)
    shown.clear()
    preview(recipe(), tmp_path / "sheet.png")
    assert any("categories" in text and "2/2" in text for text in shown)
    shown.clear()
    settings = {"model": "test_resnet", "epochs": 1, "batch_size": 4, "crop": 32, "milestones": [], "workers": 0}
    pretrain(recipe(), out=tmp_path / "run", settings=settings)
    told = "\n".join(shown)
    assert "" in shown and "epoch 1  loss" in told, "a bar, and a line for each epoch"
    assert "next:" not in told
    assert capfd.readouterr() == ("", "")


def test_only_commands_suggest_the_next_command() -> None:
    package = Path(formulavision.__file__).parent
    hints = [path for path in package.rglob("*.py") if "next: " in path.read_text() and path.parent.name != "cli"]
    assert hints == []


def test_cells_of_a_whole_notebook_run_twice(tmp_path: Path) -> None:
    """Definition, look, dataset in a loop with workers, store, training."""
    settings = {"model": "test_resnet", "epochs": 1, "batch_size": 4, "crop": 32, "milestones": [], "workers": 0}
    for level in (1, 2):
        register(cell(level=level))
        contact_sheet(recipe())
        data = FormulaDataset(recipe())
        images = [
            image for batch, _ in DataLoader(data, num_workers=1, multiprocessing_context="fork") for image in batch
        ]
        assert {int(image.max()) for image in images} == {level}
        assert len(generate(recipe(), tmp_path / "store")) == 6
        run = pretrain(recipe(), out=tmp_path / "run", settings=settings, resume=True, show_progress=False)
        assert run.kind == "pretrain"


@pytest.mark.parametrize("watched", [True, False])
def test_progress_is_shown_where_somebody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    register(cell())
    errors = io.StringIO()
    errors.isatty = lambda: watched  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", errors)
    generate(recipe(), tmp_path / "store")
    assert ("images" in errors.getvalue()) == watched
    preview(recipe(), tmp_path / "sheet.png")
    assert ("categories" in errors.getvalue()) == watched
    if not watched:
        assert errors.getvalue() == ""
