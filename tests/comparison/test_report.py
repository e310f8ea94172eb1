"""The report is one file that a browser shows as it should, without asking the network for anything."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import formulavision.evaluation
from formulavision.comparison.report import write_html
from formulavision.comparison.results import FINDINGS, TOP_1, ArmFacts, Findings, Provenance, Result
from formulavision.comparison.tables import table_of
from formulavision.evaluation import ClassDifference
from formulavision.recipes.recipe import Recipe
from formulavision.util.errors import CheckpointError, SmallFiltersError

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

LAPTOP = Provenance(machine="a laptop, 2 cores", versions={"Python": "3.11.2", "torch": "2.9.0"})
CLUSTER = Provenance(machine="a node, 1 accelerator", versions={"Python": "3.12.0", "torch": "2.9.1"})

SCORES = {"scratch": 0.5, "stripes": 0.7, "stripes-noise-0.5": 0.6, "stripes-noise-1.0": 0.4, "published": 0.8}
FREEZES = {"none": 0.0, "conv1": -0.05, "linear-probe": -0.1}


def recipe(**params: Any) -> dict[str, Any]:
    settings = {"name": "comparison-test-stripes", **params}
    canvas = {"size": 32, "padding": 0}
    return Recipe.from_dict({"generator": settings, "categories": 4, "instances": 16, "canvas": canvas}).to_dict()


def arm(name: str, **facts: Any) -> ArmFacts:
    start = {"content": name, "origin": f"origin of {name}", "scratch": False, "baseline": "scratch", "base": name}
    return ArmFacts(**{**start, **facts})


def history(score: float, seed: int, metric: str = "accuracy") -> list[dict[str, float | None]]:
    """Three epochs."""
    scores = [score * share + seed / 100 for share in (0.3, 0.8, 1)]
    return [
        {"epoch": i, "train_loss": 1 - a, "train_accuracy": a, f"validation_{metric}": a}
        for i, a in enumerate(scores, start=1)
    ]


def entry(name: str, downstream: str, freeze: str, seed: int) -> Result:
    """A result that is done."""
    score = SCORES[name] + FREEZES[freeze] + seed / 100 + (seed / 500 if name == "stripes" else 0)
    metric = "mean average precision" if downstream == "scenes" else TOP_1
    return Result(
        name,
        downstream,
        freeze,
        seed,
        score,
        metric,
        top5=0.9,
        loss=1.0,
        finetune_seconds=3.0,
        history=[]
        if freeze.endswith("-probe")
        else history(score, seed, "map" if downstream == "scenes" else "accuracy"),
        folder=f"runs/{name}/{downstream}-{freeze}-{seed}",
        start={"scratch": None, "published": "timm:resnet18.a1_in1k"}.get(name, f"runs/{name}/pretrain-{seed}"),
        computed=LAPTOP if seed == 0 else CLUSTER,
    )


def findings(**changes: Any) -> Findings:
    """Six arms, of which one fails and one is not done yet; two downstreams, two seeds, frozen layers and a probe."""
    arms = {
        "scratch": arm("scratch", scratch=True, baseline=None),
        "stripes": arm("stripes", recipe=recipe()),
        "stripes-noise-0.5": arm("noisy", base="noisy", path="labels.noise", value=0.5, recipe=recipe()),
        "stripes-noise-1.0": arm("noisy", base="noisy", path="labels.noise", value=1.0, recipe=recipe()),
        "published": arm("published", note="of a join"),
        "broken": arm("broken", recipe=recipe(broken=True)),
    }
    downstreams = {"digits": "0", "scenes": "1"}
    entries = []
    for name in arms:
        for downstream in downstreams:
            for freeze in FREEZES:
                for seed in (0, 1):
                    empty = Result(name, downstream, freeze, seed)
                    if name == "broken":
                        empty.error = "ValueError: out of ink"
                    if name == "broken" or (name == "published" and (downstream, seed) == ("scenes", 1)):
                        entries.append(empty)
                    elif not (name == "scratch" and freeze == "linear-probe"):
                        entries.append(entry(name, downstream, freeze, seed))
    content = {
        "name": "stripes & <digits>",
        "size": "smoke",
        "model": "resnet10t",
        "data": "on-demand",
        "arms": arms,
        "downstreams": downstreams,
        "freezes": list(FREEZES),
        "results": entries,
        "paper": {"digits": {"scratch": 80.0, "stripes": 90.0, "published": 95.0, "stripes/conv1": 85.0}},
        "pictures": ["filters", "grad-cam", "classes"],
        "configurations": {"stripes": "name: stripes\ndownstreams: {digits: digits, scenes: digits}\n"},
        "notes": ["a note of a join"],
        "pretrainings": {
            f"runs/{name}/pretrain-{seed}": history(0.9, seed)
            for name in arms
            if name.startswith("stripes")
            for seed in (0, 1)
        },
    }
    return Findings(**{**content, **changes})


def small(**changes: Any) -> Findings:
    """The same without sweeps and frozen layers, on one downstream."""
    content = findings()
    arms = {name: content.arms[name] for name in ("scratch", "stripes", "published", "broken")}
    entries = [e for e in content.results if (e.downstream, e.freeze) == ("digits", "none")]
    entries = [e for e in entries if e.arm in arms]
    return findings(
        **{"arms": arms, "downstreams": {"digits": "0"}, "freezes": ["none"], "results": entries, **changes}
    )


def write(folder: Path, found: Findings) -> str:
    """The report's text."""
    folder.mkdir(exist_ok=True)
    write_html(table_of(found, folder), folder)
    return (folder / "report.html").read_text(encoding="utf-8")


