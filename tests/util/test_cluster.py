"""Where a cluster is named wrongly, is not there, or Ray is not installed, one line says so before any work."""

from __future__ import annotations

import importlib.util
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from formulavision import ConfigError, FormulaVisionError, generate
from formulavision.util.cluster import Cluster, PerTask

RECIPE = {"generator": "perlin", "categories": 2, "instances": 2, "canvas": {"size": 16, "padding": 0}}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def refused(told: str, tmp_path: Path, **settings: Any) -> None:
    with pytest.raises(FormulaVisionError, match=told) as caught:
        generate(RECIPE, **{"out": tmp_path / "out", **settings})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("on", ["", "spark", "ray:", "ray://", "ray://host", "ray://a:b", "ray://h:1/x", "auto"])
def test_what_names_no_cluster_is_refused(on: str, tmp_path: Path) -> None:
    refused(r"on: '.*' is not allowed: must be ray, ray://auto or ray://HOST:PORT", tmp_path, on=on)


def test_without_ray_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused(r"on: needs Ray: pip install 'formulavision\[ray\]'", tmp_path, on="ray")
    refused(r"on: needs Ray: pip install 'formulavision\[ray\]'", tmp_path, on="ray", out="memory://here/store")


@needs_ray
def test_where_no_cluster_answers_the_port_and_the_ways_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    refused(rf"on: no Ray cluster answers at ray://{address}: .*Connection refused.*: give the port of its Ray Client",
            tmp_path, on=f"ray://{address}")  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", address)
    for on in ("ray", "ray://auto"):
        refused(
            rf"on: no Ray cluster answers at {address}: .*refused.*: start one with 'ray start --head'", tmp_path, on=on
        )


@needs_ray
def test_settings_that_a_cluster_cannot_follow_are_refused(tmp_path: Path) -> None:
    refused("on: not together with job", tmp_path, on="ray", job="1/2")
    refused("on: not together with finish", tmp_path, on="ray", finish=True)
    refused("device: cuda:1 is not allowed on a cluster, which chooses a GPU", tmp_path, on="ray", device="cuda:1")
    refused("memory://here/store: is seen by this process alone", tmp_path, on="ray", out="memory://here/store")
    refused("per_task: is for a cluster: give on, too", tmp_path, per_task="cpus=1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", PerTask()),
        ("cpus=8,gpus=0.5,memory=16GB", PerTask(8, 0.5, 16 * 10**9)),
        ("memory=1.5MB", PerTask(memory=1_500_000)),
        ("gpus=2", PerTask(gpus=2)),
    ],
)
def test_what_a_task_reserves_is_read(text: str, expected: PerTask) -> None:
    assert PerTask.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["cpus=0", "cpus=1.5", "gpus=1.5", "gpus=-1", "memory=16", "memory=0.0GB", "disk=1GB", "cpus", "cpus=8;"]
)
def test_what_no_task_can_reserve_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"per_task: '.*' is not allowed: must be as in cpus=8,gpus=0.5,memory=16GB"):
        PerTask.parse(text)


def test_what_is_said_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="per_task: gpus is given twice"):
        PerTask.parse("gpus=0.5,gpus=1")


class TwoNodes:
    """What a cluster is asked of Ray, of a node with cores and one with a GPU."""

    def nodes(self) -> list[dict[str, Any]]:
        have: list[dict[str, float]] = [{"CPU": 64, "memory": 200e9}, {"CPU": 8, "GPU": 1, "memory": 30e9}]
        return [{"Alive": True, "Resources": resources} for resources in have]


@pytest.mark.parametrize(
    ("per_task", "problem"),
    [
        (PerTask(64, memory=200 * 10**9), ""),
        (PerTask(8, 1, 30 * 10**9), ""),
        (PerTask(65), "per_task: cpus=65: no node of the cluster has more than 64"),
        (PerTask(16, 1), "per_task: cpus=16,gpus=1: no node of the cluster has all of it"),
        (PerTask(gpus=0.5, memory=100 * 10**9), r"per_task: gpus=0.5,memory=1e\+11: no node of the cluster has all"),
    ],
)
def test_a_task_needs_one_node_that_has_all_of_it(per_task: PerTask, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) if problem else nullcontext():
        Cluster(TwoNodes()).check_fits(per_task)
