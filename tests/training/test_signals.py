"""Ctrl-C, SIGTERM and the end of a terminal leave a run that is resumed to bit-identical weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import Pair
from safetensors.torch import load_file
from striped_images import Stripes

from formulavision.data.loading import EpochBatches
from formulavision.training import Run, pretrain

SCRIPT = Path(__file__).parents[1] / "helpers" / "striped_images.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
IN_THE_SECOND_STEP = list(EpochBatches(48, 16, seed=1, shuffle=True))[1][5][1]
"""An image that the second of three steps of the first epoch waits for."""


class Training:
    """A process that trains, in a process group of its own, up to an image that takes its time.

    Args:
        group: signals go to all its processes, as those of a terminal and some of a cluster do.
    """

    def __init__(
        self, out: Path, settings: dict[str, Any], *, seconds: float = 1, group: bool = False, start: Any = ()
    ) -> None:
        self.group = group
        self.process = subprocess.Popen(
            [sys.executable, *start, SCRIPT, out, str(IN_THE_SECOND_STEP), str(seconds), json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "300"},
        )
        while not out.with_name("reached").exists():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def send(self, number: int) -> None:
        (os.killpg if self.group else os.kill)(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Exit status, and what was printed."""
        printed, _ = self.process.communicate(timeout=120)
        return self.process.returncode, printed


def same(a: Run, b: Run) -> bool:
    one, two = (load_file(run.folder / "model.safetensors") for run in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def resumed(out: Path, settings: Any, pair: Pair | None = None) -> Run:
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] in (1, 2)
    arguments = {"out": out, "settings": settings, "resume": True, "show_progress": False}
    return pair(pretrain, Stripes(), **arguments) if pair else pretrain(Stripes(), **arguments)


@pytest.mark.parametrize(
    ("number", "group", "workers"),
    [
        (signal.SIGTERM, False, 0),
        (signal.SIGINT, True, 1),
        (signal.SIGHUP, True, 0),
        pytest.param(signal.SIGTERM, True, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_in_mid_epoch_leaves_a_checkpoint(
    tmp_path: Path, small: Any, pretrained: Run, number: int, group: bool, workers: int
) -> None:
    training = Training(tmp_path / "run", {**small, "workers": workers}, group=group)
    training.send(number)
    status, printed = training.end()
    assert status == (-number if number == signal.SIGINT else 128 + number)
    assert "of 3 steps of the next done; resumed, it goes on from there" in printed
    assert "Traceback" not in printed or number == signal.SIGINT
    assert same(resumed(tmp_path / "run", small), pretrained)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory, small: Any, pair: Pair) -> Run:
    out = tmp_path_factory.mktemp("whole") / "run"
    return pair(pretrain, Stripes(), out=out, settings=small, show_progress=False)


@pytest.mark.parametrize(
    ("number", "group", "start"),
    [
        (signal.SIGTERM, False, ()),
        pytest.param(signal.SIGTERM, True, (), marks=pytest.mark.slow),
        (signal.SIGINT, True, ()),
        (signal.SIGTERM, False, TORCHRUN),
    ],
    ids=["to the first process", "to all", "Ctrl-C", "to torchrun"],
)
def test_several_processes_stop_at_the_same_step(
    tmp_path: Path, small: Any, pair: Pair, by_two: Run, number: int, group: bool, start: Any
) -> None:
    settings = small if start else {**small, "devices": 2}
    training = Training(tmp_path / "run", settings, group=group, start=start)
    training.send(number)
    status, printed = training.end()
    if not start:
        assert status == (-number if number == signal.SIGINT else 128 + number)
    assert printed.count("of 3 steps of the next done; resumed, it goes on from there") == 1
    assert same(resumed(tmp_path / "run", small, pair), by_two)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_second_signal_ends_a_run_at_once(tmp_path: Path, small: Any, devices: int) -> None:
    training = Training(tmp_path / "run", {**small, "devices": devices}, seconds=600)
    training.send(signal.SIGTERM)
    time.sleep(1.5)
    assert training.process.poll() is None
    training.send(signal.SIGTERM)
    status, printed = training.end()
    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in printed
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_processes_whose_first_one_was_killed_leave_a_checkpoint_and_end(
    tmp_path: Path, small: Any, pair: Pair, by_two: Run
) -> None:
    training = Training(tmp_path / "run", {**small, "devices": 2})
    training.send(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while subprocess.run(["pgrep", "-g", str(training.process.pid)], capture_output=True).stdout:
        assert training.process.poll() in (None, -signal.SIGKILL) and time.monotonic() < deadline  # which reaps it, too
        time.sleep(0.1)
    training.end()
    assert same(resumed(tmp_path / "run", small, pair), by_two)
