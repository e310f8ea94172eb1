"""Jobs of a scheduler share a comparison: each computes its results once, and the table is that of one run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from formulavision import compare
from formulavision.cli import app
from formulavision.comparison import Comparison, ComparisonSettings
from formulavision.comparison import estimates as estimates_module
from formulavision.comparison.plan import Datasets, Pretraining, ResultStage, Stage, of_job, plan_stages
from formulavision.comparison.run import print_plan
from formulavision.storage.jobs import Share
from formulavision.training.on_cpu import has_fast_bfloat16
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.folders import LOCK, locked


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Without the arm that fails each time."""
    return {**settings, "arms": {name: arm for name, arm in settings["arms"].items() if name != "broken"}}


@pytest.fixture
def pool(first: Comparison, tmp_path: Path) -> Path:
    """The stages of a comparison that is done."""
    return Path(shutil.copytree(first.folder / "runs", tmp_path / "pool"))


@pytest.fixture
def planned(settings: dict[str, Any], tmp_path: Path) -> list[Stage]:
    parsed = parse(ComparisonSettings, {**settings, "seeds": [0, 1], "data": "stored"})
    return plan_stages(parsed, tmp_path / "none", Datasets(parsed).digest)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 1000])
def test_each_result_belongs_to_one_job_behind_what_it_needs(planned: list[Stage], count: int) -> None:
    jobs = [of_job(planned, Share(number, count)) for number in range(1, min(count, 60) + 1)]
    results = [stage.key for job in jobs for stage in job if isinstance(stage, ResultStage)]
    assert sorted(results) == sorted(stage.key for stage in planned if isinstance(stage, ResultStage))
    for job in jobs:
        before: set[str] = set()
        for stage in job:
            assert {needed.key for needed in stage.needs} <= before
            before.add(stage.key)
        assert job == [stage for stage in planned if stage.key in before], "in the order of the plan"
        needed = {one.key for stage in job for one in stage.needs}
        assert all(stage.key in needed for stage in job if not isinstance(stage, ResultStage)), "nothing more"


def test_no_pretraining_is_in_two_jobs_while_there_are_enough(planned: list[Stage]) -> None:
    starts = {stage.key for stage in planned if isinstance(stage, Pretraining)}
    for count in range(1, len(starts) + 1):
        seen = [
            stage.key
            for number in range(1, count + 1)
            for stage in of_job(planned, Share(number, count))
            if isinstance(stage, Pretraining)
        ]
        assert sorted(seen) == sorted(starts)


def test_jobs_and_what_finishes_them_write_the_table_of_one_run(
    first: Comparison, settings: dict[str, Any], pool: Path, tmp_path: Path
) -> None:
    lost = next(result for result in first.findings.results if result.score is not None and result.folder)
    assert lost.folder is not None
    shutil.rmtree(pool / Path(lost.folder).relative_to("runs"))
    arguments: dict[str, Any] = {"out": tmp_path / "out", "runs": pool, "show_progress": False}
    with pytest.raises(StoreError, match=r"out: 1 of \d+ results are missing \(.*seed 0\): run their jobs again, or"):
        compare(settings, finish=True, **arguments)
    jobs = [compare(settings, job=f"{number}/2", **arguments) for number in (2, 1)]
    assert sum(len(job.findings.results) for job in jobs) == len(settings["arms"])
    assert [job.folder.name for job in jobs] == ["out-job-2-of-2", "out-job-1-of-2"]
    assert not list(tmp_path.rglob("report.html"))
    whole = compare(settings, finish=True, **arguments)
    scores = {result.arm: result.score for result in first.findings.results if result.arm in settings["arms"]}
    assert {result.arm: result.score for result in whole.findings.results} == scores
    assert (whole.folder / "report.html").is_file()


def test_results_of_another_automatic_precision_are_named(
    settings: dict[str, Any], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"out": tmp_path / "out", "runs": pool, "show_progress": False, "finish": True}
    automatic = {**settings, **{key: {**settings[key], "precision": "auto"} for key in ("pretrain", "finetune")}}
    fast = has_fast_bfloat16()
    was = "bf16-mixed" if fast else "32-true"
    monkeypatch.setattr("formulavision.training.fit.has_fast_bfloat16", lambda: not fast)
    told = f"2 of 2 results are missing .*: 2 of them are there in precision {was}, .*where they are auto, to {was}"
    with pytest.raises(StoreError, match=told):
        compare(automatic, **arguments)
    assert not list(tmp_path.rglob("report.html"))
    with pytest.raises(StoreError, match=r"2 of 2 results are missing \(.*\): run their jobs again"):
        compare({**automatic, "seeds": [9]}, **arguments)
    monkeypatch.setattr("formulavision.training.fit.has_fast_bfloat16", lambda: fast)
    assert compare(automatic, **arguments).report.is_file()


