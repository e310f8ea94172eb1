"""The report is one file that a browser shows as it should, without asking the network for anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from formulavision.comparison import Comparison

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(params=[(400, "light"), (1400, "light"), (1400, "dark")], ids=["narrow", "wide", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, first: Comparison) -> Iterator[Any]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.problems = []
    page.asked_for = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("request", lambda sent: page.asked_for.append(sent.url))
    page.goto(first.report.as_uri())
    yield page
    context.close()


def test_it_asks_for_nothing_but_itself(page: Any, first: Comparison) -> None:
    assert [url for url in page.asked_for if not url.startswith("data:")] == [first.report.as_uri()]
    assert page.problems == []


def test_the_table_has_a_row_an_arm_and_what_failed_says_why(page: Any) -> None:
    assert page.title().startswith("stripes & <digits>")
    assert page.locator("h1").inner_text() == "stripes & <digits>"
    rows = page.locator("#results tbody tr")
    assert [rows.nth(i).locator("th").inner_text() for i in range(rows.count())] == ["scratch", "stripes", "broken"]
    assert rows.nth(2).locator("td").first.inner_text() == "failed"
    assert "ValueError: out of ink" in page.locator("#results li").inner_text()
    assert page.locator("#results td.best").count() >= 1


def test_plots_and_pictures_are_there_and_say_what_they_show(page: Any) -> None:
    pictures = page.evaluate("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth])")
    assert all(width > 100 for _, width in pictures), pictures
    names = [alt for alt, _ in pictures]
    assert names == [
        "Top-1 accuracy on digits by fine-tuning epoch, a line an arm",
        "Training accuracy by pre-training epoch, a line an arm",
        "Training loss by pre-training epoch, a line an arm",
        "Images of arm stripes: categories down, instances across",
    ]


def test_it_fits_the_window(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_it_tells_how_to_do_it_again(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = page.locator("#reproduce").inner_text()
    assert "formulavision compare comparison.yaml" in text
    assert "train_per_class: 6" in text
    assert "torch" in text
    assert "comparison-test-stripes" in page.locator("#arms pre").first.inner_text()
