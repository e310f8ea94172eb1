"""Whatever a plugin's code does, it ends in one line that names the plugin, what it was doing, and where."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from pydantic import Field

from formulavision import Drawer, Generator, Params, Recipe, find_categories, generate, plugins, register
from formulavision.recipes.drawing import DeviceDrawer
from formulavision.util.errors import FormulaVisionError, PluginError, one_line


class Wrong(Generator):
    """Draws well; the tests take over one method at a time."""

    name = "wrong"

    def category(self, index: int) -> list[float]:
        return [index]

    def render(self, category: Any, instance: int) -> Any:
        return np.full((self.canvas.size, self.canvas.size), instance, np.uint8)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    plugins().add(Wrong)
    yield
    plugins().generators.pop("wrong")


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict(
        {"generator": "wrong", "categories": 2, "instances": 10, "canvas": {"size": 16, "padding": 0}, **changes}
    )


LEAVES: dict[str, Callable[[], object]] = {
    "SystemExit: 0": lambda: sys.exit(0),
    "SystemExit: bye": lambda: sys.exit("bye"),
    "GeneratorExit": lambda: (_ for _ in ()).throw(GeneratorExit),
    "ZeroDivisionError: division by zero": lambda: 1 / 0,
    "RecursionError: maximum recursion depth exceeded": lambda: recurse(),
    "MemoryError": lambda: (_ for _ in ()).throw(MemoryError),
}
METHODS = {
    "__init__": "in __init__()",
    "max_categories": "in max_categories()",
    "default_categories": "in default_categories()",
    "max_instances": "in max_instances()",
    "categories_are_independent": "in categories_are_independent()",
    "categories": "while finding categories",
    "category": "while finding category 0",
    "shared_work": "while sharing work",
    "render": "while drawing category 00000, instance 0",
    "render_batch": "while drawing category 00000, instance 0",
    "instance_name": "in instance_name()",
    "device_renderer": "while preparing to draw on cpu",
}


def recurse() -> None:
    recurse()


def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's categories come out of ``categories()`` one after the other."""
    monkeypatch.setattr(Wrong, "categories_are_independent", lambda self: False)


def use(tmp_path: Path, method: str) -> None:
    data = recipe() if method != "default_categories" else recipe(categories={})
    if method == "device_renderer":
        DeviceDrawer(Drawer(data), torch.device("cpu"))
    generate(data, tmp_path / "store")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("raised", ["SystemExit: 0", "ZeroDivisionError: division by zero"])
def test_what_a_method_raises_is_told_with_method_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, raised: str
) -> None:
    def fail(*arguments: object) -> object:
        return LEAVES[raised]()

    monkeypatch.setattr(Wrong, method, fail)
    if method == "categories":
        in_order(monkeypatch)
    with pytest.raises(PluginError) as caught:
        use(tmp_path, method)
    line = str(caught.value)
    assert line.startswith(f"'wrong' (this process) failed {METHODS[method]}: {raised} ("), line
    assert __file__ in line and "\n" not in line
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize("raised", LEAVES)
def test_whatever_is_raised_is_the_plugins(monkeypatch: pytest.MonkeyPatch, raised: str) -> None:
    monkeypatch.setattr(Wrong, "render", lambda *arguments: LEAVES[raised]())
    with pytest.raises(PluginError, match=raised):
        Drawer(recipe()).draw(0)


def test_an_error_that_cannot_be_told_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit(0)

    def fail(*arguments: object) -> None:
        raise Mute

    monkeypatch.setattr(Wrong, "render", fail)
    with pytest.raises(PluginError, match=r"Mute: <exception str\(\) failed>"):
        Drawer(recipe()).draw(0)


