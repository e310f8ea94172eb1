"""The process that draws: its results, and its limits of time and memory."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulavision.explorer.limits import Limits
from formulavision.explorer.worker import ReportProgress, Worker
from formulavision.util.errors import ConfigError, PluginError

pytestmark = pytest.mark.slow


def double(number: int, progress: ReportProgress) -> int:
    print("text of a plugin, which is no message")
    for done in range(3):
        progress("doubling", done, 3)
    return 2 * number


def identify(progress: ReportProgress) -> int:
    return os.getpid()


def wait(seconds: float, progress: ReportProgress) -> None:
    time.sleep(seconds)


def fill(bytes_: int, progress: ReportProgress) -> int:
    return int(np.ones(bytes_, np.uint8).sum())


def compile_for(seconds: float, progress: ReportProgress) -> None:
    """Stands for a machine that takes so many seconds for a kernel, in two steps."""
    event = importlib.import_module("numba.core.event")
    for _ in range(2):
        with event.trigger_event("numba:compile"):
            time.sleep(seconds / 2)


def leave(progress: ReportProgress) -> None:
    os._exit(3)


def refuse(problems: list[str], progress: ReportProgress) -> None:
    raise ConfigError(*problems) if problems else PluginError("'rings' failed")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        made = Worker(Limits(seconds=10, memory=1_000_000_000))
        yield made
        made.close()


def test_results_and_progress_come_back(worker: Worker) -> None:
    told: list[Any] = []
    assert worker.call(double, 21, progress=lambda *each: told.append(each)) == 42
    assert told == [("doubling", 0, 3), ("doubling", 1, 3), ("doubling", 2, 3)]


def test_one_process_does_all_work(worker: Worker) -> None:
    first = worker.call(identify)
    assert worker.call(identify) == first != os.getpid()


def test_errors_keep_their_lines(worker: Worker) -> None:
    with pytest.raises(ConfigError) as caught:
        worker.call(refuse, ["generator.a: 1", "canvas: 2"])
    assert caught.value.problems == ("generator.a: 1", "canvas: 2")
    with pytest.raises(ConfigError, match=r"^'rings' failed$"):
        worker.call(refuse, [])


def test_an_answer_that_nobody_waits_for_is_not_that_of_the_next_work(worker: Worker) -> None:
    """As where a visitor's page is gone while the work tells its progress."""

    def gone(told: str, done: int, total: int | None) -> None:
        raise RuntimeError("the page is gone")

    with pytest.raises(RuntimeError, match="the page is gone"):
        worker.call(double, 21, progress=gone)
    assert worker.call(double, 2) == 4


def test_work_that_takes_too_much_memory_is_refused(worker: Worker) -> None:
    with pytest.raises(ConfigError, match="more memory than is allowed here"):
        worker.call(fill, 2_000_000_000)
    assert worker.call(fill, 1000) == 1000


def test_work_that_takes_too_long_or_ends_the_process_is_stopped_and_the_next_is_done() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        worker = Worker(Limits(seconds=10))
        try:
            with pytest.raises(ConfigError, match=r"^the work took longer than 10 s and was stopped: a smaller canvas"):
                worker.call(wait, 1000)
            with pytest.raises(ConfigError, match=r"ended its process abruptly \(status 3\)"):
                worker.call(leave)
            assert worker.call(double, 2) == 4
        finally:
            worker.close()


def test_compiling_is_told_and_counts_for_each_kernel_anew() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        worker = Worker(Limits(seconds=10))
        told: list[Any] = []
        try:
            worker.call(compile_for, 13, progress=lambda *each: told.append(each))
        finally:
            worker.close()
    assert [done for _, done, _ in told] == [0, 1, 1, 2]
    assert told[0] == ("compiling kernels (once after an installation)", 0, None)
