"""The fault-injection campaign: kills, crash points, damaged files, odd inputs, misbehaving plugins, full disks.

    python benchmarks/faults.py --minutes 60 --out docs/results/reliability     # the whole campaign, on 2 cores
    python benchmarks/faults.py --only kill-generate --count 300                # one kind of trial
    python benchmarks/faults.py --only kill-generate --seed 123                 # one trial again

Every trial is a function of its seed and works in a temporary folder. All kinds advance together towards their goals
until the time is over. --out gets README.md, the table, and progress.json, from which the same command goes on when it
was stopped; results of another version of the code are begun anew. Needs Linux: processes are forked.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from campaign.trial import Process, Trial, tail

from formulavision.util.interrupts import catch_signals

MOST_SECONDS = 900
"""Of a single trial; its commands have limits of their own, which are below."""


@dataclass
class Tally:
    """What became of a kind of trial so far."""

    tried: int = 0
    next_seed: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class Running:
    trial: Trial
    seed: int
    folder: Path
    process: Process
    started: float


class Campaign:
    """Runs trials side by side, each in a forked process.

    Args:
        goals: number of trials of each kind, by its name.
        out: folder for what is done so far; None: it is not kept.
    """

    def __init__(self, trials: list[Trial], goals: dict[str, int], work: Path, out: Path | None) -> None:
        self.trials = trials
        self.goals = goals
        self.work = work
        self.out = out
        self.tallies = {trial.name: Tally() for trial in trials}
        self.running: list[Running] = []
        self.started = self.told = time.monotonic()
        self.before = 0.0
        """Seconds of earlier runs."""

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def failed(self) -> int:
        return sum(len(tally.failures) for tally in self.tallies.values())

    def load(self) -> None:
        """Take over what an earlier run of the same code has done."""
        if self.out is None or not (self.out / "progress.json").is_file():
            return
        known = json.loads((self.out / "progress.json").read_text())
        if known["code"] != code():
            print(f"{self.out}: holds results of other code: begun anew")
            return
        self.before = known["seconds"]
        self.tallies |= {name: Tally(**tally) for name, tally in known["trials"].items() if name in self.tallies}

    def run(self, minutes: float | None, jobs: int) -> None:
        """Run trials until the time is over, all kinds in proportion to their goals; without a time, to the goals."""
        while True:
            kinds = [trial for trial in self.trials if minutes or self.progress(trial) < 1]
            over = not kinds or (minutes is not None and self.seconds > 60 * minutes)
            if over and not self.running:
                break
            if not over and len(self.running) < jobs:
                self.start(min(kinds, key=self.progress))
            self.collect()
            self.tell(minutes)
            time.sleep(0.002)

    def stop(self) -> None:
        """End the trials that run. They count as not tried."""
        for entry in self.running:
            entry.process.kill(signal.SIGKILL, group=True)
            entry.process.wait()
        self.running.clear()

    def progress(self, trial: Trial) -> float:
        """Share of its goal that a kind of trial has begun."""
        return self.tallies[trial.name].next_seed / self.goals[trial.name]

    def start(self, trial: Trial) -> None:
        seed = self.tallies[trial.name].next_seed
        self.tallies[trial.name].next_seed += 1
        folder = self.work / f"{trial.name}-{seed}"
        folder.mkdir()

        def call() -> None:
            failure = trial.run(random.Random(f"{trial.name} {seed}"), seed, folder)
            (folder / "failure").write_text(failure or "")

        process = Process(call, self.work / f"{folder.name}.log")
        self.running.append(Running(trial, seed, folder, process, time.monotonic()))

    def collect(self) -> None:
        """Take the results of the trials that have ended."""
        for entry in list(self.running):
            seconds = time.monotonic() - entry.started
            if entry.process.running() and seconds < MOST_SECONDS:
                continue
            ended = entry.process.wait(timeout=0)
            self.running.remove(entry)
            tally = self.tallies[entry.trial.name]
            tally.tried += 1
            tally.seconds += seconds
            result = entry.folder / "failure"
            text = result.read_text() if result.is_file() else f"the trial itself fails\n{tail(ended)}"
            if text:
                tally.failures[str(entry.seed)] = text
                print(f"\n{entry.trial.name} --seed {entry.seed}: {text}", flush=True)
            shutil.rmtree(entry.folder)
            Path(f"{entry.folder}.log").unlink()
            self.save()

    def save(self) -> None:
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        trials = {name: asdict(tally) for name, tally in self.tallies.items()}
        partial = self.out / "progress.json.partial"
        partial.write_text(json.dumps({"code": code(), "seconds": self.seconds, "trials": trials}, indent=1))
        partial.rename(self.out / "progress.json")

    def tell(self, minutes: float | None) -> None:
        """Say every ten seconds how far it is."""
        now = time.monotonic()
        if now - self.told < 10:
            return
        self.told = now
        tried = sum(tally.tried for tally in self.tallies.values())
        left = sum(max(0, goal - self.tallies[name].tried) for name, goal in self.goals.items())
        rate = tried / self.seconds
        ends = 60 * minutes - self.seconds if minutes else left / rate if rate else float("nan")
        print(
            f"{tried:,} trials, {self.failed} failed, {rate:.1f}/s, {left:,} to the goals, {ends / 60:.0f} min left",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def table(self) -> str:
        rows = ["| trial | | goal | tried | failed | seeds of failures | minutes |", "|---|---|--:|--:|--:|---|--:|"]
        for trial in self.trials:
            tally = self.tallies[trial.name]
            seeds = ", ".join(list(tally.failures)[:20])
            numbers = f"{self.goals[trial.name]:,} | {tally.tried:,} | {len(tally.failures)}"
            rows.append(f"| {trial.name} | {trial.what} | {numbers} | {seeds} | {tally.seconds / 60:.1f} |")
        return "\n".join(rows)


@functools.cache
def code() -> str:
    """The commit, and whether files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "../formulavision", "../plugins", "../benchmarks")
    return git("rev-parse", "--short=12", "HEAD") + (" and changes" if changed else "")