@pytest.mark.parametrize("raised", [ZeroDivisionError, SystemExit, FormulaVisionError])
def test_an_exception_that_cannot_be_printed_has_no_message(raised: type[BaseException]) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise raised

    assert one_line(Mute()) == ""


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("name", [5, None, b"x"]),
        ("version", ["1", 0, -1, 1.5, True, None]),
        ("contract", ["1", 0, None]),
        ("columns", [5, None, "ab", (1, 2), {"a": 1}]),
        ("category_params", [5, "grid", frozenset([1])]),
        ("default_instances", ["9", 0, True, 2.5]),
        ("default_channels", [2, "3", None, 4]),
    ],
)
def test_a_class_attribute_of_a_wrong_type_is_told_when_it_is_registered(attribute: str, values: list[object]) -> None:
    for value in values:
        wrong = type("Wrong", (Generator,), {"name": "wrong-attribute", attribute: value})
        with pytest.raises(PluginError, match=f"Wrong: its {attribute} is .*, must be "):
            register(wrong)
    assert "wrong-attribute" not in plugins().generators


def test_category_params_that_are_no_parameters_are_refused() -> None:
    """Settings that differ in the parameter that was meant would have the same categories."""

    class Sized(Params):
        largest: int = Field(3, description="largest side, pixels")

    for names in ({"largset"}, ("largest", "seed")):
        wrong = type("Wrong", (Generator,), {"name": "wrong-names", "Params": Sized, "category_params": names})
        with pytest.raises(PluginError, match=r"its category_params name '(largset|seed)', and there is no such param"):
            register(wrong)


@pytest.mark.parametrize("name", ["name", "version"])
def test_parameters_that_recipes_could_not_tell_from_the_generators_own_keys_are_refused(name: str) -> None:
    fields = {name: Field(3, description="a number"), "__annotations__": {name: int}, "__module__": __name__}
    wrong = type("Wrong", (Generator,), {"name": "wrong-parameter", "Params": type("Keyed", (Params,), fields)})
    with pytest.raises(PluginError) as caught:
        register(wrong)
    assert str(caught.value) == (
        f"Wrong: its parameter '{name}' needs another name: in recipes, generator.{name} is the {name} of the generator"
    )
    assert "wrong-parameter" not in plugins().generators


def test_an_interrupt_stays_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    for method in ("render", "category", "max_categories"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Wrong, method, interrupted)
            Drawer(recipe()).draw(0)


def test_a_parameters_check_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Checked(Params):
        def model_post_init(self, context: Any) -> None:
            sys.exit(0)

    monkeypatch.setattr(Wrong, "Params", Checked)
    with pytest.raises(PluginError, match="failed while its parameters were checked: SystemExit: 0"):
        recipe()


# Which image


def fails_at(instance: int) -> Callable[..., object]:
    def render(self: Wrong, category: Any, drawn: int) -> object:
        if (category.index, drawn) == (1, instance):
            raise ValueError("no such picture")
        return np.zeros((16, 16), np.uint8)

    return render


def test_of_a_batch_the_image_that_fails_is_named_with_the_innermost_line_of_the_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    render = fails_at(7)
    monkeypatch.setattr(Wrong, "render", render)
    line = inspect.getsourcelines(fails_at)[1] + 3
    with pytest.raises(PluginError) as caught:
        Drawer(recipe()).draw_batch(range(20))
    assert str(caught.value) == (
        "'wrong' (this process) failed while drawing category 00001, instance 7: ValueError: no such picture "
        f"({__file__}, line {line})"
    )


def test_a_batch_that_fails_as_a_whole_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def render_batch(self: Wrong, category: Any, instances: np.ndarray, out: np.ndarray) -> None:
        assert len(instances) == 1, "several at once"

    monkeypatch.setattr(Wrong, "render_batch", render_batch)
    with pytest.raises(PluginError, match=r"category 00000, instance 0 to 9 in one batch: AssertionError: several at"):
        Drawer(recipe()).draw_batch(range(10))