class Evaluation:
    """Stands for the models that the findings name, and counts how often one is looked at."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def first_layer_filters(self, checkpoint: Any, *, smallest: int) -> Image.Image:
        self.calls.append(f"filters of {checkpoint}")
        if str(checkpoint).startswith("timm:"):
            raise CheckpointError(f"{checkpoint}: cannot be fetched")
        return Image.new("RGB", (200, 200), (200, 30, 30))

    def grad_cam_sheet(self, checkpoints: Any, downstream: Any) -> Image.Image:
        self.calls.append(f"attention on {downstream.name}")
        return Image.new("RGB", (2400, 300), (30, 200, 30))

    def per_class_difference(self, first: Path, second: Path) -> list[ClassDifference]:
        return [ClassDifference(f"class {i}", 10, i / 4, 0.5, i / 4 - 0.5, 0.01) for i in range(5)]

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("first_layer_filters", "grad_cam_sheet", "per_class_difference"):
            patch.setattr(formulavision.evaluation, name, getattr(self, name), raising=False)


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    result = Evaluation()
    result.stand_in(monkeypatch)
    return result


# In a browser --------------------------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        Evaluation().stand_in(patch)
        write(folder, findings())
    return folder / "report.html"


@pytest.fixture(
    scope="module", params=[(400, "light"), (1400, "light"), (1400, "dark")], ids=["narrow", "wide", "dark"]
)
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.problems = []
    page.asked_for = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("request", lambda sent: page.asked_for.append(sent.url))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    yield page
    context.close()


def table(page: Any, selector: str) -> list[list[str]]:
    """The text of a table's body and foot."""
    return page.evaluate(
        "s => [...document.querySelectorAll(s + ' tbody tr, ' + s + ' tfoot tr')]"
        ".map(r => [...r.children].map(c => c.innerText.replaceAll('\\n', ' ')))",
        selector,
    )


def test_it_asks_for_nothing_but_itself(page: Any, report: Path) -> None:
    assert [url for url in page.asked_for if not url.startswith("data:")] == [report.as_uri()]
    assert page.problems == []


def test_it_fits_the_window(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_every_entry_of_the_contents_leads_somewhere(page: Any) -> None:
    missing = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash)).length"
    assert page.evaluate(missing) == 0
    assert page.locator("nav a").count() == page.locator("main section").count()


def test_sentences_come_first_then_pictures_of_the_formulas_then_the_table(page: Any) -> None:
    sections = page.evaluate("[...document.querySelectorAll('main section')].map(s => s.id)")
    assert sections[:3] == ["summary", "arms", "results"]
    assert (
        "Pre-training on stripes raises top-1 accuracy on digits by 20.1 points"
        in page.locator("#summary").inner_text()
    )


def test_everything_that_is_wider_than_the_window_can_be_scrolled_to_and_shows_that(page: Any) -> None:
    boxes = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)"
        ".map(e => [getComputedStyle(e).overflowX, e.tabIndex, "
        "getComputedStyle(e).backgroundImage.split('-gradient').length - 1])"
    )
    assert all(box == ["auto", 0, 2] for box in boxes), boxes


