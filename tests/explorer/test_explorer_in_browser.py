"""The explorer in headless Chromium: controls are turned, by mouse and keyboard, and the page follows."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unfinished_comparison import ARM, KEY, begin, result, write

from formulavision.recipes.recipe import Recipe
from formulavision.storage.generation import Silent, generate

pytestmark = pytest.mark.slow

RINGS = Path(__file__).parents[1] / "third_party" / "rings"

AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
"""``npm install axe-core`` writes it."""

OF_GRADIO = {"color-contrast"}
"""What axe-core 4.14.1 finds in the components of Gradio 6.31.0: the two ends beside a slider are too light a gray."""


class Served:
    """The explorer in a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "formulavision", "explore", *arguments, "--port", "0"]
        surroundings = {**os.environ, **environment}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().partition(" ")[0]
        assert self.address.startswith("http://")

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)  # closes its pipe


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("gradio") is None:  # not imported: it leaves event loops open, of which Python warns
        pytest.skip("Gradio is not here: pip install 'formulavision[explore]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def perlin(browser: Any) -> Iterator[Served]:
    served = Served("perlin")
    yield served
    served.close()


@pytest.fixture(scope="module")
def with_rings(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The explorer beside a package of somebody else's, installed as pip leaves it: the module and its entry point."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(RINGS / "formulavision_rings.py", site)
    information = site / "formulavision_rings-0.3.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: formulavision-rings\nVersion: 0.3.0\n")
    (information / "entry_points.txt").write_text("[formulavision]\nrings = formulavision_rings\n")
    served = Served("perlin", PYTHONPATH=str(site))
    yield served
    served.close()


def opened(browser: Any, address: str, width: int) -> Any:
    """A page that counts and refuses requests to other addresses, with what went wrong on it."""
    page = browser.new_context(viewport={"width": width, "height": 1000}).new_page()
    page.foreign, page.problems = [], []
    own = address.partition("?")[0]

    def route(request: Any) -> None:
        if request.request.url.startswith((own, "data:", "blob:")):
            request.continue_()
        else:
            page.foreign.append(request.request.url)
            request.abort()

    page.route("**/*", route)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    page.goto(address)
    return page


@pytest.fixture(scope="module")
def stores(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("store") / "scenes"
    data = {"generator": "bezier", "categories": 12, "scene": {"objects": [1, 3]}, "images": 60}
    recipe = Recipe.from_dict({**data, "canvas": {"size": 96}})
    generate(recipe, out=folder, format="imagefolder", workers=1, progress=Silent())
    served = Served(str(folder))
    yield served
    served.close()


@pytest.fixture(params=[400, 1400], ids=["narrow", "wide"])
def store_page(request: pytest.FixtureRequest, browser: Any, stores: Served) -> Iterator[Any]:
    page = opened(browser, stores.address, request.param)
    page.wait_for_selector("#picture img", timeout=180_000)
    yield page
    assert page.foreign == [] and page.problems == []
    page.context.close()


@pytest.fixture(params=[400, 1400], ids=["narrow", "wide"])
def page(request: pytest.FixtureRequest, browser: Any, perlin: Served) -> Iterator[Any]:
    page = opened(browser, perlin.address, request.param)
    page.wait_for_selector("#picture img", timeout=180_000)
    page.wait_for_timeout(1000)
    yield page
    assert page.foreign == [] and page.problems == []
    page.context.close()


def first(page: Any) -> str:
    source: str = page.get_attribute("#sheet img", "src")
    return source


def wait_for_other(page: Any, before: str) -> None:
    page.wait_for_function("before => document.querySelector('#sheet img')?.src != before", arg=before, timeout=60_000)


def yaml(page: Any) -> str:
    text: str = page.input_value("#yaml textarea")
    return text


def test_the_page_is_not_wider_than_the_window(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#sheet img").count() == 16


def test_a_control_that_is_turned_by_the_keyboard_redraws_the_sheet_and_changes_the_recipe(page: Any) -> None:
    before, calls = first(page), []
    page.on("request", lambda request: calls.append(request.url) if "queue/join" in request.url else None)
    page.get_by_label("range slider for octaves").focus()
    page.keyboard.press("ArrowRight")
    wait_for_other(page, before)
    page.wait_for_function("document.querySelector('#yaml textarea').value.includes('octaves: 2')")
    page.wait_for_timeout(2000)
    assert len(calls) == 3  # the control draws the sheet; the recipe that it changes is shown, and its one image drawn
    assert page.evaluate("document.activeElement.ariaLabel") == "range slider for octaves"  # the form was not made anew


def test_an_edited_recipe_changes_the_form(page: Any) -> None:
    before = first(page)
    page.locator("#yaml textarea").focus()
    page.keyboard.press("Control+A")
    text = yaml(page).replace("persistence: 0.5", "persistence: 0.75").replace("octaves: 1", "octaves: 4")
    page.keyboard.type(text)
    wait_for_other(page, before)
    page.wait_for_function("[...document.querySelectorAll('input[type=number]')].some(input => input.value == '0.75')")


def test_the_recipe_of_the_start_pasted_back_changes_the_form_back(page: Any) -> None:
    start, before = yaml(page), first(page)
    page.get_by_label("range slider for octaves").focus()
    page.keyboard.press("ArrowRight")
    wait_for_other(page, before)
    page.wait_for_function("document.querySelector('#yaml textarea').value.includes('octaves: 2')")
    turned = first(page)
    page.locator("#yaml textarea").fill(start)
    wait_for_other(page, turned)
    page.wait_for_function("document.querySelector('[aria-label=\"range slider for octaves\"]').value == '1'")
    assert "octaves: 1" in yaml(page)


def test_a_problem_stands_at_its_control_and_in_one_line(page: Any) -> None:
    page.get_by_text("Canvas, seed and numbers").click()
    page.get_by_label("size").fill("5000")
    page.wait_for_selector("[role=alert] .fv-problem")
    lines = page.locator("[role=alert] .fv-problem").all_inner_texts()
    assert lines == ["size: 5000 is not allowed: must be less than or equal to 4096"]
    assert page.get_by_text("⚠ 5000 is not allowed").count() == 1
    page.get_by_label("size").fill("64")
    page.wait_for_selector("[role=alert]", state="detached")
    page.wait_for_timeout(500)
    assert page.get_by_text("⚠").count() == 0


def test_an_image_is_chosen_by_the_enter_key_and_by_sliders(page: Any) -> None:
    page.locator("#sheet button").nth(6).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture h3:has-text('instance 2')")
    assert page.locator("#picture h3").inner_text() == "category 00001 (label 1), instance 2"
    page.get_by_label("range slider for category", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#picture h3:has-text('category 00002')")
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => t.value.includes('drawer.draw(202)'))")


def test_two_settings_stand_side_by_side(page: Any) -> None:
    before = first(page)
    page.get_by_text("Keep this sheet beside").click()
    page.wait_for_selector("#kept img")
    page.get_by_label("range slider for octaves").focus()
    page.keyboard.press("ArrowRight")
    wait_for_other(page, before)
    assert page.get_attribute("#kept img", "src") == before


def test_other_generators_and_scenes_are_shown(page: Any) -> None:
    before = first(page)
    page.get_by_label("generator").first.click()
    page.get_by_role("option", name="bezier").click()
    wait_for_other(page, before)
    before = first(page)
    page.get_by_label("scenes").click()
    wait_for_other(page, before)
    page.wait_for_selector("#picture h3:has-text('scene 0')")
    assert page.locator("#picture figure").count() == 3 and "scene:" in yaml(page)


@pytest.mark.parametrize("width", [400, 1400], ids=["narrow", "wide"])
def test_a_generator_of_a_third_party_has_its_controls_and_images(browser: Any, with_rings: Served, width: int) -> None:
    page = opened(browser, with_rings.address, width)
    page.wait_for_selector("#picture img", timeout=180_000)
    before = first(page)
    page.get_by_label("generator").first.click()
    page.get_by_role("option", name="rings").click()
    wait_for_other(page, before)
    page.get_by_text("most rings (rings, from 2 to 100)").wait_for()
    page.wait_for_function("document.querySelector('#yaml textarea').value.includes('name: rings')")

    # Gradio replaces the controls a moment after they appear; what is pressed before that is lost.
    page.wait_for_timeout(2000)
    before, recipe = first(page), yaml(page)
    page.get_by_label("range slider for largest").focus()
    page.keyboard.press("End")
    wait_for_other(page, before)
    page.wait_for_function("document.querySelector('#yaml textarea').value.includes('largest: 100')")
    assert "largest: 100" not in recipe

    page.locator("#sheet button").nth(5).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture h3:has-text('category 00001 (label 1), instance 1')")
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => t.value.includes('rings'))")
    check_with_axe(page, ["#sheet", "#picture"])
    assert page.foreign == [] and page.problems == []
    page.context.close()


def test_the_recipe_is_saved(page: Any, tmp_path: Path) -> None:
    with page.expect_download() as download:
        page.get_by_text("Save this recipe").click()
    download.value.save_as(tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == yaml(page)


def test_nothing_that_we_add_is_found_by_axe(page: Any) -> None:
    check_with_axe(page, ["#sheet", "#picture", "#kept"])


def check_with_axe(page: Any, own: list[str]) -> None:
    """axe-core finds nothing in what we add, and in the rest what is known."""
    if not AXE.is_file():
        pytest.skip("there is no axe-core here: npm install axe-core, or its axe.min.js in AXE_CORE")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    ours = page.evaluate("own => axe.run({include: own.map(each => [each])})", own)["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in ours] == []
    assert {each["id"] for each in found} <= OF_GRADIO, [(e["id"], e["nodes"][0]["html"][:200]) for e in found]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_store_is_browsed_filtered_verified_and_measured(store_page: Any) -> None:
    page = store_page
    assert page.locator("#sheet img").count() == 24
    before = first(page)
    page.get_by_label("range slider for page").focus()
    page.keyboard.press("ArrowRight")
    wait_for_other(page, before)
    page.locator("#sheet button").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture h3:has-text('scene 26')")
    assert page.locator("#picture figure").count() == 3
    page.get_by_label("range slider for index", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#picture h3:has-text('scene 27')")
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => t.value.includes('store.scene(27)'))")
    page.get_by_role("textbox", name="category").press_sequentially("00003")
    page.get_by_text(re.compile("scenes with an object of category 00003; page 1 of")).wait_for()
    page.get_by_role("textbox", name="category").press_sequentially("x")
    page.wait_for_selector("[role=alert] .fv-problem")
    page.get_by_role("button", name="Verify").click()
    page.get_by_text("60 images drawn again: no problem found").wait_for(timeout=120_000)
    page.get_by_role("button", name="Measure").click()
    page.wait_for_selector("#measured img", timeout=120_000)
    assert "60 of 60 scenes" in page.inner_text("#measured")
    check_with_axe(page, ["#sheet", "#picture", "#measured", "#verified"])


@pytest.mark.parametrize("width", [400, 1400], ids=["narrow", "wide"])
def test_a_comparison_is_followed(browser: Any, tmp_path: Path, width: int) -> None:
    write(tmp_path, [result("scratch", 0, 0.5), result(ARM, 0, None), result(ARM, 1, None, error="out of ink")])
    begin(tmp_path / f"runs/{ARM}/digits-{KEY[:-1]}0", 1)
    served = Served(str(tmp_path))
    try:
        page = opened(browser, served.address, width)
        page.wait_for_selector("#shown table", timeout=180_000)
        page.get_by_text("stopped: digits, epoch 1, accuracy 20.0% on test images").wait_for()
        begin(tmp_path / f"runs/{ARM}/digits-{KEY[:-1]}0", 2)
        page.get_by_text("stopped: digits, epoch 2, accuracy 40.0% on test images").wait_for()
        write(tmp_path, [result("scratch", 0, 0.5), result(ARM, 0, 0.75), result(ARM, 1, 0.7)])
        page.get_by_text("3 of 3 results done").wait_for()
        check_with_axe(page, ["#status", "#shown", "#curves", "#pictures"])
        assert page.foreign == [] and page.problems == []
        shutil.rmtree(tmp_path)
        page.get_by_text("no such folder").wait_for()
        page.context.close()
    finally:
        served.close()


def test_two_visitors_are_served_and_a_worker_that_is_killed_is_replaced(browser: Any, perlin: Served) -> None:
    pages = [opened(browser, perlin.address, 1400) for _ in range(2)]
    for page in pages:
        page.wait_for_selector("#picture img", timeout=180_000)
    before = [first(page) for page in pages]
    children = subprocess.run(["pgrep", "-P", str(perlin.process.pid)], capture_output=True, text=True, check=True)
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGKILL)
    for page in pages:
        page.get_by_label("range slider for octaves").focus()
        page.keyboard.press("ArrowRight")
    for page, old in zip(pages, before, strict=True):
        wait_for_other(page, old)
        assert page.problems == []
        page.context.close()


def test_a_page_for_others_needs_its_token(browser: Any) -> None:
    served = Served("perlin", "--host", "0.0.0.0")
    try:
        address = served.address.replace("0.0.0.0", "127.0.0.1")
        assert re.search(r"\?token=\S{20,}$", address)
        stranger = browser.new_context().new_page()
        assert stranger.goto(address.partition("?")[0]).status == 401
        guest = opened(browser, address, 1400)
        guest.wait_for_selector("#picture img", timeout=180_000)
        assert "token" not in guest.url and guest.foreign == []
    finally:
        served.close()
