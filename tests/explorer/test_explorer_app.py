"""The explorer's server and its pages, without a browser."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from typer.testing import CliRunner

from formulavision.cli import app as cli
from formulavision.explorer.app import explore, listen, page_of
from formulavision.explorer.gate import Gate
from formulavision.explorer.limits import Limits
from formulavision.explorer.recipe_page import RecipePage
from formulavision.explorer.store_page import StorePage
from formulavision.explorer.store_views import facts_of
from formulavision.explorer.worker import Worker
from formulavision.recipes.recipe import Recipe
from formulavision.storage.generation import Silent, generate
from formulavision.util.errors import ConfigError, PluginError

SMALL = {"generator": "perlin", "canvas": {"size": 32, "padding": 0}}


def call_here(worker: Worker, work: Callable[..., Any], *arguments: Any, progress: Any = None) -> Any:
    """In place of the process that draws, which takes seconds to start."""
    return work(*arguments, progress)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Worker, "call", call_here)
    return RecipePage(Recipe.from_dict(SMALL), Limits())


VISIT = """
import json, sys
from starlette.testclient import TestClient
from formulavision.explorer.app import build_app, page_of
from formulavision.explorer.limits import Limits

app, close = build_app(page_of(json.loads(sys.argv[1]), Limits()), Limits())
with TestClient(app, base_url="http://127.0.0.1") as visitor:
    told = {path: visitor.get(path).text for path in ("/", "/config", "/theme.css", "/gradio_api/file=/etc/passwd")}
close()
print(json.dumps(told))
"""


@pytest.mark.slow
def test_gradios_pages_load_nothing_from_elsewhere_and_have_no_public_events() -> None:
    # In a process of its own: Gradio leaves event loops open, of which Python warns in any later test.
    done = subprocess.run([sys.executable, "-c", VISIT, json.dumps(SMALL)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    loaded = re.findall(r"""(?:src|href)\s*=\s*["'](https?:[^"']+)""", told["/"])
    assert [address for address in loaded if not address.startswith("http://127.0.0.1")] == []
    assert "googleapis" not in told["/"] + told["/theme.css"]
    config = json.loads(told["/config"])
    assert config["analytics_enabled"] is False
    assert {each["api_visibility"] for each in config["dependencies"]} <= {"private", "undocumented"}
    assert told["/gradio_api/file=/etc/passwd"] == "there is nothing here\n"


@pytest.mark.parametrize("object_from_folder", [False, True])
def test_a_background_from_a_folder_of_categories_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, object_from_folder: bool
) -> None:
    monkeypatch.setattr(Worker, "call", call_here)
    numbers = {"categories": 2, "instances": 2, "canvas": SMALL["canvas"]}
    folders = {name: str(generate({"generator": name, **numbers}, tmp_path / name).path) for name in ("perlin", "ifs")}
    background = {"generator": "perlin", "categories": {"folder": folders["perlin"]}}
    recipe = Recipe.from_dict(
        {
            "generator": "ifs",
            "categories": {"folder": folders["ifs"]} if object_from_folder else 2,
            "scene": {"objects": 1, "size": 0.5, "background": background},
            "canvas": SMALL["canvas"],
        }
    )
    page = RecipePage(recipe, Limits())
    read = page.read(recipe.to_yaml())
    assert read == recipe and len(page.sheet(read, 2, 2).cells) == 4
    assert "drawer.draw(1)" in page.picture(recipe.to_yaml(), 0, 1)[1]
    with pytest.raises(ConfigError, match="is not allowed here: the explorer reads only the folders"):
        page.read(recipe.to_yaml().replace(folders["perlin"], str(tmp_path)))


def test_one_image_comes_with_its_index_lines_and_recipe(page: Any) -> None:
    picture, lines, link = page.picture(page.start.to_yaml(), 3, 2)
    assert "index: 302" in picture and "drawer.draw(302)" in lines and 'download="recipe.yaml"' in link


