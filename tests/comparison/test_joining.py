"""Comparisons that ran on different days and machines become one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from formulavision import report
from formulavision.comparison import pictures
from formulavision.comparison.results import FINDINGS, ArmFacts, Findings, Provenance, Result
from formulavision.comparison.wording import caveats
from formulavision.util.errors import ConfigError, StoreError

Score = tuple[str, str, int, float | None]


def leave(
    folder: Path, results: list[Score], *, arms: dict[str, str], machine: str = "one", tuned: str = "", **more: object
) -> Path:
    """A folder as a comparison leaves it.

    Args:
        results: arm, downstream, seed, score.
        arms: name -> content.
        tuned: hash of the arms' settings of fine-tuning.
    """
    entries = [
        Result(
            arm,
            downstream,
            "none",
            seed,
            score=score,
            metric="top-1 accuracy" if score else None,
            folder=f"runs/{arm}/{downstream}-{seed}",
            start="timm:resnet18" if arm == "timm" else f"runs/{arm}/pretrain",
            computed=Provenance(machine=machine, versions={}) if score else None,
        )
        for arm, downstream, seed, score in results
    ]
    data: dict[str, object] = {
        "name": folder.name,
        "size": "full",
        "model": "resnet18",
        "data": "on-demand",
        "arms": {
            name: ArmFacts(
                content=content,
                origin=content,
                scratch=name == "scratch",
                tuned=tuned,
                base=name,
                baseline="scratch" if "scratch" in arms and name != "scratch" else None,
            )
            for name, content in arms.items()
        },
        "downstreams": dict.fromkeys((downstream for _, downstream, _, _ in results), "images"),
        "freezes": ["none"],
        "results": entries,
        "configurations": {folder.name: f"name: {folder.name}"},
    }
    folder.mkdir(parents=True)
    (folder / "comparison.yaml").write_text(f"name: {folder.name}")
    (folder / FINDINGS).write_text(Findings.model_validate({**data, **more}).to_json())
    return folder


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        (("small", "small"), ["Note: small"]),
        (("small", None), ["Note: monday: small"]),
        (("small", "wide"), ["Note: monday: small", "Note: tuesday: wide"]),
        ((None, None), []),
    ],
)
def test_notes_are_told_with_the_name_of_their_comparison_where_they_differ(
    notes: tuple[str | None, str | None], told: list[str], tmp_path: Path, out: Path
) -> None:
    folders = [
        leave(tmp_path / day, [("ours", "c10", 0, 0.5)], arms={"ours": "a"}, caveats={day: note} if note else {})
        for day, note in zip(("monday", "tuesday"), notes, strict=True)
    ]
    joined = report(folders, out=out, show_progress=False).findings
    assert caveats(joined) == told
    # A join of joins tells the same.
    assert caveats(report([out, folders[0]], out=tmp_path / "again", show_progress=False).findings) == told


def test_notes_of_comparisons_of_one_name_are_told_apart(tmp_path: Path, out: Path) -> None:
    folders = [
        leave(
            tmp_path / day,
            [("ours", "c10", 0, 0.5)],
            arms={"ours": "a"},
            caveats={"mine": note},
            configurations={"mine": f"name: mine\nnote: {note}"},
        )
        for day, note in (("monday", "small"), ("tuesday", "wide"))
    ]
    joined = report(folders, out=out, show_progress=False).findings
    assert caveats(joined) == ["Note: mine: small", "Note: mine (tuesday): wide"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "joined"


def scores(findings: Findings) -> dict[tuple[str, str, int], float | None]:
    return {(row.arm, row.downstream, row.seed): row.score for row in findings.results}


def test_seeds_and_downstreams_of_the_same_arm_come_together(tmp_path: Path, out: Path) -> None:
    monday = leave(tmp_path / "monday", [("ours", "c10", 0, 0.5)], arms={"ours": "a"})
    tuesday = leave(
        tmp_path / "tuesday", [("ours", "c10", 1, 0.7), ("ours", "c100", 0, 0.2)], arms={"ours": "a"}, machine="two"
    )
    joined = report([monday, tuesday], out=out, show_progress=False)
    assert scores(joined.findings) == {
        ("ours", "c10", 0): 0.5,
        ("ours", "c10", 1): 0.7,
        ("ours", "c100", 0): 0.2,
    }
    assert joined.settings is None
    text = (out / "results.md").read_text()
    assert "60.0 ± 14.1" in text
    assert "1 of 3 results computed on one." in text
    assert "2 of 3 results computed on two." in text
    assert joined.findings.configurations == {"monday": "name: monday", "tuesday": "name: tuesday"}
    assert joined.report.is_file()
    assert Findings.load(out) == joined.findings


@pytest.mark.parametrize(("tuned", "baseline"), [("a", "scratch"), ("b", None), ("", None)])
def test_arms_without_a_baseline_get_that_of_another_comparison(
    tmp_path: Path, out: Path, tuned: str, baseline: str | None
) -> None:
    one = leave(
        tmp_path / "one",
        [("scratch", "digits", 0, 0.5), ("ifs", "digits", 0, 0.6)],
        arms={"scratch": "none", "ifs": "recipe"},
        tuned=tuned and "a",
    )
    two = leave(
        tmp_path / "two",
        [("bezier", "digits", 0, 0.7)],
        arms={"bezier": "curves"},
        tuned=tuned,
    )
    for folders in ([one, two], [two, one]):
        arms = Findings.load(report(folders, out=out / folders[0].name).folder).arms
        assert {name: arm.baseline for name, arm in arms.items()} == {
            "scratch": None,
            "ifs": "scratch",
            "bezier": baseline,
        }


def test_another_arm_of_the_same_name_is_told_apart(tmp_path: Path, out: Path) -> None:
    folders = [
        leave(tmp_path / day, [("ours", "c10", 0, score)], arms={"ours": content, "scratch": "s"})
        for day, content, score in (("monday", "a", 0.5), ("tuesday", "b", 0.7), ("wednesday", "b", 0.7))
    ]
    joined = report(folders, out=out, show_progress=False).findings
    assert list(joined.arms) == ["ours", "scratch", "ours-tuesday"]
    assert scores(joined) == {("ours", "c10", 0): 0.5, ("ours-tuesday", "c10", 0): 0.7}
    facts = joined.arms["ours-tuesday"]
    assert facts.baseline == "scratch"
    assert facts.base == "ours-tuesday"
    assert facts.note == "ours-tuesday is ours of tuesday: another arm than the first ours"
    assert f"{facts.note}." in joined.notes


def test_other_images_of_the_same_name_are_told_apart(tmp_path: Path, out: Path) -> None:
    one = leave(tmp_path / "one", [("ours", "c10", 0, 0.5)], arms={"ours": "a"}, paper={"c10": {"ours": 93.0}})
    two = leave(tmp_path / "two", [("ours", "c10", 0, 0.7)], arms={"ours": "a"}, downstreams={"c10": "others"})
    joined = report([one, two], out=out, show_progress=False).findings
    assert joined.downstreams == {"c10": "images", "c10-two": "others"}
    assert scores(joined) == {("ours", "c10", 0): 0.5, ("ours", "c10-two", 0): 0.7}
    assert any("c10-two is c10 of two" in note for note in joined.notes)


def test_images_of_a_renamed_downstream_are_still_found(tmp_path: Path, out: Path) -> None:
    folders = []
    for name, images in (("one", 2), ("two", 3), ("three", 4)):
        configuration = {
            "name": name,
            "downstreams": {"c10": {"kind": "digits", "train_per_class": images}},
            "paper": {"c10": {"ours": 90.0}},
        }
        folders.append(
            leave(
                tmp_path / name,
                [("ours", "c10", 0, 0.5)],
                arms={"ours": "a"},
                downstreams={"c10": name},
                configurations={name: yaml.safe_dump(configuration)},
            )
        )
    report(folders[:2], out=out, show_progress=False)
    joined = report([out, folders[2]], out=tmp_path / "all", show_progress=False).findings
    assert list(joined.downstreams) == ["c10", "c10-two", "c10-three"]
    assert [len(pictures._open(joined, name).train) for name in joined.downstreams] == [20, 30, 40]
    assert yaml.safe_load(joined.configurations["two"])["paper"] == {"c10-two": {"ours": 90.0}}


def test_of_a_result_that_several_have_the_first_counts_and_a_difference_is_told(tmp_path: Path, out: Path) -> None:
    one = leave(tmp_path / "one", [("ours", "c10", 0, 0.5), ("ours", "c10", 1, 0.6)], arms={"ours": "a"})
    two = leave(tmp_path / "two", [("ours", "c10", 0, 0.51), ("ours", "c10", 1, 0.6)], arms={"ours": "a"})
    joined = report([one, two], out=out, show_progress=False).findings
    assert scores(joined) == {("ours", "c10", 0): 0.5, ("ours", "c10", 1): 0.6}
    assert joined.notes == ["ours on c10, none, seed 0: 50.00 in one and 51.00 in two; the first counts."]


def test_a_result_takes_the_place_of_a_failure_or_of_what_is_missing(tmp_path: Path, out: Path) -> None:
    one = leave(tmp_path / "one", [("ours", "c10", 0, None)], arms={"ours": "a"})
    two = leave(tmp_path / "two", [("ours", "c10", 0, 0.51)], arms={"ours": "a"})
    assert scores(report([one, two], out=out, show_progress=False).findings) == {("ours", "c10", 0): 0.51}


def test_a_failure_takes_the_place_of_what_is_pending(tmp_path: Path, out: Path) -> None:
    pending = Result("ours", "c10", "none", 0)
    failed = replace(pending, error="boom")
    folders = []
    for name, result in (("one", pending), ("two", failed)):
        folders.append(leave(tmp_path / name, [("ours", "c10", 0, None)], arms={"ours": "a"}))
        changed = Findings.load(folders[-1]).model_copy(update={"results": [result]})
        (folders[-1] / FINDINGS).write_text(changed.to_json())
    for several in (folders, folders[::-1]):
        joined = report(several, out=out / several[0].name, show_progress=False).findings
        assert [result.error for result in joined.results] == ["boom"]


def test_a_probe_of_a_checkpoint_counts_once_whatever_the_seeds(tmp_path: Path, out: Path) -> None:
    folders = []
    for day, seeds, score in (("one", (0, 1), None), ("two", (2, 3), 0.8), ("three", (4, 5), 0.8)):
        rows: list[Score] = [("ours", "c10", seed, 0.5 + seed / 100) for seed in seeds]
        folder = leave(tmp_path / day, rows, arms={"ours": "a"})
        found = Findings.load(folder)
        found.arms["timm"] = found.arms["ours"].model_copy(
            update={"content": "t", "origin": "checkpoint x", "base": "timm"}
        )
        found.results += [
            replace(found.results[0], arm="timm", seed=seeds[0], score=score, error=None if score else "no")
        ]
        every = [replace(row, freeze="knn-probe") for row in found.results]
        tuned = [replace(row, seed=seed) for row in found.results if row.arm == "timm" for seed in seeds]
        found = found.model_copy(update={"freezes": ["none", "knn-probe"], "results": every + tuned})
        (folder / FINDINGS).write_text(found.to_json())
        folders.append(folder)
    rows_of = report(folders, out=out, show_progress=False).findings.results
    assert [(row.seed, row.score) for row in rows_of if (row.arm, row.freeze) == ("timm", "knn-probe")] == [(2, 0.8)]
    assert len([row for row in rows_of if (row.arm, row.freeze) == ("ours", "knn-probe")]) == 6
    assert len([row for row in rows_of if (row.arm, row.freeze) == ("timm", "none")]) == 6


@pytest.mark.parametrize("renamed", ["ifs at 2", "ifs"])
def test_curves_of_two_sweeps_stay_two(tmp_path: Path, out: Path, renamed: str) -> None:
    folders = []
    for day, values in (("one", (1, 2)), ("two", (2, 3))):
        arms = {"ifs": "a", **{f"ifs at {value}": str(value) for value in values}}
        if day == "two":
            arms[renamed] = "other"
        folder = leave(tmp_path / day, [(arm, "c10", 0, 0.5) for arm in arms], arms=arms)
        found = Findings.load(folder)
        for value in values:
            swept = {"base": "ifs", "path": "dots", "value": value}
            found.arms[f"ifs at {value}"] = found.arms[f"ifs at {value}"].model_copy(update=swept)
        (folder / FINDINGS).write_text(found.to_json())
        folders.append(folder)
    arms_of = report(folders, out=out, show_progress=False).findings.arms
    assert [arms_of[f"ifs at {value}"].base for value in (1, 2, 3)] == ["ifs", "ifs", "ifs-two"]
    assert {arm.base for name, arm in arms_of.items() if name.endswith("-two")} == {"ifs-two"}


def test_two_arms_are_never_each_others_baseline(tmp_path: Path, out: Path) -> None:
    arms = {"scratch": "none", "ifs": "recipe"}
    results: list[Score] = [("scratch", "c10", 0, 0.5), ("ifs", "c10", 0, 0.6)]
    one = leave(tmp_path / "one", results, arms=arms)
    facts = {
        name: ArmFacts(
            content=content, origin=content, scratch=name == "scratch", tuned="", base=name, baseline=against
        )
        for (name, content), against in zip(arms.items(), ("ifs", None), strict=True)
    }
    other = leave(tmp_path / "other", results, arms=arms)
    (other / FINDINGS).write_text(Findings.load(other).model_copy(update={"arms": facts}).to_json())
    joined = report([one, other], out=out, show_progress=False).findings
    assert {name: arm.baseline for name, arm in joined.arms.items()} == {"scratch": None, "ifs": "scratch"}
    assert "scratch is compared with ifs in other: here it is a baseline itself." in joined.notes


def test_files_are_named_from_the_new_folder(tmp_path: Path, out: Path) -> None:
    one = leave(
        tmp_path / "deep/one", [("ours", "c10", 0, 0.5), ("timm", "c10", 0, 0.6)], arms={"ours": "a", "timm": "t"}
    )
    two = leave(tmp_path / "two", [("ours", "c10", 1, 0.5)], arms={"ours": "a"})
    first, published, second = report([one, two], out=out, show_progress=False).findings.results[:3]
    ordered = sorted([first, published, second], key=lambda entry: (entry.arm, entry.seed))
    assert [entry.folder for entry in ordered] == [
        "../deep/one/runs/ours/c10-0",
        "../two/runs/ours/c10-1",
        "../deep/one/runs/timm/c10-0",
    ]
    assert [entry.start for entry in ordered] == [
        "../deep/one/runs/ours/pretrain",
        "../two/runs/ours/pretrain",
        "timm:resnet18",
    ]


def test_joins_can_be_joined(tmp_path: Path, out: Path) -> None:
    folders = [leave(tmp_path / day, [("ours", "c10", i, 0.5)], arms={"ours": "a"}) for i, day in enumerate("abc")]
    report(folders[:2], out=out, show_progress=False)
    again = report([out, folders[2]], out=tmp_path / "all", show_progress=False)
    assert len(again.results) == 3
    assert {entry.folder for entry in again.findings.results} == {
        f"../{d}/runs/ours/c10-{i}" for i, d in enumerate("abc")
    }


def test_folders_of_one_name_are_told_apart_by_their_parents(tmp_path: Path, out: Path) -> None:
    one = leave(tmp_path / "monday/run", [("ours", "c10", 0, 0.5)], arms={"ours": "a"})
    two = leave(tmp_path / "tuesday/run", [("ours", "c10", 0, 0.5)], arms={"ours": "b"})
    assert list(report([one, two], out=out, show_progress=False).findings.arms) == ["ours", "ours-tuesday-run"]


def test_the_papers_numbers_follow_their_arms(tmp_path: Path, out: Path) -> None:
    one = leave(tmp_path / "one", [("ours", "c10", 0, 0.5)], arms={"ours": "a"}, paper={"c10": {"ours": 93.0}})
    two = leave(tmp_path / "two", [("ours", "c10", 0, 0.5)], arms={"ours": "b"}, paper={"c10": {"ours/none": 94.0}})
    joined = report([one, two], out=out, show_progress=False).findings
    assert joined.paper == {"c10": {"ours": 93.0, "ours-two/none": 94.0}}
    assert joined.paper_number("ours-two", "none", "c10") == pytest.approx(0.94)


def test_one_comparison_has_its_table_written_again_where_it_is(tmp_path: Path) -> None:
    one = leave(tmp_path / "one", [("ours", "c10", 0, 0.5)], arms={"ours": "a"})
    before = Findings.load(one)
    report([one], show_progress=False)
    assert {"report.html", "results.md", "results.csv", "table.csv", "comparison.yaml"} <= {
        f.name for f in one.iterdir()
    }
    assert before == Findings.load(one)


def test_what_cannot_be_joined_is_refused_in_one_line(tmp_path: Path, out: Path) -> None:
    one = leave(tmp_path / "one", [("ours", "c10", 0, 0.5)], arms={"ours": "a"})
    two = leave(tmp_path / "two", [("ours", "c10", 0, 0.5)], arms={"ours": "a"})
    with pytest.raises(ConfigError, match="no such folder"):
        report([one, tmp_path / "three"], out=out)
    with pytest.raises(ConfigError, match="out: is missing"):
        report([one, two])
    with pytest.raises(StoreError, match="two: is not empty, and has no file"):
        report([one, two], out=two)
    with pytest.raises(ConfigError, match=f"holds no {FINDINGS}"):
        report([tmp_path], out=out)
    (two / FINDINGS).write_text("{")
    with pytest.raises(ConfigError, match="is damaged: run the comparison again"):
        report([one, two], out=out)
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(StoreError, match="is not empty, and has no file"):
        report([one], out=out)
    assert [file.name for file in out.iterdir()] == ["thesis.tex"]
