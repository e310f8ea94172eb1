"""The fault-injection campaign: its short part passes, and a fault that is there is told with its seed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

READ = ("configs", "csvs", "images", "checkpoints")
WRITTEN = ("kill-generate", "mutate-store", "two-writers", "mutate-run")

PLANTED = """
import os, sys
from pathlib import Path
import faults
from campaign.trial import Trial, cli, run, wrong_end

def fails(random, seed, folder):
    return "wrong" if seed == 1 else None

def raises(random, seed, folder):
    raise ValueError("the trial is broken")

def hangs(random, seed, folder):
    return wrong_end(run(lambda: __import__("time").sleep(60), folder, timeout=0.5), 0)

def traces(random, seed, folder):
    return wrong_end(run(lambda: 1 / 0, folder), 1)

def silent(random, seed, folder):
    return wrong_end(run(lambda: 2, folder), 2)

def waits(random, seed, folder):
    Path(os.environ["WAITS"]).write_text(str(os.getpid()))
    __import__("time").sleep(60)

faults.all_trials = lambda: [Trial(f.__name__, "", 2, f) for f in (fails, raises, hangs, traces, silent, waits)]
faults.warm_up = lambda work: None
sys.exit(faults.main())
"""


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(READ, id="what is read"),
        # Quick tests kill and damage stores and runs, too: test_killed_stores.py, test_verification.py, test_state.py.
        pytest.param(WRITTEN, id="what is written", marks=pytest.mark.slow),
    ],
)
def test_the_short_campaign_finds_no_fault(kinds: tuple[str, ...]) -> None:
    result = campaign("faults.py", "--short", *(part for kind in kinds for part in ("--only", kind)))
    assert result.returncode == 0, result.stdout + result.stderr
    assert [kind for kind in kinds if f"| {kind} |" not in result.stdout] == []


def test_these_are_all_kinds_of_trials_of_the_short_campaign() -> None:
    listed = campaign("-c", "import faults; print(*(trial.name for trial in faults.all_trials() if trial.short))")
    assert sorted(listed.stdout.split()) == sorted((*READ, *WRITTEN))


def test_what_fails_is_told_with_its_seed_and_kept(tmp_path: Path) -> None:
    kinds = [part for kind in ("fails", "raises", "hangs", "traces", "silent") for part in ("--only", kind)]
    result = campaign("-c", PLANTED, *kinds, "--out", str(tmp_path))
    assert result.returncode == 1
    told = [
        "fails --seed 1: wrong",
        "raises --seed 0: the trial itself fails",
        "ValueError: the trial is broken",
        "hangs --seed 0: hangs",
        "traces --seed 1: traceback",
        "silent --seed 0: exit status 2 with 0 error lines",
    ]
    assert [line for line in told if line not in result.stdout] == []
    assert "| fails |  | 2 | 2 | 1 | 1 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_campaign_that_is_interrupted_ends_its_trials_and_writes_its_results(
    tmp_path: Path, number: signal.Signals
) -> None:
    waits, out = tmp_path / "waits", tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", PLANTED, "--only", "fails", "--only", "waits", "--jobs", "1", "--out", str(out)],
        cwd=BENCHMARKS, env={**os.environ, "WAITS": str(waits)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        while not (waits.exists() and waits.read_text()):
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in output
    assert "| waits |  | 2 | 0 | 0 |" in output
    assert output.split("\n\n")[-1].strip() in (out / "README.md").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int(waits.read_text()), 0)


def test_a_campaign_that_was_stopped_goes_on(tmp_path: Path) -> None:
    for count in ("1", "3"):
        result = campaign("-c", PLANTED, "--only", "fails", "--count", count, "--out", str(tmp_path))
    assert "| fails |  | 3 | 3 | 1 | 1 |" in result.stdout