@pytest.mark.parametrize(
    ("label", "instance"), [(1.5, 0), ("a", 0), (None, 0), (True, 0), (0, 10**30), (100, 0), (float("nan"), 0)]
)
def test_what_a_visitors_page_may_not_send_is_one_line(page: Any, label: Any, instance: Any) -> None:
    picture, lines, link = page.picture(page.start.to_yaml(), label, instance)
    assert picture.count("fv-problem") == 1 and lines == link == ""


@pytest.mark.parametrize("size", [0, 9, 64, 2.5, None])
def test_a_sheet_has_few_images(page: Any, size: Any) -> None:
    for given in ((size, 4), (4, size)):
        with pytest.raises(ConfigError, match="must be a whole number from 1 to 8"):
            page.sheet(page.start, *given)


def test_a_plugins_error_is_one_line(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **keywords: Any) -> Any:
        raise PluginError("'perlin' failed while drawing")

    monkeypatch.setattr(page.worker, "call", fail)
    assert page.picture(page.start.to_yaml(), 0, 0)[0].count("fv-problem") == 1


def test_a_recipe_that_is_too_large_is_not_explored() -> None:
    with pytest.raises(ConfigError, match=r"canvas\.size: 2,048 is not allowed here"):
        page_of({"generator": "perlin", "canvas": {"size": 2048}}, Limits())


def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^--port {port}: is in use by another program: give another one, or 0$"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"^--host no\.such\.host\.invalid --port 0: cannot be listened on: [^(\[]+$"):
        listen("no.such.host.invalid", 0)


def test_a_wrong_name_is_one_line() -> None:
    done = CliRunner().invoke(cli, ["explore", "perlinn"])
    assert done.exit_code == 2 and "did you mean 'perlin'?" in done.stderr and "Traceback" not in done.output


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [("127.0.0.1", None, None), ("0.0.0.0", None, "random"), ("0.0.0.0", "", None), ("127.0.0.1", "own", "own")],
)
def test_a_token_is_needed_where_others_reach_the_page(
    monkeypatch: pytest.MonkeyPatch, host: str, token: str | None, expected: str | None
) -> None:
    given: list[str | None] = []

    def build(page: Any, limits: Limits, *, token: str | None, hosts: Any) -> Any:
        given.append(token)
        raise ConfigError("built")

    monkeypatch.setattr("formulavision.explorer.app.build_app", build)
    with pytest.raises(ConfigError, match="built"):
        explore(SMALL, host=host, port=0, token=token)
    assert (len(given[0] or "") > 20) if expected == "random" else given == [expected]


def test_the_name_of_a_generator_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("perlin", "data"):
        (tmp_path / folder).mkdir()
    page = page_of("perlin", Limits())
    assert isinstance(page, RecipePage)
    page.close()
    with pytest.raises(ConfigError, match="perlin: holds neither a store nor a comparison"):
        page_of("./perlin", Limits())


def test_the_printed_address_holds_any_token(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("formulavision.explorer.app.say", told.append)
    monkeypatch.setattr("formulavision.explorer.app.build_app", lambda *page, **given: (Starlette(), lambda: None))
    monkeypatch.setattr("uvicorn.Server.run", lambda self, **given: None)
    token = "a+b/c==&d#e %41"
    explore(SMALL, port=0, token=token)
    query = told[0].split()[0].partition("/?")[2]
    answer = TestClient(Gate(Starlette(), token, None)).get(f"/?{query}", follow_redirects=False)
    assert answer.status_code == 307 and query.count("=") == 1
    with pytest.raises(ConfigError, match="token: must be ASCII"):
        explore(SMALL, port=0, token="日本")


def test_visitors_see_the_folder_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.from_dict({"generator": "perlin", "categories": 2, "instances": 1, "canvas": {"size": 16}})
    generate(recipe, out=tmp_path / "data/store", workers=1, progress=Silent())
    monkeypatch.chdir(tmp_path)
    page = page_of("data/store", Limits())
    assert isinstance(page, StorePage) and facts_of(page.store)["store"] == "data/store"
    monkeypatch.setattr(Worker, "call", call_here)
    assert "Store('data/store')" in page.picture(0)[1] and str(tmp_path) not in "".join(page.picture(0))
