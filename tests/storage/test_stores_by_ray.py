"""Ray as the engine of ``generate``: the bytes of a local run, also after workers, nodes and the driver were killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

from crash_points import contents
from ray_cluster import two_nodes, worker_processes
from typer.testing import CliRunner

from formulavision import FormulaVisionError, generate
from formulavision.cli import app
from formulavision.storage import FORMATS
from formulavision.storage.manifest import INCOMPLETE
from formulavision.util.folders import MARKER
from formulavision.util.remote import RemoteFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own
]

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
RECIPE: dict[str, Any] = {"generator": "bezier", "categories": 40, "instances": 300, "canvas": {"size": 32}}
SCENES: dict[str, Any] = {
    "generator": "bezier",
    "categories": 3,
    "scene": {"objects": [1, 3], "background": {"generator": "perlin"}},
    "images": 50,
    "canvas": {"size": 64},
}


class Seen:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []
        self.lines: list[str] = []

    def categories(self, found: int, total: int) -> None:
        self.found.append((found, total))

    def images(self, done: int, total: int) -> None:
        self.done.append((done, total))

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


def test_a_cluster_that_it_starts_writes_scenes_to_object_storage(
    tmp_path: Path, s3_url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first test: the end of this cluster would take from the workers of another one those who gave them work.
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    url = s3_url()
    generate(SCENES, url, on="ray", workers=2)
    generate(SCENES, tmp_path / "here")
    here = contents(tmp_path / "here")
    there = RemoteFolder(url).read_all(sorted(RemoteFolder(url).sizes()))
    assert {name for name in here if there[name] != here[name]} <= {MARKER} and there.keys() == here.keys()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("format", FORMATS)
def test_the_store_has_the_bytes_of_a_local_run(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "cache"))
    seen = Seen()
    generate(RECIPE, tmp_path / "ray", format=format, on="ray", progress=seen)
    generate(RECIPE, tmp_path / "here", format=format)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert seen.found[-1] == (40, 40) and seen.done[-1] == (12_000, 12_000)
    assert len(seen.lines) == 1 and "2 nodes, 4 cores" in seen.lines[0]


def test_credentials_that_the_nodes_lack_are_named(s3_url: Any, cluster: Any) -> None:
    # Nodes of ``two_nodes`` have none.
    with pytest.raises(
        FormulaVisionError,
        match=r"on: node \S+: cannot read s3://.*: Unable to locate credentials; 1 more of 2 nodes too",
    ):
        generate(SCENES, s3_url(), on="ray")


@pytest.mark.usefixtures("cluster")
def test_the_command_draws_on_the_cluster(tmp_path: Path) -> None:
    command = ["generate", "bezier", "--categories", "4", "--instances", "20", "--size", "32", "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "ray"), "--on", "ray://auto", "--per-task", "cpus=2"])
    assert done.exit_code == 0, done.output
    CliRunner().invoke(app, [*command, str(tmp_path / "here")])
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


@pytest.mark.usefixtures("cluster")
def test_tasks_that_fit_on_no_node_are_refused(tmp_path: Path) -> None:
    for per_task, told in (("cpus=3", "cpus=3: no node of the cluster has more than 2"), ("gpus=0.5", "gpus=0.5: no")):
        with pytest.raises(FormulaVisionError, match=f"per_task: {told}"):
            generate(RECIPE, tmp_path / "ray", on="ray", per_task=per_task)
    with pytest.raises(FormulaVisionError, match="device: cuda: the cluster has no GPU"):
        generate(RECIPE, tmp_path / "ray", on="ray", device="cuda")


def as_another(tmp_path: Path, before: str) -> subprocess.CompletedProcess[str]:
    """The command in a process in which ``before`` runs first."""
    code = f"{before}\nfrom formulavision.__main__ import main\nmain()"
    numbers = ["--categories", "2", "--instances", "2", "--size", "32"]
    command = [sys.executable, "-c", code, "generate", "bezier", *numbers, "--out", str(tmp_path / "s"), "--on", "ray"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("import ray; ray.__version__ = '2.9.0'", "has Ray .*, this process Ray 2.9.0.*must be the same"),
        (
            "import ray._private.utils as u; u.compute_version_info = lambda: (__import__('ray').__version__, '3.8.1')",
            "has Ray .*, Python .*, this process Ray .*, Python 3.8.1: they must be the same",
        ),
        (
            "import formulavision.util.version as v; v.__version__ = '9.9'",
            "node .*: has formulavision .*, this process 9.9: install the same; 1 more of 2 nodes too",
        ),
    ],
    ids=["ray", "python", "formulavision"],
)
def test_other_versions_there_are_named(tmp_path: Path, before: str, told: str) -> None:
    done = as_another(tmp_path, before)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert re.search(told, " ".join(done.stderr.split())), done.stderr


PLUGIN = """
import formulavision as fv

@fv.register
class Unshipped(fv.Generator):
    name = "unshipped"
    version = 1
    def category(self, index):
        return [float(index)]
    def render(self, category, instance):
        import numpy as np
        return np.zeros(self.canvas.shape, np.uint8)
