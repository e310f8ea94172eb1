"""Categories: checked wherever they come from, read-only wherever they go."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulavision import Category, ConfigError, Drawer, Generator, Recipe, plugins
from formulavision.recipes.categories import _in_parallel, category_key, find_categories
from formulavision.recipes.category_files import CATEGORIES, read_folder, write_file
from formulavision.recipes.recipe import as_recipe
from formulavision.util.errors import PluginError

SYSTEM = [0.5, 0.1, -0.1, 0.5, 0.2, 0.3]


def problem_of(folder: Path, name: str = "ifs") -> str:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict({"generator": name, "categories": {"folder": str(folder)}})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ps", [(0, 0), (-0.5, 1.5), (2.5, 2.5), (1e300, 1e300), (0.1, 0.1), (0.5, 0.6)])
def test_probabilities_that_are_none_are_refused(tmp_path: Path, ps: tuple[float, float]) -> None:
    np.savetxt(tmp_path / "a.csv", [[*SYSTEM, p] for p in ps], delimiter=",")
    assert "a.csv: the parameters p must be probabilities: not negative, and 1 in sum" in problem_of(tmp_path)


@pytest.mark.parametrize("value", [1e300, -1e7, np.nan, np.inf])
def test_transformations_beyond_all_measure_are_refused(tmp_path: Path, value: float) -> None:
    np.savetxt(tmp_path / "a.csv", [[value, *SYSTEM[1:], 0.5], [*SYSTEM, 0.5]], delimiter=",")
    assert "a.csv: the parameters " in problem_of(tmp_path)


def test_probabilities_may_be_rounded(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", [[*SYSTEM, 0.33]] * 3, delimiter=",")
    recipe = Recipe.from_dict({"generator": "ifs", "categories": {"folder": str(tmp_path)}, "canvas": {"size": 32}})
    assert Drawer(recipe).draw(0)[0].any()


def test_the_published_categories_are_taken(official: Path) -> None:
    recipe = Recipe.from_dict({"generator": "ifs", "categories": {"folder": str(official / "categories")}})
    assert recipe.num_categories == 100


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        *[("perlin", rows) for rows in ([[0, 1]], [[-1, 2]], [[1e300, 1]], [[1, 2], [3, 4]], [[1, 2, 3]])],
        *[("bezier", rows) for rows in ([[3.5, 1]], [[1, 1]], [[3, 0]], [[3, 1e9]], [[3, 1], [3, 1]], [[3]])],
    ],
)
def test_odd_categories_of_the_others_are_refused(tmp_path: Path, name: str, rows: list[list[float]]) -> None:
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",")
    assert "a.csv: the parameters " in problem_of(tmp_path, name)


def test_what_operating_systems_leave_in_a_folder_of_categories_is_ignored(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", [[3, 4]], delimiter=",")
    (tmp_path / "._a.csv").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    recipe = Recipe.from_dict({"generator": "perlin", "categories": {"folder": str(tmp_path)}})
    assert [category.name for category in find_categories(recipe)] == ["a"]


# Files of named values

RCDB = "Vertex,14\r\nPerlin_noise,0.25\r\nline_width,0.01\r\nCenter_rad,97\r\nLine_num,196\r\n"


def parameters_of(folder: Path, name: str, text: str | bytes) -> list[list[float]]:
    (folder / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    recipe = Recipe.from_dict({"generator": name, "categories": {"folder": str(folder)}})
    parameters: list[list[float]] = find_categories(recipe)[0].parameters.tolist()
    return parameters


@pytest.mark.parametrize(
    "text",
    [
        RCDB,
        "\ufeff" + RCDB,
        RCDB.replace("\r\n", "\n").rstrip(),
        RCDB.replace(",", " , ").replace("\r\n", "\n\n"),
        "\r\n".join(reversed(RCDB.splitlines())),
        "vertices,14\nlines,196\nperlin,2.5e-1\nline_width,0.01\n",
        "Vertex,14\nlines,196.0\nPerlin_noise,0.25\nline_width,0.01\nstart_pos_h,1\nColor_Gray,3",
        "\ufeff14,196,0.25,0.01\r\n",
    ],
    ids=["as written", "BOM", "LF", "spaces", "order", "columns", "mixed", "BOM, numbers"],
)
def test_named_values_become_columns_in_any_order(tmp_path: Path, text: str) -> None:
    assert parameters_of(tmp_path, "rcdb", text) == [[14, 196, 0.25, 0.01]]


def test_names_of_columns_are_read_for_every_generator(tmp_path: Path) -> None:
    assert parameters_of(tmp_path, "perlin", "frequency_y,8\nfrequency_x,4\n") == [[4, 8]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "rcdb",
            RCDB.replace("Line_num", "Lines"),
            "unknown name 'Lines', known are: vertices, lines, perlin, ",
        ),
        ("rcdb", RCDB.replace("Line_num,196\r\n", ""), "has no value of: lines (Line_num)"),
        ("rcdb", "Vertex,14\n", "has no value of: lines (Line_num), perlin (Perlin_noise), line_width"),
        ("perlin", "frequency_x,4\n", "has no value of: frequency_y"),
        ("rcdb", RCDB + "Vertex,15\n", "'Vertex': is a second value of vertices"),
        ("rcdb", RCDB + "vertices,14\n", "'vertices': is a second value of vertices"),
        ("rcdb", RCDB.replace("196", "many"), "'Line_num': 'many' is not a number"),
        ("rcdb", RCDB.replace("97", ""), "'Center_rad': '' is not a number"),
        ("rcdb", RCDB.replace("196", "nan"), "the parameters must be finite numbers"),
        ("rcdb", RCDB.replace("14", "14.5"), "the parameters must be one row, with whole numbers of vertices"),
        ("rcdb", RCDB.replace("196", "1e9"), "the parameters must be one row, with whole numbers of vertices"),
        ("rcdb", RCDB + "Oval_rate_x\n", "neither numbers nor one name and one value in each line: 'Oval_rate_x'"),
        ("rcdb", RCDB.replace(",", ";"), "neither numbers nor one name and one value in each line: 'Vertex;14'"),
        ("rcdb", "vertices,lines\n14,196\n", "'vertices': 'lines' is not a number"),
        ("rcdb", "file,Vertex,Line_num\n00001.csv,14,196\n", "nor one name and one value in each line: 'file,Vertex,"),
        ("rcdb", "14,196,0.25,0.01\nVertex,14\n", "is not a table of numbers"),
        ("rcdb", "\r\n", "the parameters have shape [0], not [rows, 4]"),
        ("ifs", "Vertex,14\n", "unknown name 'Vertex', known are: a, b, c, d, e, f, p"),
        ("rcdb", "x" * 10_000 + ",14\n", "unknown name 'xxxxx"),
        ("rcdb", b"Vertex\xff,14\n", "cannot be read"),
    ],
    ids=lambda value: None,
)
def test_named_values_that_are_no_category_are_told_in_one_line(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parameters_of(tmp_path, name, text)
    assert f"{tmp_path / 'a.csv'}: " in str(caught.value)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# What a plugin gives out


class Odd(Generator):
    name = "odd"
    given: Any = None
    columns = ("x",)

    def category(self, index):  # type: ignore[no-untyped-def]
        return [1.0] if index < 1 else self.given

    def render(self, category, instance):  # type: ignore[no-untyped-def]
        category.parameters[0, 0] += 1
        return np.zeros(self.canvas.shape, np.uint8)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    plugins().add(Odd)
    monkeypatch.setitem(plugins().generators, "odd", plugins()["odd"])
    return Recipe.from_dict({"generator": "odd", "categories": 3, "instances": 2, "canvas": {"size": 16}})


@pytest.mark.parametrize(
    "given",
    [
        None,
        np.nan,
        [np.inf],
        {"x": 1.0},
        "many",
        [[1.0, 2.0]],
        [],
        [[[1.0]]],
        [None],
        object(),
        {1.0},
        1j,
        [[1], [1, 2]],
    ],
    ids=lambda given: "an object" if type(given) is object else str(given),
)
def test_categories_that_are_no_numbers_are_told_in_one_line(
    odd: Recipe, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "given", given)
    with pytest.raises(PluginError, match=r"^'odd' \(this process\): the parameters of category 1 [^\n]*$"):
        find_categories(odd)


@pytest.mark.parametrize("error", [ValueError("must be\neven"), KeyError("x")])
def test_a_generators_own_check_is_asked(odd: Recipe, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Generator, parameters: np.ndarray) -> None:
        raise error

    monkeypatch.setattr(Odd, "given", [2.0])
    monkeypatch.setattr(Odd, "check_category", check)
    with pytest.raises(
        PluginError, match=r"parameters of category 0 must be even|failed in check_category\(\): KeyError"
    ):
        find_categories(odd)


def test_a_generator_refuses_a_list_of_categories_from_files(
    odd: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(self: Generator, categories: list[Category]) -> None:
        names = [category.name for category in categories if category.parameters[0, 0] != category.index]
        if names:
            raise ValueError(f"{names[0]} must be\nhigher")

    monkeypatch.setattr(Odd, "check_categories", check)
    for name, value in {"a": 0, "b": 1, "c": 7}.items():
        (tmp_path / f"{name}.csv").write_text(f"{value}\n")
    first = Recipe.from_dict({**odd.to_dict(), "categories": {"folder": str(tmp_path), "count": 2}})
    assert [category.name for category in find_categories(first)] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"^categories\.folder: [^\n]*: c must be higher$"):
        find_categories(Recipe.from_dict({**odd.to_dict(), "categories": {"folder": str(tmp_path)}}))


# Read-only


def test_parameters_are_read_only_in_every_process() -> None:
    given = np.ones((2, 3))
    category = Category(0, "a", given)
    given[0, 0] = 9
    for same in (category, pickle.loads(pickle.dumps(category)), copy.deepcopy(category)):
        assert same.parameters.tolist() == [[1, 1, 1]] * 2
        with pytest.raises(ValueError, match="read-only"):
            same.parameters[0, 0] = 2


@pytest.mark.slow
def test_a_search_that_is_stopped_ends_its_workers_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the pool notices that its workers ended before it hears that it is to end, as on a busy machine."""
    shutdown = ProcessPoolExecutor.shutdown

    def late(pool: ProcessPoolExecutor, *arguments: Any, **keywords: Any) -> None:
        time.sleep(0.5)
        shutdown(pool, *arguments, **keywords)

    monkeypatch.setattr(ProcessPoolExecutor, "shutdown", late)
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    recipe = as_recipe("ifs")
    found = _in_parallel(recipe.all_parts[0].generator, recipe.build(), 5000, 2)
    next(found)
    del found
    assert raised == []