def test_on_a_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def device_renderer(self: Wrong, categories: Any, device: torch.device) -> Callable[..., None]:
        def draw(labels: np.ndarray, instances: np.ndarray, out: torch.Tensor) -> None:
            if 7 in instances[labels == 1]:
                sys.exit(0)

        return draw

    monkeypatch.setattr(Wrong, "device_renderer", device_renderer)
    drawer = DeviceDrawer(Drawer(recipe()), torch.device("cpu"))
    with pytest.raises(PluginError, match=r"while drawing category 00001, instance 7 on cpu: SystemExit: 0 \(.*line"):
        drawer.draw_instances(np.repeat([0, 1], 10), np.tile(np.arange(10), 2))


# What is returned


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "render() returned None, not an image: is its 'return' missing?"),
        ({}, "render() returned dict, not an image"),
        (np.zeros((16, 16)), "float64 [16, 16], not uint8 [16, 16, 1]: multiply by 255 if its values are from 0 to 1"),
        (np.zeros((16, 16), bool), "bool [16, 16], not uint8 [16, 16, 1]: multiply by 255"),
        (np.zeros((16, 16), int), "int64 [16, 16], not uint8 [16, 16, 1]: use astype(np.uint8)"),
        (np.zeros((1, 16, 16), np.uint8), "uint8 [1, 16, 16], not uint8 [16, 16, 1]: the channels come last"),
        (
            np.zeros((16, 16, 3), np.uint8),
            "not uint8 [16, 16, 1]: canvas.channels=3 draws in colour",
        ),
        (np.zeros((16, 16, 4), np.uint8), "leave the alpha channel out"),
        (np.zeros((256, 256), np.uint8), "the image's height and width are self.canvas.size"),
        (np.zeros(256, np.uint8), "uint8 [256], not uint8 [16, 16, 1]"),
    ],
)
def test_what_is_no_image_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, returned: object, told: str) -> None:
    monkeypatch.setattr(Wrong, "render", lambda *arguments: returned)
    with pytest.raises(PluginError) as caught:
        Drawer(recipe()).draw_batch(range(10))
    assert told in str(caught.value) and "instance 0: " in str(caught.value)


def test_images_that_lie_otherwise_in_memory_are_images(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(3, 16, 16)
    monkeypatch.setattr(Wrong, "render", lambda *arguments: image.transpose(2, 1, 0)[::-1])
    drawn, _ = Drawer(recipe(canvas={"size": 16, "padding": 0, "channels": 3})).draw(0)
    assert np.array_equal(drawn, image.transpose(2, 1, 0)[::-1])


@pytest.mark.parametrize("returned", [np.ones_like, list, lambda out: tuple(np.ones_like(out)), lambda out: 1])
def test_a_batch_that_is_returned_and_not_drawn_is_told(monkeypatch: pytest.MonkeyPatch, returned: Any) -> None:
    monkeypatch.setattr(Wrong, "render_batch", lambda self, category, instances, out: returned(out))
    with pytest.raises(PluginError, match=r"render_batch\(\) returned images, it must draw them into 'out'"):
        Drawer(recipe()).draw_batch(range(10))
    monkeypatch.setattr(Wrong, "render_batch", lambda self, category, instances, out: out)
    Drawer(recipe()).draw_batch(range(10))


@pytest.mark.parametrize("method", ["max_categories", "default_categories", "max_instances"])
@pytest.mark.parametrize("returned", ["many", 2.5, 0, -1, True, np.ones(2)])
def test_numbers_that_are_none_are_told(monkeypatch: pytest.MonkeyPatch, method: str, returned: object) -> None:
    monkeypatch.setattr(Wrong, method, lambda self: returned)
    with pytest.raises(PluginError, match=rf"in {method}\(\): TypeError: returned .* must be a whole number above 0"):
        recipe(categories={})
    monkeypatch.setattr(Wrong, method, lambda self: np.int64(10))
    assert type(recipe(categories={}).num_categories) is int


@pytest.mark.parametrize("returned", ["", "a/b", "..", "a.b", "a\nb", "\\", 5, None, b"a"])
def test_names_that_are_no_part_of_a_files_name_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returned: object
) -> None:
    monkeypatch.setattr(Wrong, "instance_name", lambda self, instance: returned)
    with pytest.raises(PluginError, match=r"in instance_name\(\): TypeError: returned .* for instance 0, must be"):
        generate(recipe(), tmp_path / "store", format="imagefolder")
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["store"])


