"""Ray as the engine of ``compare``: the table of a local run, also after workers and the driver were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from ray_cluster import two_nodes, worker_processes
from typer.testing import CliRunner

from formulavision import FormulaVisionError, compare
from formulavision.cli import app
from formulavision.comparison import Comparison

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


def scores(comparison: Comparison) -> dict[str, Any]:
    return {result.arm: (result.score, result.loss) for result in comparison.findings.results}


def table(comparison: Comparison) -> str:
    return (comparison.folder / "table.csv").read_text()


@pytest.mark.usefixtures("cluster")
def test_the_table_is_that_of_a_local_run_and_a_failing_arm_stops_no_other(
    first: Comparison, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = compare(settings, out=tmp_path / "ray", on="ray", per_task="cpus=1")
    assert scores(done) == scores(first)
    assert (done.folder / "report.html").is_file()
    assert list(done.failures) == list(first.failures) == ["broken"]
    told = capsys.readouterr().err
    assert "2 nodes, 4 cores; a stage takes 1 core" in told and "[1/" in told
    assert not list((tmp_path / "ray").rglob("nodes.*"))
    again = compare(settings, out=tmp_path / "ray", runs=None, show_progress=False)
    assert scores(again) == scores(first)


@pytest.mark.usefixtures("cluster")
def test_what_a_node_has_no_room_for_and_what_does_not_go_together_is_refused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    for told, arguments in (
        ("per_task: cpus=3: no node of the cluster has more than 2", {"per_task": "cpus=3"}),
        ("on: not together with finish", {"finish": True}),
        ("on: not together with job", {"job": "1/2", "runs": tmp_path / "runs"}),
    ):
        with pytest.raises(FormulaVisionError, match=told):
            compare(settings, out=tmp_path / "out", on="ray", show_progress=False, **arguments)


DRIVER = """
import sys, striped_categories
from formulavision.__main__ import main
main()
"""


def test_killed_workers_and_a_killed_driver_leave_the_same_table(
    settings: dict[str, Any], first: Comparison, tmp_path: Path, cluster: Any
) -> None:
    import yaml

    arms = {name: arm for name, arm in settings["arms"].items() if name != "broken"}
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump({**settings, "arms": arms}))
    command = [sys.executable, "-c", DRIVER, "compare", str(file), "--out", str(tmp_path / "ray"), "--on", "ray"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for victim in ("driver", "workers", None):
        with subprocess.Popen([*command, "--per-task", "cpus=1"], env=environment, stderr=subprocess.PIPE) as process:
            until = time.monotonic() + 200
            while victim and not worker_processes() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            if victim == "driver":
                process.kill()
            for worker in worker_processes() if victim == "workers" else ():
                os.kill(worker, signal.SIGKILL)
            told = process.communicate()[1].decode()
            assert process.returncode == (-signal.SIGKILL if victim == "driver" else 0), told
    done = compare(file, out=tmp_path / "ray", finish=True, show_progress=False)
    assert scores(done) == {arm: score for arm, score in scores(first).items() if arm in arms}
    assert CliRunner().invoke(app, ["report", str(tmp_path / "ray")]).exit_code == 0