def test_a_render_that_changes_its_category_is_told_why_it_fails(odd: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "given", [2.0])
    with pytest.raises(PluginError, match=r"category\.parameters is read-only: copy it before changing it"):
        Drawer(odd).draw(0)


# The file of a store


def test_the_file_of_categories_gives_them_back_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 7)) * 10.0 ** np.arange(-300, 300, 86)
    values[0, 0, 0] = -0.0
    categories = [Category(i, name, table) for i, (name, table) in enumerate(zip("zäb", values, strict=True))]
    anything = type("Anything", (Generator,), {"name": "anything"})(None, None, 1)
    write_file(categories, anything, tmp_path)
    read = read_folder(tmp_path, anything)
    assert list(read) == ["z", "ä", "b"]
    assert all(
        table.tobytes() == category.parameters.tobytes()
        for table, category in zip(read.values(), categories, strict=True)
    )


def test_columns_of_a_file_are_those_that_it_names(tmp_path: Path) -> None:
    def read(columns: object) -> list[list[float]]:
        text = {"columns": columns, "categories": {"a": [[2, 9]]}} if columns else {"categories": {"a": [[2, 9]]}}
        (tmp_path / CATEGORIES).write_text(json.dumps(text))
        generator = Recipe.from_dict({"generator": "perlin"}).build()
        return read_folder(tmp_path, generator)["a"].tolist()

    assert read(["frequency_y", "frequency_x"]) == [[9, 2]]
    assert read(["frequency_x", "frequency_y"]) == read(None) == read([]) == [[2, 9]]
    for other in (["x", "y"], ["frequency_x"], ["frequency_x", "frequency_x"], [3, None]):
        with pytest.raises(
            ConfigError, match=r"has the columns .*, and those of 'perlin' are frequency_x, frequency_y"
        ):
            read(other)


