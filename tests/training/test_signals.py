"""Ctrl-C, SIGTERM and the end of a terminal leave a run that is resumed to bit-identical weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import torch
from comparing_runs import same
from forked import FORKED, in_a_session
from pair import Pair
from striped_images import Stripes, pretrain_slowly, status_after_signal

from formulavision.data.loading import EpochBatches
from formulavision.training import Run, pretrain
from formulavision.util.interrupts import interrupt
from formulavision.util.logs import LOG

SCRIPT = Path(__file__).parents[1] / "helpers" / "striped_images.py"
INTERPRETER = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
SECOND_STEP = list(EpochBatches(48, 16, seed=1, shuffle=True))[1]
IN_THE_SECOND_STEP = SECOND_STEP[5][1]
"""An image that the second of three steps of the first epoch waits for. Of two processes, the second reads it."""
OF_THE_FIRST_PROCESS = SECOND_STEP[4][1]
"""Another one, which the first of two processes reads."""
GOES_ON = "of 3 steps of the next; resuming continues from there"


class Training:
    """A process that trains, in a process group of its own, up to an image that waits for a signal.

    Args:
        seconds: the time that the image takes after that: the signal has to reach all processes.
        slow: the image.
        group: signals go to all its processes, as those of a terminal and some of a cluster do.
        command: starts the process by a new interpreter; it is forked otherwise, which is quicker.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        *,
        seconds: float = 1,
        slow: int = IN_THE_SECOND_STEP,
        group: bool = False,
        command: list[str] | None = None,
    ) -> None:
        self.group = group
        self.log = out.with_name("log")
        self.reached, self.sent = (out.with_name(name) for name in ("reached", "sent"))
        arguments = [str(out), str(slow), str(seconds), json.dumps(settings)]
        self.process: Any
        if command is None:
            self.process = FORKED.Process(target=in_a_session, args=(self.log, pretrain_slowly, *arguments))
            self.process.start()
        else:
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    [*command, SCRIPT, *arguments],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "COLUMNS": "300"},
                )

    def __enter__(self) -> Self:
        self.wait_for(self.reached.exists)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, event: Any) -> None:
        deadline = time.monotonic() + 300
        while not event():
            assert self.status() is None and time.monotonic() < deadline, self.printed()
            time.sleep(0.02)

    def send(self, number: int) -> None:
        (os.killpg if self.group else os.kill)(self.process.pid, number)
        self.sent.touch()

    def status(self) -> int | None:
        """Exit status, or None while the process runs."""
        status: int | None = (
            self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode
        )
        return status

    def printed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def end(self) -> tuple[int, str]:
        """Exit status, and what was printed."""
        if isinstance(self.process, subprocess.Popen):
            self.process.wait(timeout=120)
        else:
            self.process.join(timeout=120)
        status = self.status()
        assert status is not None, self.printed()
        return status, self.printed()