def test_the_table_has_scores_differences_and_the_papers_numbers(page: Any) -> None:
    assert page.title().startswith("stripes & <digits>")
    assert page.locator("h1").inner_text() == "stripes & <digits>"
    rows = {(row[0], row[1]): row[2:] for row in table(page, "#results table")}
    # By seed: scratch 50 and 51, stripes 70 and 71.2.
    assert rows["scratch", "none"] == ["50.5 ± 0.7", "", "80.0", "50.5 ± 0.7", ""]
    assert rows["stripes", "none"][:3] == ["70.6 ± 0.8", "+20.1* p = 0.013", "90.0"]
    assert rows["stripes", "conv1"][:3] == ["65.6 ± 0.8", "+20.1* p = 0.013", "85.0"]
    assert rows["stripes-noise-1.0", "none"][1].startswith("−10.0")
    assert rows["published", "none"][3] == "80.0 1 of 2 seeds"
    assert rows["stripes", "all (linear probe)"][1] == ""
    assert rows["broken", "none"][0] == "failed"
    assert page.locator("#results td.best").all_inner_texts()[0] == "80.5 ± 0.7"


def test_the_table_tells_how_far_the_papers_order_is_ours(page: Any) -> None:
    text = page.locator("#results-note").inner_text()
    assert "Order on digits against the paper's: rank correlation (Spearman) 1.00 of 4 results." in text


def test_what_failed_and_what_is_yet_to_be_computed_is_told(page: Any) -> None:
    assert "12 of 68 results failed; 3 of 68 results are yet to be computed" in page.locator("header").inner_text()
    failed, pending = page.locator("#missing li").all_inner_texts()
    assert failed == "broken failed (everywhere): ValueError: out of ink"
    assert pending.startswith("published: 3 results yet to be computed (scenes, seed 1; scenes, frozen: conv1, seed 1;")


def test_curves_are_of_the_score_of_their_downstream(page: Any) -> None:
    assert page.locator("#curves h2").inner_text() == "Score by epoch"
    assert "Score on the downstream’s test images" in page.locator("#curves .note").first.inner_text()


def test_first_epochs_are_told(page: Any) -> None:
    rows = {row[0]: row[1:] for row in table(page, "#curves table.reached")[:5]}
    assert rows["scratch"] == ["2", "2", "2", "3", "never", "never"]
    assert rows["published"][-2:] == ["2", "3"]


def test_better_and_worse_classes_stand_side_by_side(page: Any) -> None:
    assert [row[0] for row in table(page, "#classes details:first-of-type table.better")] == ["class 4", "class 3"]
    assert [row[0] for row in table(page, "#classes details:first-of-type table.worse")] == ["class 0", "class 1"]


def test_plots_and_pictures_are_there_and_say_what_they_show(page: Any) -> None:
    pictures = page.evaluate("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth])")
    assert all(width > 100 for _, width in pictures), pictures
    assert [alt for alt, _ in pictures] == [
        "Images of arm stripes: categories down, instances across",
        *(
            f"{metric} on {downstream} by labels.noise"
            for downstream, metric in (("digits", "Top-1 accuracy"), ("scenes", "Mean average precision"))
            for _ in FREEZES
        ),
        "Top-1 accuracy on digits by frozen layers",
        "Mean average precision on scenes by frozen layers",
        "Top-1 accuracy on digits by fine-tuning epoch, a line an arm",
        "Mean average precision on scenes by fine-tuning epoch, a line an arm",
        "Top-1 accuracy on digits, frozen: conv1 by fine-tuning epoch, a line an arm",
        "Mean average precision on scenes, frozen: conv1 by fine-tuning epoch, a line an arm",
        "Training loss by pre-training epoch, a line an arm",
        "Training accuracy by pre-training epoch, a line an arm",
        "Accuracy on held-out images by pre-training epoch, a line an arm",
        "Grad-CAM on test images of digits: scratch, stripes, stripes-noise-0.5, stripes-noise-1.0, published",
        "Grad-CAM on test images of scenes: scratch, stripes, stripes-noise-0.5, stripes-noise-1.0, published",
        "First-layer filters of arm stripes",
        "First-layer filters of arm stripes-noise-0.5",
        "First-layer filters of arm stripes-noise-1.0",
    ]


def test_a_picture_that_cannot_be_made_says_why(page: Any) -> None:
    assert page.locator("#filters .bad").inner_text() == "timm:resnet18.a1_in1k: cannot be fetched"
    assert "out of ink" in page.locator("#arms .bad").inner_text()