def test_a_category_that_a_file_has_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / CATEGORIES).write_text('{"categories": {"a": [[1, 2]], "b": [[3, 4]], "a": [[5, 6]]}}')
    assert problem_of(tmp_path).endswith("'a' is there 2 times")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"categories": 3}', '{"categories": {"a": "x"}}', "[" * 9999])
def test_a_damaged_file_of_categories_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / CATEGORIES).write_text(text)
    assert CATEGORIES in problem_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("v1.0", "contain a dot"),
        ("..", "contain a dot"),
        ("a/b", "contain a slash"),
        ("a\\b", "contain a backslash"),
        ("a\0b", "contain a character that names of files cannot have"),
        ("a\ud800", "contain a character that names of files cannot have"),
        ("", "be empty"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused_in_json_as_in_csv(tmp_path: Path, name: str, flaw: str) -> None:
    (tmp_path / CATEGORIES).write_text(json.dumps({"categories": {name: [[*SYSTEM, 1.0]]}}))
    assert problem_of(tmp_path).endswith(f"the name of category {name!r} must not {flaw}")


def test_a_file_without_categories_is_refused(tmp_path: Path) -> None:
    (tmp_path / CATEGORIES).write_text('{"categories": {}}')
    assert problem_of(tmp_path).endswith("holds no categories")


def test_a_csv_file_whose_name_is_no_category_is_refused(tmp_path: Path) -> None:
    for name in ("a\\b", "a\udcffb"):  # the second one is not UTF-8 on the disk
        np.savetxt(tmp_path / f"{name}.csv", [[*SYSTEM, 1.0]], delimiter=",")
        assert f"{tmp_path}: the name of category {name!r} must not contain a " in problem_of(tmp_path)
        (tmp_path / f"{name}.csv").unlink()


def test_generators_of_one_name_in_two_packages_have_caches_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Recipe.from_dict({"generator": "moire"}).build()
    known, keys = plugins()["moire"], []
    for package in (known.package, "alpha", "beta"):
        monkeypatch.setitem(plugins().generators, "moire", dataclasses.replace(known, package=package))
        keys.append(category_key(generator))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("edited", ["generator.py", "helpers/search.py"])
def test_an_edited_package_of_somebody_else_has_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    """Before its first release its pixel version stays."""
    for file in ("__init__.py", "generator.py", "helpers/search.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    generator = Recipe.from_dict({"generator": "moire"}).build()
    known, keys = plugins()["moire"], []
    monkeypatch.setitem(plugins().generators, "moire", dataclasses.replace(known, package="alpha"))
    monkeypatch.setattr(sys.modules[type(generator).__module__], "__file__", str(tmp_path / "generator.py"))
    for text in ("first = 1", "first = 90", "first = 1"):
        (tmp_path / edited).write_text(text)
        keys.append(category_key(generator))
    assert keys[0] == keys[2] != keys[1]


def test_categories_that_two_parts_have_in_common_are_told(caplog: pytest.LogCaptureFixture) -> None:
    moire, bezier = {"generator": "moire", "categories": 3}, {"generator": "bezier", "categories": 4}
    for parts, told in (
        ([moire, bezier], ""),
        ([moire, bezier, moire], "3 categories of 'moire' in two parts of the recipe: their images have two labels"),
        ([moire, moire | {"categories": 1}], "1 category of 'moire' in two parts"),
    ):
        caplog.clear()
        find_categories({"parts": parts, "canvas": {"size": 32}})
        assert told in caplog.text and bool(told) is bool(caplog.text)


def named(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The generator ``moire`` under another name."""
    known = plugins()["moire"]
    generator = type("Named", (known.generator,), {"name": name})
    monkeypatch.setitem(plugins().generators, name, dataclasses.replace(known, generator=generator))
    return name


def test_parts_whose_prefixes_are_equal_are_refused_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    other = named("moire2", monkeypatch)
    monkeypatch.setattr(plugins()["moire"].generator, "category", lambda self, index: 1 / 0)
    parts = [{"generator": name, "categories": 2} for name in ("moire", "bezier", "moire", other)]
    told = (
        r"^parts\.2 \(moire\) and parts\.3 \(moire2\): have categories of one name, moire2-\.\.\.: give one "
        "a recipe of its own$"
    )
    with pytest.raises(ConfigError, match=told):
        find_categories({"parts": parts, "canvas": {"size": 32}})


def test_parts_of_different_prefixes_have_no_categories_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, drawn = named("moire-a", monkeypatch), Recipe.from_dict({"generator": "moire", "categories": 1}).build()
    tables = [np.atleast_2d(drawn.category(index)) for index in range(2)]
    recipe = {"parts": [{"generator": "moire"}, {"generator": other, "categories": 1}], "canvas": {"size": 32}}
    recipe["parts"][0]["categories"] = {"folder": str(tmp_path)}  # type: ignore[index]
    write_file([Category(i, name, tables[i]) for i, name in enumerate(("b", "a-00001"))], drawn, tmp_path)
    assert [each.name for each in find_categories(recipe)] == ["moire-b", "moire-a-00001", "moire-a-00000"]
    write_file([Category(i, name, tables[i]) for i, name in enumerate(("b", "a-00000"))], drawn, tmp_path)
    told = r"parts\.0 \(moire\) and parts\.1 \(moire-a\): have categories of one name, moire-a-00000: give"
    with pytest.raises(ConfigError, match=told):
        find_categories(recipe)