def page(campaign: Campaign) -> str:
    """README.md of the results."""
    from importlib.metadata import version

    packages = ("formulavision", "numpy", "numba", "pyarrow", "torch", "lightning", "timm", "pydantic", "pillow")
    versions = [f"{package} {version(package)}" for package in packages]
    failures = [
        f"### {name}, seed {seed}\n\n```\n{text}\n```"
        for name, tally in campaign.tallies.items()
        for seed, text in list(tally.failures.items())[:5]
    ]
    return "\n".join(
        [
            "# Fault-injection campaign", "",
            f"    python {shlex.join(sys.argv)}", "",
            f"{campaign.seconds / 60:.0f} minutes on {os.cpu_count()} cores, commit {code()}, {platform.system()} "
            f"{platform.release()}, Python {platform.python_version()}, {', '.join(versions)}.", "",
            "Again, a single trial: `python benchmarks/faults.py --only NAME --seed SEED`.", "",
            campaign.table(), "",
            *(["## Failures, at most five of a kind", "", *failures, ""] if failures else []),
        ]
    )  # fmt: skip


def all_trials() -> list[Trial]:
    """Every kind of trial."""
    from campaign import configs, images, plugins, stores, surroundings, training

    return [trial for part in (stores, training, configs, images, plugins, surroundings) for trial in part.TRIALS]


def warm_up(work: Path) -> None:
    """Import and compile what all trials need, without leaving threads that a fork would lose."""
    import torch

    torch.set_num_threads(1)
    os.environ.update(
        OMP_NUM_THREADS="1", COLUMNS="300", FORMULAVISION_CACHE=str(work / "cache"), FAULTS_KEPT=str(work / "kept")
    )
    import lightning  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import formulavision.cli
    import formulavision.comparison.run
    import formulavision.evaluation
    import formulavision.training.fit  # noqa: F401
    from formulavision import Recipe, generate, verify

    recipe = Recipe.from_dict({"generator": {"name": "ifs", "dots": 1000}, "categories": 2, "instances": 4})
    for format in ("imagefolder", "parquet"):  # pyarrow imports pandas when it writes, where that is installed
        generate(recipe, work / "warm", format=format)
        verify(work / "warm")
        shutil.rmtree(work / "warm")


def main() -> int:
    trials = {trial.name: trial for trial in all_trials()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="run for so long, all kinds in proportion to their goals")
    parser.add_argument("--only", action="append", choices=list(trials), help="a kind of trial; default: all")
    parser.add_argument("--count", type=int, help="trials of each kind; default: its goal")
    parser.add_argument("--short", action="store_true", help="the part that is in the project's tests")
    parser.add_argument("--seed", type=int, help="this trial of --only alone")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="trials at once; default: a core"
    )
    parser.add_argument("--out", type=Path, help="folder for README.md and progress.json")
    arguments = parser.parse_args()
    chosen = [trial for trial in trials.values() if trial.name in (arguments.only or trials)]
    if arguments.short:
        chosen = [trial for trial in chosen if trial.short]
    if arguments.seed is not None and len(chosen) > 1:
        parser.error("--seed goes with one --only")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        work = Path(folder)
        warm_up(work)
        goals = {trial.name: arguments.count or goal(trial, arguments.short) for trial in chosen}
        campaign = Campaign(chosen, goals, work, arguments.out)
        if arguments.seed is not None:
            campaign.tallies[chosen[0].name].next_seed = arguments.seed
            campaign.goals = {chosen[0].name: arguments.seed + 1}
        else:
            campaign.load()
        stopped = False
        try:
            with catch_signals():
                campaign.run(arguments.minutes, arguments.jobs)
        except KeyboardInterrupt:
            stopped = True
            campaign.stop()
        print(f"\n{campaign.table()}")
        if arguments.out:
            campaign.save()
            (arguments.out / "README.md").write_text(page(campaign))
        return 130 if stopped else int(campaign.failed > 0)


def goal(trial: Trial, short: bool) -> int:
    return trial.short if short else trial.goal() if callable(trial.goal) else trial.goal


if __name__ == "__main__":
    sys.exit(main())