"""


@pytest.mark.usefixtures("cluster")
def test_a_plugin_that_the_nodes_lack_is_named_with_how_to_ship_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        PLUGIN + "import sys\ntry:\n"
        "    fv.generate({'generator': 'unshipped', 'categories': 2, 'instances': 2}, sys.argv[1], on='ray')\n"
        "except fv.FormulaVisionError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, script, tmp_path / "s"], capture_output=True, text=True)
    assert "lacks the generator 'unshipped' of this process" in done.stdout, done.stderr
    assert "runtime_env" in done.stdout and len(done.stdout.splitlines()) == 1


RINGS = {"generator": "rings", "categories": 3, "instances": 8, "canvas": {"size": 32}}
SHIPPED = f"""
import sys, ray, formulavision as fv
folder, out = sys.argv[1:]
ray.init("auto", log_to_driver=False, runtime_env={{"working_dir": folder}} if folder else None)
try:
    fv.generate({RINGS}, out, on="ray")
except fv.FormulaVisionError as error:
    print(error)
"""


@pytest.mark.usefixtures("cluster")
def test_a_package_that_the_nodes_lack_is_named_and_then_shipped(tmp_path: Path) -> None:
    source = shutil.copytree(THIRD_PARTY / "rings", tmp_path / "rings")  # a build leaves files in its source
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    folder = tmp_path / "plugins"
    subprocess.run([*install, "--target", folder, source], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}

    def told(shipped: Path | str) -> str:
        command = [sys.executable, "-c", SHIPPED, str(shipped), str(tmp_path / "ray")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    refused = told("")
    assert "lacks the generator 'rings' (formulavision-rings): install it there, or ship it" in refused
    assert "runtime_env" in refused and len(refused.splitlines()) == 1
    assert told(folder) == ""
    here = ["generate", "rings", "--categories=3", "--instances=8", "--size=32", f"--out={tmp_path / 'here'}"]
    subprocess.run([sys.executable, "-m", "formulavision", *here], check=True, capture_output=True, env=environment)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


@contextmanager
def node_without(folder: Path, cluster: Any, log: Path) -> Iterator[None]:
    """A further node, for whose processes another file system, which is empty, lies over the folder."""
    ray = str(Path(sys.executable).with_name("ray"))
    start = [ray, "start", f"--address={cluster.address}", "--num-cpus=1", "--block"]
    hide = 'mount -t tmpfs none "$0" && exec "$@"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", hide, str(folder)]
    with log.open("wb") as printed, subprocess.Popen([*command, *start], stdout=printed, stderr=printed) as process:
        try:
            until = time.monotonic() + 200
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.2)
            yield
        finally:
            process.terminate()  # which ends all of its processes


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs Linux")
@pytest.mark.parametrize("existing", [True, False], ids=["folder", "its parent"])
def test_a_folder_that_one_node_does_not_see_is_named(tmp_path: Path, cluster: Any, existing: bool) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    out = shared / "store"
    if existing:
        out.mkdir()
    with node_without(out if existing else shared, cluster, tmp_path / "node.log"):
        with pytest.raises(FormulaVisionError) as caught:
            generate(RECIPE, out, on="ray")
        assert re.fullmatch(
            rf"on: node \S+: does not see {out}: give a folder that all nodes see, or a URL \(s3://BUCKET/FOLDER\)",
            str(caught.value),
        )
        assert not (out / "data").exists() and not (out / INCOMPLETE).exists()


DRIVER = """
import formulavision as fv, sys, ast
fv.generate(ast.literal_eval(sys.argv[1]), sys.argv[2], on="ray")
"""
LONGER = {**RECIPE, "canvas": {"size": 128}, "instances": 1000}


def wait_for_records(root: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while len(list((root / INCOMPLETE).glob("0*.json"))) < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def test_killed_workers_a_lost_node_and_a_killed_driver_leave_the_same_bytes(tmp_path: Path, cluster: Any) -> None:
    root = tmp_path / "ray"
    start = [sys.executable, "-c", DRIVER, str(LONGER), str(root)]
    with subprocess.Popen(start) as process:
        wait_for_records(root, 1, process)
        process.kill()
    kept = {path: path.stat().st_mtime_ns for path in (root / INCOMPLETE).glob("0*.json")}
    pieces = {path: path.stat().st_mtime_ns for path in (root / "data").glob("*.parquet")}
    lost = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    with subprocess.Popen(start) as process:
        wait_for_records(root, len(kept) + 1, process)
        for worker in worker_processes():
            os.kill(worker, signal.SIGKILL)
        cluster.remove_node(lost, allow_graceful=False)
        assert process.wait() == 0
    assert kept, "finished pieces of the first driver"
    again = [path for path in pieces if path.stat().st_mtime_ns != pieces[path]]
    assert len(again) <= len(pieces) - len(kept), "they are not drawn again"
    generate(LONGER, tmp_path / "here", workers=2)
    assert contents(root) == contents(tmp_path / "here")
