"""Commands on a cluster that ``ray start`` started, from outside, by Ray's client: the results of a local run."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray", reason="Ray is not installed")

from crash_points import contents
from ray_cluster import TOKEN, command_line_cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own
]

TRAINING = {"epochs": 2, "batch_size": 32, "resize": 32, "crop": 32, "milestones": [1], "device": "cpu"}
COMPARISON: dict[str, Any] = {
    "name": "client",
    "arms": {
        "scratch": {},
        "perlin": {"recipe": {"generator": "perlin", "categories": 4, "instances": 16, "canvas": {"size": 32}}},
    },
    "downstreams": {"digits": {"kind": "digits", "train_per_class": 6, "test_per_class": 4}},
    "model": "test_resnet",
    "pretrain": TRAINING,
    "finetune": TRAINING,
    "pictures": False,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with command_line_cluster(tmp_path_factory.mktemp("ray") / "start.log") as address:
        yield address


def run(*arguments: object, token: bool = True, code: int = 0) -> str:
    """What a command prints to standard error, in a process of its own."""
    command = [sys.executable, "-m", "formulavision", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "1000", **(TOKEN if token else {"RAY_AUTH_MODE": "disabled"})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def scores(out: Path) -> list[tuple[str, str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return [(row["arm"], row["score"], row["loss"]) for row in csv.DictReader(file)]


def test_generate_by_the_client_writes_the_bytes_of_a_local_run(tmp_path: Path, client: str) -> None:
    recipe = ["bezier", "--categories", 12, "--instances", 300, "--size", 32]
    told = run("generate", *recipe, "--out", tmp_path / "ray", "--on", client)
    assert "1 node, 2 cores" in told
    run("generate", *recipe, "--out", tmp_path / "here")
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def test_compare_by_the_client_writes_the_table_of_a_local_run(tmp_path: Path, client: str) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(yaml.safe_dump(COMPARISON))
    told = run("compare", file, "--out", tmp_path / "ray", "--on", client, "--per-task", "cpus=1")
    assert "a stage takes 1 core" in told
    run("compare", file, "--out", tmp_path / "here")
    assert scores(tmp_path / "ray") == scores(tmp_path / "here")
    assert len(scores(tmp_path / "ray")) == 2


def test_a_cluster_that_asks_for_a_token_says_so_in_one_line(tmp_path: Path, client: str) -> None:
    told = run("generate", "perlin", "--out", tmp_path / "ray", "--on", client, token=False, code=2)
    assert len(told.strip().splitlines()) == 1
    assert f"cannot connect to Ray at {client}: " in told and "a token, set RAY_AUTH_MODE=token" in told