def test_one_name_for_two_instances_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wrong, "instance_name", lambda self, instance: f"{instance % 4}")
    with pytest.raises(PluginError, match="ValueError: returned '0' for instances 0 and 4"):
        generate(recipe(), tmp_path / "store")


@pytest.mark.parametrize(("independent", "workers"), [(True, 1), (False, 1), (False, 2)])  # two call category() alone
def test_categories_are_asked_for_in_one_way_whatever_the_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, independent: bool, workers: int
) -> None:
    monkeypatch.setattr(Wrong, "categories_are_independent", lambda self: independent)
    monkeypatch.setattr(Wrong, "categories", lambda self, count: ([100 + index] for index in range(count)))
    found = [float(category.parameters[0, 0]) for category in find_categories(recipe(), workers=workers)]
    assert found == ([0, 1] if independent else [100, 101])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_generator_with_categories_alone_is_asked_for_them(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.delattr(Wrong, "category")
    monkeypatch.setattr(Wrong, "categories", lambda self, count: ([100 + index] for index in range(count)))
    found = [float(category.parameters[0, 0]) for category in find_categories(recipe(), workers=workers)]
    assert found == [100, 101]


def test_categories_that_end_too_early_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    in_order(monkeypatch)
    monkeypatch.setattr(Wrong, "categories", lambda self, count: iter([[0.0]]))
    with pytest.raises(PluginError, match=r"while finding category 1: ValueError: categories\(\) ended after 1 of 2"):
        find_categories(recipe())


# In processes of their own

PLUGIN = """
import os, sys
import numpy as np
from formulavision import Generator, hookimpl

class Leaves(Generator):
    name = "leaves"
    def category(self, index):
        {category}
        return [index]
    def render(self, category, instance):
        if category.index == 1 and instance == 5:
            {render}
        return np.zeros((self.canvas.size, self.canvas.size), np.uint8)

@hookimpl
def register_generators(register):
    register(Leaves)
"""


def run(tmp_path: Path, *arguments: str, category: str = "pass", render: str = "pass") -> tuple[int, str]:
    (tmp_path / "leaves_plugin.py").write_text(PLUGIN.format(category=category, render=render))
    information = tmp_path / "leaves_plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: leaves-plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[formulavision]\nleaves = leaves_plugin\n")
    command = [sys.executable, "-m", "formulavision", "generate", "--plugin", "leaves", "--categories", "2",
               "--instances", "8", "--size", "16", "--set", "canvas.padding=0", "--format", "imagefolder",
               "--out", str(tmp_path / "store"), *arguments]  # fmt: skip
    environment = {
        **os.environ,
        "FORMULAVISION_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr


@pytest.mark.parametrize("workers", ["2", *slow("1")])
def test_generate_never_ends_well_without_a_store(tmp_path: Path, workers: str) -> None:
    status, errors = run(tmp_path, "--workers", workers, render="sys.exit(0)")
    assert status == 2
    (line,) = (line for line in errors.splitlines() if "error:" in line)
    told = "'leaves' (leaves-plugin 1.0) failed while drawing category 00001, instance 5: SystemExit: 0"
    assert told in line and "leaves_plugin.py, line 13)" in line
    assert "Traceback" not in errors
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize(
    "leaves", [{"render": "os._exit(0)"}, *slow({"category": "os._exit(0)"}, {"category": "sys.exit(0)"})]
)
@pytest.mark.slow
def test_worker_processes_that_leave_do_not_end_well_either(tmp_path: Path, leaves: dict[str, str]) -> None:
    status, errors = run(tmp_path, "--workers", "2", **leaves)
    assert status == 2, errors
    assert "Traceback" not in errors and errors.count("error:") == 1
    assert not (tmp_path / "store" / "manifest.json").exists()
