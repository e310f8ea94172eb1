"""The fault-injection campaign: its short part passes, and a fault that is there is told with its seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

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

faults.all_trials = lambda: [Trial(f.__name__, "", 2, f) for f in (fails, raises, hangs, traces, silent)]
faults.warm_up = lambda work: None
sys.exit(faults.main())
"""


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=300)


def test_the_short_campaign_finds_no_fault() -> None:
    result = campaign("faults.py", "--short")
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_fails_is_told_with_its_seed_and_kept(tmp_path: Path) -> None:
    result = campaign("-c", PLANTED, "--out", str(tmp_path))
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


def test_a_campaign_that_was_stopped_goes_on(tmp_path: Path) -> None:
    for count in ("1", "3"):
        result = campaign("-c", PLANTED, "--only", "fails", "--count", count, "--out", str(tmp_path))
    assert "| fails |  | 3 | 3 | 1 | 1 |" in result.stdout