def test_arms_of_the_same_recipe_show_its_images_once(page: Any) -> None:
    assert page.locator("#arms").inner_text().count("The same images as stripes.") == 2


def test_it_tells_where_rows_were_computed_and_how_to_do_it_again(page: Any) -> None:
    machines = table(page, "#reproduce table.machines")
    assert [row[:3] for row in machines] == [["1", LAPTOP.machine, "28"], ["2", CLUSTER.machine, "25"]]
    assert machines[0][3] == "Python 3.11.2, torch 2.9.0"
    assert table(page, "#runs table")[0][-1] == "1"
    text = page.locator("#reproduce").inner_text()
    assert "formulavision compare comparison.yaml" in text
    assert "name: stripes" in text


# Without one ---------------------------------------------------------------------------------------------------------


def test_findings_that_were_read_back_give_the_same_report(tmp_path: Path, evaluation: Evaluation) -> None:
    first = write(tmp_path, small())
    (tmp_path / FINDINGS).write_text(small().to_json(), encoding="utf-8")
    assert write(tmp_path, Findings.load(tmp_path)) == first


def test_pictures_are_made_once(tmp_path: Path, evaluation: Evaluation) -> None:
    first = write(tmp_path, small())
    assert "attention on digits" in evaluation.calls
    assert f"filters of {tmp_path}/runs/stripes/pretrain-0" in evaluation.calls
    evaluation.calls.clear()
    assert write(tmp_path, small()) == first
    # What could not be made is tried again.
    assert evaluation.calls == ["filters of timm:resnet18.a1_in1k"]


def test_pictures_of_a_run_that_was_trained_anew_are_made_anew(tmp_path: Path, evaluation: Evaluation) -> None:
    write(tmp_path, small())
    evaluation.calls.clear()
    run = tmp_path / "runs/stripes/pretrain-0/run.json"
    run.parent.mkdir(parents=True)
    run.touch()
    later = max(file.stat().st_mtime for file in (tmp_path / "pictures").iterdir()) + 10
    os.utime(run, (later, later))
    write(tmp_path, small())
    assert f"filters of {run.parent}" in evaluation.calls
    assert not any(call.startswith("attention") for call in evaluation.calls)


def test_pictures_shrink_to_the_width_that_they_are_read_at(tmp_path: Path, evaluation: Evaluation) -> None:
    write(tmp_path, small())
    (sheet,) = (tmp_path / "pictures").glob("grad-cam-digits-*")
    with Image.open(sheet) as image:
        assert image.size == (1000, 125)


