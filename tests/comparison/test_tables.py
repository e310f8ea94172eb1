"""The table says what was found, what chance would explain, and what the paper has."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from formulavision.comparison.printing import print_table, to_markdown
from formulavision.comparison.results import ArmFacts, Findings, Provenance, Result
from formulavision.comparison.tables import table_csv, table_of
from formulavision.comparison.wording import explanations, points

TOP_1 = "top-1 accuracy"
HERE = Provenance(machine="a machine", versions={})

Scores = dict[str, list[float | None]]


def findings(scores: Scores, *, metric: str = TOP_1, **more: object) -> Findings:
    """Arms with a score a seed on one downstream; against scratch where there is an arm of this name."""
    baseline = "scratch" if "scratch" in scores else None
    entries = [
        Result(
            arm,
            "digits",
            "none",
            seed,
            score=score,
            metric=metric if score is not None else None,
            computed=HERE if score is not None else None,
            folder=f"{arm}-{seed}",
        )
        for arm, values in scores.items()
        for seed, score in enumerate(values)
    ]
    data: dict[str, object] = {
        "name": "a table",
        "size": "full",
        "model": "resnet18",
        "data": "on-demand",
        "arms": {
            arm: ArmFacts(
                content=arm,
                origin="",
                scratch=arm == "scratch",
                base=arm,
                baseline=None if arm == baseline else baseline,
            )
            for arm in scores
        },
        "downstreams": {"digits": "0"},
        "freezes": ["none"],
        "results": entries,
    }
    return Findings.model_validate({**data, **more})


def markdown(found: Findings, folder: Path) -> str:
    return to_markdown(table_of(found, folder))


def caption(found: Findings) -> str:
    return explanations(table_of(found, Path()))[0]


def line(text: str, arm: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(f"| {arm} |"))


def test_markdown_has_mean_deviation_and_difference_and_the_best_in_bold(tmp_path: Path) -> None:
    text = markdown(findings({"scratch": [0.5, 0.6], "ours": [0.7, 0.9]}), tmp_path)
    assert "| arm | digits | to scratch |" in text
    assert line(text, "scratch") == "| scratch | 55.0 ± 7.1 |  |"
    assert line(text, "ours") == "| ours | **80.0 ± 14.1** | +25.0 |"
    assert "mean ± standard deviation over 2 seeds" in text
    assert "4 of 4 results computed on a machine." in text


def test_a_difference_beyond_chance_over_seeds_is_marked(tmp_path: Path) -> None:
    found = findings({"scratch": [0.50, 0.51, 0.52], "ours": [0.701, 0.71, 0.72], "same": [0.50, 0.53, 0.49]})
    text = markdown(found, tmp_path)
    assert line(text, "ours").endswith(r"| +20.0\* |")
    assert line(text, "same").endswith("| −0.3 |")
    assert r"\* is a difference beyond chance: paired t-test over seeds, p < 0.05 after Holm's correction." in text


def test_one_seed_is_tested_by_its_images(tmp_path: Path) -> None:
    for arm, right in (("scratch", 20), ("ours", 40)):
        (tmp_path / f"{arm}-0").mkdir()
        label = np.zeros(60, np.int64)
        predicted = (np.arange(60) >= right).astype(np.int64)
        np.savez(tmp_path / f"{arm}-0" / "predictions.npz", label=label, predicted=predicted)
    found = findings({"scratch": [20 / 60], "ours": [40 / 60]})
    text = markdown(found, tmp_path)
    assert line(text, "ours").endswith("+33.3 |"), "one seed says nothing of the arm, and has no star"
    assert "A difference of one seed is not marked" in text and "beyond chance" not in text
    assert "On these test images, the single trained models of these arms differ: ours and scratch (digits)" in text
    (cell,) = (row for row in csv.DictReader(io.StringIO(table_csv(table_of(found, tmp_path)))) if row["arm"] == "ours")
    assert cell["test"] == "McNemar's exact test"
    assert float(cell["p_corrected"]) == pytest.approx(2 / 2**20, rel=1e-5)
    assert cell["significant"] == ""
    # One of the models was evaluated again, on others of the same number.
    for arm, digest in (("scratch", "a"), ("ours", "b")):
        (tmp_path / f"{arm}-0" / "evaluation.json").write_text(f'{{"downstream": {{"test_digest": "{digest}"}}}}')
    (cell,) = (row for row in csv.DictReader(io.StringIO(table_csv(table_of(found, tmp_path)))) if row["arm"] == "ours")
    assert (cell["test"], cell["p"], cell["difference"]) == ("", "", "0.333333")
    # Both were, on the same other images: the scores of the table are not of these.
    for arm, score in (("scratch", 20 / 60), ("ours", 0.5)):
        content = {"downstream": {"test_digest": "c"}, "score": score}
        (tmp_path / f"{arm}-0" / "evaluation.json").write_text(json.dumps(content))
    (cell,) = (row for row in csv.DictReader(io.StringIO(table_csv(table_of(found, tmp_path)))) if row["arm"] == "ours")
    assert (cell["test"], cell["p"], cell["difference"]) == ("", "", "0.333333")


def test_the_caption_tells_of_as_many_seeds_as_there_are() -> None:
    cases: list[tuple[Scores, str]] = [
        ({"scratch": [0.5, 0.6, None], "ours": [0.7, 0.9, None]}, "mean ± standard deviation over 2 seeds"),
        ({"scratch": [0.5, 0.6, 0.7], "ours": [0.7, 0.9, None]}, "mean ± standard deviation over up to 3 seeds"),
        ({"scratch": [0.5, None, None], "ours": [0.7, None, None]}, "one of 3 seeds"),
        ({"scratch": [None, None], "ours": [None, None]}, "mean ± standard deviation over 2 seeds"),
        ({"scratch": [0.5], "ours": [0.7]}, "one seed (0)"),
    ]
    for scores, told in cases:
        assert f", {told}; resnet18" in caption(findings(scores))


def test_the_papers_numbers_stand_beside_ours_with_the_agreement_of_their_order(tmp_path: Path) -> None:
    paper = {"digits": {"scratch": 87.6, "a": 90.9, "b/none": 93.4}}
    found = findings({"scratch": [0.4], "a": [0.6], "b": [0.5], "c": [0.9]}, paper=paper)
    text = markdown(found, tmp_path)
    assert "| arm | digits | to scratch | paper |" in text
    assert line(text, "b").endswith("| 93.4 |")
    assert line(text, "c").endswith("|  |")
    assert "Order on digits against the paper's: rank correlation (Spearman) 0.50 of 3 results." in text


def test_two_numbers_of_the_paper_have_no_order_to_speak_of(tmp_path: Path) -> None:
    found = findings({"scratch": [0.4], "a": [0.6]}, paper={"digits": {"scratch": 87.6, "a": 90.9}})
    assert "Spearman" not in markdown(found, tmp_path)


def test_what_failed_says_why_and_what_is_missing_is_told_apart(tmp_path: Path) -> None:
    found = findings({"scratch": [0.4], "bad": [None], "later": [None]})
    found.results[1].error = "out of ink"
    text = markdown(found, tmp_path)
    assert line(text, "bad") == "| bad | failed |"
    assert line(text, "later") == "| later | – |"
    assert "- bad failed (everywhere): out of ink" in text
    assert "- later: 1 result yet to be computed (everywhere)" in text
    assert [row["arm"] for row in csv.DictReader(io.StringIO(found.to_csv()))] == ["scratch", "bad"]


def test_probes_and_frozen_layers_have_a_column(tmp_path: Path) -> None:
    found = findings({"ours": [0.4]})
    found.results.append(
        Result(
            "ours",
            "digits",
            "linear-probe",
            0,
            score=0.3,
            metric=TOP_1,
        )
    )
    found.freezes.append("linear-probe")
    text = markdown(found, tmp_path)
    assert "| arm | frozen | digits |" in text
    assert "| ours | all (linear probe) | 30.0 |" in text


def test_seeds_that_not_all_arms_have_are_told() -> None:
    assert "over 2 seeds" in caption(findings({"a": [0.4, 0.5], "b": [0.4, 0.5]}))
    assert "over up to 2 seeds" in caption(findings({"a": [0.4, 0.5], "b": [0.4]}))
    assert "one seed (0)" in caption(findings({"a": [0.4], "b": [0.4]}))


def test_the_metric_is_named(tmp_path: Path) -> None:
    assert caption(findings({"a": [0.4]})).startswith("Top-1 accuracy in per cent")
    several = findings({"a": [0.4]}, metric="mean average precision")
    assert caption(several).startswith("Mean average precision (mAP) in per cent")
    assert "| arm | digits (mAP) |" in markdown(several, tmp_path)


def test_arms_that_share_their_models_share_one_test(tmp_path: Path) -> None:
    scores: Scores = {
        "scratch": [0.5, 0.51, 0.5],
        "ours": [0.6, 0.62, 0.61],
        "same": [0.6, 0.62, 0.61],
        "x": [0.5, 0.6, 0.7],
    }
    found = findings(scores)
    for result in found.results:
        if result.arm == "same":
            result.folder = f"ours-{result.seed}"
    cells = table_of(found, tmp_path).cells
    ours, same, other = (cells[arm, "none", "digits"] for arm in ("ours", "same", "x"))
    assert ours.p_corrected == same.p_corrected == 2 * (ours.p or 0) and other.p_corrected == other.p
    assert (ours.tests, same.tests, other.tests) == (2, 2, 2)
    for result in found.results:
        result.folder = None  # findings of before it was kept: nobody knows
    assert table_of(found, tmp_path).cells["ours", "none", "digits"].tests == 3


def test_the_csv_has_a_line_a_cell(tmp_path: Path) -> None:
    found = findings({"scratch": [0.5, 0.6], "ours": [0.7, 0.9]}, paper={"digits": {"ours": 93.4}})
    scratch, ours = csv.DictReader(io.StringIO(table_csv(table_of(found, tmp_path))))
    assert (ours["mean"], ours["seeds"], ours["baseline"], ours["paper"]) == ("0.8", "2", "scratch", "0.934")
    assert (scratch["difference"], scratch["significant"]) == ("", "")


def test_the_terminal_shows_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    found = findings({"scratch": [0.50, 0.51, 0.52], "[bold]": [0.701, 0.71, 0.72]}, notes=["a note"])
    print_table(table_of(found, tmp_path), tmp_path)
    screen = capsys.readouterr().out
    assert "[bold]" in screen
    assert "71.0 ± 1.0" in screen
    assert "+20.0*" in screen
    assert "a note" in screen
    assert f"report: {tmp_path / 'report.html'}" in screen


def test_the_note_stands_before_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noted = findings({"scratch": [0.5]}, configurations={"a": "name: a"}, caveats={"a": "a demonstration, <b> | *"})
    text = markdown(noted, tmp_path)
    assert text.index("> Note: a demonstration, &lt;b> \\| \\*") < text.index("| arm |")
    print_table(table_of(noted, tmp_path), tmp_path)
    assert "\nNote: a demonstration, <b> | *\n" in capsys.readouterr().out


def test_a_name_takes_as_much_of_a_line_as_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "an-arm-whose-name-is-longer-than-half-of-the-lines-of-a-terminal"
    found = findings({"scratch": [0.50, 0.51], name: [0.70, 0.71]})
    print_table(table_of(found, tmp_path), tmp_path)
    assert name in capsys.readouterr().out


def test_no_difference_is_written_without_a_sign(tmp_path: Path) -> None:
    found = findings({"scratch": [0.5, 0.6], "same": [0.5001, 0.5998]})
    assert line(markdown(found, tmp_path), "same").endswith("| 0.0 |")
    assert points(-0.0004) == "0.0"
    assert (points(0.012), points(-0.012)) == ("+1.2", "−1.2")


def test_the_best_is_that_of_fine_tuning_or_of_one_probe() -> None:
    found = findings({"a": [0.4], "b": [0.5]})
    for arm, score in (("a", 0.9), ("b", 0.8)):
        found.results.append(
            Result(
                arm,
                "digits",
                "linear-probe",
                0,
                score=score,
                metric=TOP_1,
            )
        )
    found.freezes.append("linear-probe")
    best = {(cell.arm, cell.freeze) for cell in table_of(found, Path()).cells.values() if cell.best}
    assert best == {("b", "none"), ("a", "linear-probe")}
    assert "the best of a column, of fine-tuning and of each probe by itself, in bold" in caption(found)


def test_seeds_that_only_one_of_two_arms_has_are_told_below_the_table(tmp_path: Path) -> None:
    missing = "Where results are missing, a difference is of the seeds that both arms have."
    assert missing in markdown(findings({"scratch": [0.5], "ours": [0.7, 0.9]}), tmp_path)
    assert missing not in markdown(findings({"scratch": [0.5, 0.6], "ours": [0.7, 0.9]}), tmp_path)


def test_one_cause_at_several_places_is_one_note(tmp_path: Path) -> None:
    found = findings({"bad": [None, None]})
    for i, row in enumerate(found.results):
        stage = f"bad-digits-0123456789abcde{i}"
        row.error = f"runs/{stage}/run.json: No space left on device (traceback: logs/{stage}.txt)"
    text = markdown(found, tmp_path)
    assert text.count("No space left on device (traceback: logs/bad-digits-0123456789abcde0.txt)") == 1
    assert text.count("No space left on device") == 1


def test_names_and_errors_of_others_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    found = findings({"scratch": [0.5], "ifs": [None]}, name="=a <script>x</script> | b\n# c")
    found.results[1].error = "<img src=x> [y](javascript:1) | z"
    text = markdown(found, tmp_path)
    assert text.startswith("# =a &lt;script>x&lt;/script> \\| b # c\n")
    assert "<img" not in text and "<script" not in text and "](javascript" not in text.replace("\\[y](javascript", "")
    rows = list(csv.reader(io.StringIO(found.to_csv(), newline="")))
    assert len({len(row) for row in rows}) == 1
