"""Views of a comparison that is going on: its table, and the curves of runs that are done and that are not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unfinished_comparison import ARM, KEY, ROWS, begin, result, write

from formulavision.comparison.results import Findings
from formulavision.explorer.app import page_of
from formulavision.explorer.comparison_page import ComparisonPage
from formulavision.explorer.comparison_views import _unfinished, _with_lines, watch
from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import gallery_html, results_html, status_html
from formulavision.explorer.worker import Worker, unwatched
from formulavision.util.errors import ConfigError
from formulavision.util.folders import locked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One result done, one going on after its pre-training, one failed."""
    start = f"runs/fractal/pretrain-{KEY}"
    results = [
        result("scratch", 0, 0.5), result(ARM, 0, None, start=start), result(ARM, 1, None, error="out of ink")
    ]  # fmt: skip
    write(tmp_path, results)
    begin(tmp_path / start, 2)
    return tmp_path


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib takes seconds; tests/comparison looks at the plots."""
    monkeypatch.setattr("formulavision.comparison.plots._svg", lambda draw, title: f"<svg>{title}</svg>")


def test_what_is_done_goes_on_and_failed_is_told(folder: Path) -> None:
    with locked(folder / "runs" / f"{KEY}.lock", lambda: None):
        found = watch(str(folder), "", unwatched)
    assert found is not None
    assert found.told[0] == "1 of 3 results done, 1 failed, 1 yet to be computed, no process computes them now"
    assert found.told[1].startswith(
        f"{ARM}, seed 0: going on: pre-training, epoch 2, accuracy 40.0% on held-out images"
    )
    assert found.missing[0] == f"{ARM} failed (digits, seed 1): out of ink"
    assert [cell.text for cell in found.rows[0]][:2] == ["scratch", "50.0"]
    assert "Pre-training" in found.curves and found.pictures == {}
    page = status_html(found) + results_html(found) + gallery_html(found.curves, captions=False)
    assert "<b>fractal" not in page and page.count('class="fv-problem"') == 2  # the sentence, and the cell


def test_runs_without_a_process_were_stopped_and_new_rows_are_seen(folder: Path) -> None:
    found = watch(str(folder), "", unwatched)
    assert found is not None and f"{ARM}, seed 0: stopped" in found.told[1]
    assert watch(str(folder), found.version, unwatched) is None
    run = folder / f"runs/{ARM}/digits-{KEY[:-1]}0"
    begin(run, 1)
    later = watch(str(folder), found.version, unwatched)
    assert later is not None and later.version != found.version
    assert any("digits, epoch 1, accuracy 20.0% on test images" in line for line in later.told)


def test_unfinished_runs_are_lines_of_their_own_and_nothing_is_written(folder: Path) -> None:
    def there() -> set[tuple[Path, int]]:
        return {(file, file.stat().st_mtime_ns) for file in folder.rglob("*")}

    begin(folder / f"runs/{ARM}/digits-{KEY[:-1]}0", 1)
    before, findings = there(), Findings.load(folder)
    watch(str(folder), "", unwatched)
    shown = _with_lines(findings, list(_unfinished(findings, folder)), folder)
    assert there() == before
    line = f"{ARM}, seed 0: stopped"
    assert list(shown.arms) == ["scratch", ARM, line] and shown.pretrainings == {line: ROWS}
    assert [(r.start, r.history) for r in shown.results[3:]] == [(line, []), (None, ROWS[:1])]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(worker: Worker, work: Callable[..., Any], *given: Any, progress: Any = None) -> Any:
        return work(*given, unwatched)

    monkeypatch.setattr(Worker, "call", call)


def test_a_folder_that_is_deleted_or_damaged_while_it_is_shown_is_a_line(folder: Path, here: None) -> None:
    page = page_of(folder, Limits())
    assert isinstance(page, ComparisonPage)
    seen = page.watch("")
    assert seen is not None and "yet to be computed" in seen[0] and "formulavision report" in seen[3]
    assert page.watch(seen[-1]) is None
    (folder / "results.json").write_text("{")
    told = page.watch(seen[-1])
    assert told is not None and told[0].count("fv-problem") == 1 and "is damaged" in told[0]
    shutil.rmtree(folder)
    told = page.watch(seen[-1])
    assert told is not None and "no such folder" in told[0]


def test_a_comparison_that_failed_everywhere_has_a_page(tmp_path: Path, here: None) -> None:
    write(tmp_path, [result(arm, 0, None, error="ValueError: out of ink") for arm in ("scratch", ARM)])
    seen = ComparisonPage(tmp_path, Limits()).watch("")
    assert seen is not None and "0 of 2 results done, 2 failed" in seen[0] and seen[1].count("failed") == 2


@pytest.mark.parametrize("content", ["", "unfinished", "several", "damaged"])
def test_a_folder_that_cannot_be_shown_is_refused_in_a_line(tmp_path: Path, content: str) -> None:
    if content == "unfinished":
        (tmp_path / ".incomplete").mkdir()
    elif content == "several":
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            write(tmp_path / name, [])
    elif content == "damaged":
        (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ConfigError) as caught:
        page_of(tmp_path, Limits())
    expected = {"several": f"give one of {tmp_path}{os.sep}a, ", "damaged": "is damaged"}.get(content, "holds neither")
    assert expected in str(caught.value)