def test_small_filters_are_left_out_with_the_reason_told_once(
    tmp_path: Path, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_filters(checkpoint: Any, *, smallest: int) -> Image.Image:
        raise SmallFiltersError(f"filters of 3 x 3 pixels are smaller than {smallest} x {smallest}")

    monkeypatch.setattr(formulavision.evaluation, "first_layer_filters", small_filters)
    text = write(tmp_path, small())
    assert text.count("Left out: filters of 3 x 3 pixels are smaller than 5 x 5, and show no pattern.") == 1
    assert "First-layer filters of arm" not in text


def test_attention_is_of_the_model_with_the_fewest_layers_frozen(
    tmp_path: Path, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(checkpoints: dict[str, Path], downstream: Any) -> Image.Image:
        seen.extend(path.name for path in checkpoints.values())
        return Image.new("RGB", (24, 24))

    monkeypatch.setattr(formulavision.evaluation, "grad_cam_sheet", look)
    text = write(tmp_path, findings(freezes=["linear-probe", "conv1", "none"], pictures=["grad-cam"]))
    assert set(seen) == {"digits-none-0", "scenes-none-0"}
    assert "each map is scaled by its own maximum" in text


def test_pictures_that_are_not_wanted_are_not_made(tmp_path: Path, evaluation: Evaluation) -> None:
    text = write(tmp_path, small(pictures=[]))
    assert evaluation.calls == []
    assert not re.search('id="(filters|attention|classes)"', text)


def test_a_downstream_that_is_not_at_hand_leaves_a_line(tmp_path: Path, evaluation: Evaluation) -> None:
    elsewhere = "downstreams: {digits: 'folder:/nowhere'}\n"
    text = write(tmp_path, small(configurations={"stripes": elsewhere}))
    assert re.search('<p class="bad">/nowhere', text)
    assert "First-layer filters of arm stripes" in text


def test_one_seed_is_tested_on_the_images_of_its_runs(tmp_path: Path, evaluation: Evaluation) -> None:
    found = small()
    found.results = [each for each in found.results if each.seed == 0]
    assert "McNemar&#39;s exact test over the images" not in write(tmp_path, found)
    for each in found.results:
        if each.folder is not None:
            (tmp_path / each.folder).mkdir(parents=True)
            right = np.arange(1000) < 1000 * (each.score or 0)
            np.savez(tmp_path / each.folder / "predictions.npz", label=np.zeros(1000), predicted=~right)
    text = write(tmp_path, found)
    assert "McNemar&#39;s exact test over the images" in text
    assert 'class="difference beyond chance"' not in text


def test_one_cause_at_several_places_is_one_line(tmp_path: Path, evaluation: Evaluation) -> None:
    found = small()
    for i, row in enumerate(row for row in found.results if row.arm == "broken"):
        row.error = f"runs/broken/pretrain-0123456789abcde{i}/model.safetensors: No space left on device"
    text = write(tmp_path, found)
    assert re.findall("<li>broken failed (.*)</li>", text) == [
        "(everywhere): …/model.safetensors: No space left on device"
    ]


def test_classes_beyond_the_ten_that_are_shown_are_counted_and_kept(
    tmp_path: Path, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(first: Path, second: Path) -> list[ClassDifference]:
        return [ClassDifference(f"class {i}", 10, 0.9, 0.5, 0.4, 0.02) for i in range(13)]

    monkeypatch.setattr(formulavision.evaluation, "per_class_difference", compare)
    text = write(tmp_path, small(pictures=["classes"]))
    assert text.count("and 3 more on which it does better") == 2
    assert 'row">class 9<' in text and 'row">class 10<' not in text
    assert (tmp_path / "plots" / "classes.csv").read_text(encoding="utf-8").count("class 12") == 2


def test_a_difference_over_fewer_seeds_than_the_score_says_so(tmp_path: Path, evaluation: Evaluation) -> None:
    found = small(pictures=[])
    found.results = [e for e in found.results if (e.arm, e.seed) != ("scratch", 1)]
    text = write(tmp_path, found)
    assert "+20.0<small>1 of 2 seeds" in text
    assert "a difference is of the seeds that both arms have" in text


def test_a_comparison_that_has_just_begun_has_a_report(tmp_path: Path, evaluation: Evaluation) -> None:
    found = small()
    found.results = [
        Result(
            e.arm,
            e.downstream,
            e.freeze,
            e.seed,
        )
        for e in found.results
    ]
    text = write(tmp_path, found)
    assert "8 of 8 results are yet to be computed" in text
    assert not re.search('id="(tests|curves|sweeps|filters)"', text)


def test_the_note_is_in_the_first_section(tmp_path: Path, evaluation: Evaluation) -> None:
    text = write(tmp_path, small(caveats={"stripes": "it ranks <b> no formula"}))
    assert text.index("Note: it ranks &lt;b&gt; no formula") < text.index('<section id="results">')


def test_a_join_tells_how_each_of_its_comparisons_was_made(tmp_path: Path, evaluation: Evaluation) -> None:
    text = write(tmp_path, small(configurations={"monday": "name: monday\n", "tuesday": "name: tuesday\n"}))
    assert "formulavision report FOLDER FOLDER" in text
    assert "Configuration of tuesday" in text
    assert "a note of a join" in text


def test_a_sweep_of_many_arms_shows_the_best_of_them_one_by_one(tmp_path: Path, evaluation: Evaluation) -> None:
    values = list(range(1, 31))
    arms = {"scratch": arm("scratch", scratch=True, baseline=None)}
    arms |= {f"stripes-epochs-{v}": arm("", base="stripes", path="pretrain.epochs", value=v) for v in values}
    entries = [
        Result(
            *(name, "digits", "none", 0, 0.9 - abs((facts.value or 0) - 20) / 100, TOP_1),
            history=history(0.5, 0),
            folder=name,
            start=f"runs/{name}",
        )
        for name, facts in arms.items()
    ]
    text = write(
        tmp_path, small(arms=arms, results=entries, pretrainings={f"runs/{name}": history(0.9, 0) for name in arms})
    )
    assert "Grad-CAM on test images of digits: scratch, stripes-epochs-20" in text
    assert "Top-1 accuracy on digits by pretrain.epochs" in text
    assert len(list((tmp_path / "plots").iterdir())) == 1 + 1 + 2 * 3 + 1