def resumed(out: Path, settings: Any, pair: Pair | None = None) -> Path:
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] in (1, 2)
    arguments = {"out": out, "settings": settings, "resume": True, "show_progress": False}
    run: Run = pair(pretrain, Stripes(), **arguments) if pair else pretrain(Stripes(), **arguments)
    return run.folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_mid_epoch_leaves_a_checkpoint(
    tmp_path: Path, small: Any, pretrained: Run, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    before = signal.signal(number, interrupt)  # SIGHUP is ignored where these tests run under nohup
    try:
        status = status_after_signal(tmp_path / "run", IN_THE_SECOND_STEP, number, small)
    finally:
        signal.signal(number, before)
    assert status == (-number if number == signal.SIGINT else 128 + number)
    assert GOES_ON in " ".join(capsys.readouterr().out.split())
    assert same(resumed(tmp_path / "run", small), pretrained.folder)
    assert "goes on after 0 of 2 epochs and " in (tmp_path / "run" / LOG).read_text()


@pytest.mark.usefixtures("hangup_ends_processes")
@pytest.mark.parametrize(
    ("number", "group", "workers"),
    [
        (signal.SIGINT, True, 1),
        # These repeat the test above in a process of their own, as the first one does.
        pytest.param(signal.SIGTERM, False, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_signal_ends_a_process_with_its_status_and_a_checkpoint(
    tmp_path: Path, small: Any, pretrained: Run, number: int, group: bool, workers: int
) -> None:
    settings = {**small, "workers": workers}
    with Training(tmp_path / "run", settings, group=group, command=INTERPRETER) as training:
        training.send(number)
        status, printed = training.end()
    assert status == (-number if number == signal.SIGINT else 128 + number)
    assert GOES_ON in printed
    assert "Traceback" not in printed or number == signal.SIGINT
    assert same(resumed(tmp_path / "run", small), pretrained.folder)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory, small: Any, pair: Pair) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run: Run = pair(pretrain, Stripes(), out=out, settings=small, show_progress=False)
    return run.folder


def test_several_processes_stop_at_the_same_step_where_one_of_them_gets_a_signal(
    tmp_path: Path, small: Any, pair: Pair, by_two: Path
) -> None:
    """As where torchrun started them: it passes a signal on to each, and they get it at different steps."""
    arguments = (tmp_path / "run", IN_THE_SECOND_STEP, signal.SIGTERM, small)
    assert pair(status_after_signal, *arguments, show_progress=False) == 128 + signal.SIGTERM
    assert same(resumed(tmp_path / "run", small, pair), by_two)


@pytest.mark.parametrize(
    ("number", "group", "command"),
    [
        # Of two processes that stop at the same step, the test above states the same.
        pytest.param(signal.SIGINT, True, None, marks=pytest.mark.slow),
        # That the first process passes a signal on, the test of a second signal states, too.
        pytest.param(signal.SIGTERM, False, None, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, None, marks=pytest.mark.slow),
        # The test above states the same of processes that others started.
        pytest.param(signal.SIGTERM, False, TORCHRUN, marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C", "to the first process", "to all", "to torchrun"],
)
def test_several_processes_stop_at_the_same_step(
    tmp_path: Path, small: Any, pair: Pair, by_two: Path, number: int, group: bool, command: Any
) -> None:
    settings = small if command else {**small, "devices": 2}
    with Training(tmp_path / "run", settings, group=group, command=command) as training:
        training.send(number)
        status, printed = training.end()
    if not command:
        # A forked process ends with 1 after any exception, and says which one it was.
        assert status == (1 if number == signal.SIGINT else 128 + number)
        assert ("KeyboardInterrupt" in printed) == (number == signal.SIGINT)
    assert printed.count(GOES_ON) == 1
    assert same(resumed(tmp_path / "run", small, pair), by_two)


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_second_signal_ends_a_run_at_once(tmp_path: Path, small: Any, devices: int) -> None:
    settings = {**small, "devices": devices}
    with Training(tmp_path / "run", settings, seconds=600, slow=OF_THE_FIRST_PROCESS) as training:
        training.send(signal.SIGTERM)
        # With two devices, the process that got the signal passes it on to the one that prints this.
        training.wait_for(lambda: "stopping after this step" in training.printed())
        time.sleep(1.1)  # a second signal within a second counts as the first
        assert training.status() is None
        training.send(signal.SIGTERM)
        status, printed = training.end()
    assert status == 128 + signal.SIGTERM
    assert "Traceback" not in printed
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_processes_whose_first_one_was_killed_leave_a_checkpoint_and_end(
    tmp_path: Path, small: Any, pair: Pair, by_two: Path
) -> None:
    with Training(tmp_path / "run", {**small, "devices": 2}) as training:
        training.send(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while subprocess.run(["pgrep", "-g", str(training.process.pid)], capture_output=True).stdout:
            assert training.status() in (None, -signal.SIGKILL) and time.monotonic() < deadline  # which reaps it, too
            time.sleep(0.1)
        training.end()
    assert same(resumed(tmp_path / "run", small, pair), by_two)