def test_a_job_that_began_otherwise_or_is_none_is_refused_in_one_line(
    settings: dict[str, Any], pool: Path, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"out": tmp_path / "out", "show_progress": False}
    for job, more, named in (
        ("0/2", {"runs": pool}, "'0/2' is not allowed"),
        ("3/2", {"runs": pool}, "'3/2' is not allowed"),
        ("1/2", {}, "job: needs runs, the folder of the trained models, which all jobs share"),
        ("1/2", {"runs": pool, "finish": True}, "job: not together with finish"),
        (None, {"finish": True, "overwrite": True}, "finish: not together with overwrite"),
    ):
        with pytest.raises(ConfigError, match=named):
            compare(settings, job=job, **arguments, **more)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("out-*"))
    only = {**settings, "arms": {"scratch": {}}}
    compare(only, job="1/1", runs=pool, **arguments)
    compare(only, job="1/1", runs=pool, **arguments)
    with pytest.raises(ConfigError, match="out-job-1-of-1 began with another configuration: give the same, or overw"):
        compare({**only, "seeds": [7]}, job="1/1", runs=pool, **arguments)


@pytest.mark.slow
def test_a_job_that_is_started_twice_at_once_ends_twice_with_the_same_results(
    first: Comparison, settings: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump(settings))
    code = "import striped_categories; from formulavision.__main__ import main; main()"
    command = [sys.executable, "-c", code, "compare", str(file), "--out", str(tmp_path / "out"), "--runs",
               str(tmp_path / "runs")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "1000"}
    twice = [
        subprocess.Popen([*command, "--job", "1/1"], env=environment, stderr=subprocess.PIPE, text=True) for _ in "12"
    ]
    told = [process.communicate()[1] for process in twice]
    assert [process.returncode for process in twice] == [0, 0], told
    assert any("another process computes job" in each for each in told)
    whole = compare(file, out=tmp_path / "out", runs=tmp_path / "runs", finish=True, show_progress=False)
    scores = {result.arm: (result.score, result.loss) for result in first.findings.results if result.arm != "broken"}
    assert {result.arm: (result.score, result.loss) for result in whole.findings.results} == scores


def test_a_job_that_another_process_computes_is_waited_for(
    settings: dict[str, Any], pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out-job-1-of-1"
    held, waits = threading.Event(), threading.Event()
    told: list[str] = []

    def listen(line: str, *console: Any, **more: Any) -> None:
        told.append(line)
        if "waiting for it" in line:
            waits.set()

    def other() -> None:
        with locked(out / LOCK, lambda: None):
            held.set()
            assert waits.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(60)
    monkeypatch.setattr("formulavision.comparison.run.say", listen)
    compare({**settings, "arms": {"scratch": {}}}, out=tmp_path / "out", runs=pool, job="1/1")
    thread.join(60)
    assert f"{out}: another process computes job 1/1: waiting for it" in told


def test_a_plan_names_what_is_missing_and_writes_nothing(
    settings: dict[str, Any], pool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimates_module, "time_training", lambda training, few: (0.5, 0.0))
    monkeypatch.chdir(pool.parent)
    print_plan(settings, pool)
    assert "0 images" in capsys.readouterr().out
    before = sorted(pool.parent.rglob("*"))
    print_plan({**settings, "seeds": [5]}, "nowhere")
    lines = capsys.readouterr().out.splitlines()
    starts = [line for line in lines if "pre-training of" in line]
    assert starts and lines[0].startswith("1. ") and "in all: " in lines[-2]
    number = starts[0].partition(".")[0]
    assert any(f", after {number}: " in line for line in lines)
    print_plan({**settings, "seeds": [5]}, "nowhere", job="1/2")
    assert 0 < len(capsys.readouterr().out.splitlines()) < len(lines)
    assert sorted(pool.parent.rglob("*")) == before


def test_a_plan_counts_what_arms_share_once_and_what_is_held_out_by_category(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimates_module, "time_training", lambda training, few: (0.5, 0.0))

    def planned(**changes: Any) -> tuple[list[str], int]:
        print_plan({**settings, **changes}, "nowhere")
        found = capsys.readouterr()
        return found.out.splitlines(), int(found.err.split(": ")[-1].split()[0])

    lines, count = planned()
    twin = {**settings["arms"], "twin": settings["arms"]["stripes"]}
    assert planned(arms=twin) == (lines, count)
    more, _ = planned(pretrain={**settings["pretrain"], "held_out": 3})
    # Two epochs, each of which ends with 3 images of 4 categories; three that are evaluated count as one.
    assert next(line for line in more if "pre-training" in line).split(": ")[1].startswith("136 images")
    assert next(line for line in lines if "pre-training" in line).split(": ")[1].startswith("128 images")


def test_a_dataset_has_no_plan() -> None:
    ended = CliRunner().invoke(app, ["compare", "--downstream", "digits", "--plan"])
    assert ended.exit_code == 2 and "--plan: needs a comparison's file, not --downstream" in ended.output
