"""What trials share: commands in forked processes, how they may end, kept fixtures, mutations of files."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import multiprocessing.util
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from formulavision.__main__ import main as command_line

__all__ = [
    "Ended",
    "Process",
    "Trial",
    "change_bytes",
    "cli",
    "contents",
    "damage",
    "difference",
    "kept",
    "run",
    "wrong_end",
]


@dataclass(frozen=True)
class Trial:
    """A kind of trial.

    Attributes:
        name: what ``--only`` calls it.
        what: one line for the table.
        goal: number of trials that a whole campaign makes, or a function that counts them.
        run: ``(random numbers of the seed, seed, empty folder) -> failure or None``.
        short: number of trials in the project's tests.
    """

    name: str
    what: str
    goal: int | Callable[[], int]
    run: Callable[[random.Random, int, Path], str | None]
    short: int = 0


# Processes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (minus the signal that killed it), and what it printed on both streams."""

    status: int
    output: str
    hung: bool
    cpu_seconds: float


class Process:
    """A function in a forked process group of its own, or a command in a new process.

    A fork takes milliseconds where a new interpreter imports for seconds; what a command does after its imports is the
    same in both.
    """

    def __init__(
        self,
        call: Callable[[], object] | list[str],
        log: Path,
        *,
        environment: Mapping[str, str | None] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        self.log = log
        changes = environment or {}
        if isinstance(call, list):
            merged = {k: v for k, v in {**os.environ, **changes}.items() if v is not None}
            with log.open("wb") as file:
                process = subprocess.Popen(
                    call, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=merged, cwd=log.parent,
                    start_new_session=True, preexec_fn=functools.partial(_limit, limits or {}),
                )  # fmt: skip
            self.pid = process.pid
            process.returncode = 0  # it is waited for here
            return
        sys.stdout.flush()
        sys.stderr.flush()
        # Signals wait until the child is ready for them: before that they would end the campaign's own code in it.
        kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, kinds)
        self.pid = os.fork()
        if self.pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        else:
            status = 70
            try:
                os.setsid()
                output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for stream in (1, 2):
                    os.dup2(output, stream)
                os.chdir(log.parent)
                for name, value in changes.items():
                    os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
                # Worker processes would import the campaign as their main module.
                sys.modules["__main__"] = types.ModuleType("__main__")
                for kind in kinds:
                    signal.signal(kind, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, kinds)
                _limit(limits or {})
                status = _exit_status(call)
                multiprocessing.util._exit_function()  # type: ignore[attr-defined]
            finally:
                os._exit(status)

    def kill(self, kind: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to all of its group, as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, kind) if group else os.kill(self.pid, kind)

    def running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, timeout: float = 120) -> Ended:
        """Wait for its end, and end whatever of its group is left."""
        hung, deadline = False, time.monotonic() + timeout
        while self.running():
            if time.monotonic() > deadline and not hung:
                hung = True
                self.kill(signal.SIGKILL, group=True)
            time.sleep(0.003)
        _, status, usage = os.wait4(self.pid, 0)
        output = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Ended(os.waitstatus_to_exitcode(status), output, hung, usage.ru_utime + usage.ru_stime)

    def end_group(self) -> None:
        """Worker processes end with their parent; until they have, the next trial would be slower by them."""
        deadline = time.monotonic() + 20
        while _group_lives(self.pid):
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL, group=True)
                raise AssertionError("a worker process outlives its parent by 20 seconds")
            time.sleep(0.01)


def _limit(limits: Mapping[int, int]) -> None:
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def _exit_status(call: Callable[[], object]) -> int:
    """Run ``call`` and give the status that the interpreter would end with."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = call()
        return result if isinstance(result, int) else 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            return 1
        return error.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        sys.stderr.flush()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run(call: Callable[[], object] | list[str], folder: Path, *, timeout: float = 120, **settings: object) -> Ended:
    """Run to the end; the log lies beside ``folder``, since what is tried may look into it."""
    process = Process(call, folder.parent / f"{folder.name}.log", **settings)  # type: ignore[arg-type]
    ended = process.wait(timeout)
    process.end_group()
    return ended


def cli(*arguments: object) -> Callable[[], None]:
    """The command line with these arguments, to be run in a forked process."""

    def call() -> None:
        sys.argv = ["formulavision", *map(str, arguments)]
        command_line()

    return call


def wrong_end(ended: Ended, *allowed: int) -> str | None:
    """What is wrong with the end of a command: it hangs, prints a traceback, or has no status of ``allowed``.

    With status 2 there must be one line that says why.
    """
    if ended.hung:
        return f"hangs\n{tail(ended)}"
    if "Traceback (most recent call last)" in ended.output:
        return f"traceback, status {ended.status}\n{tail(ended)}"
    if ended.status not in allowed or "this is a bug in FormulaVision" in ended.output:
        return f"exit status {ended.status}\n{tail(ended)}"
    errors = sum(line.startswith("error: ") for line in ended.output.replace("\r", "\n").splitlines())
    if ended.status == 2 and errors != 1:
        return f"exit status 2 with {errors} error lines\n{tail(ended)}"
    return None


def tail(ended: Ended) -> str:
    """The last lines of what a process printed, or of its last traceback."""
    lines = [line for line in ended.output.replace("\r", "\n").splitlines() if line.strip()]
    last = len(lines)
    if traces := [i for i, line in enumerate(lines) if line.startswith("Traceback")]:
        # The end of the last traceback, which may be followed by more.
        last = next((i + 1 for i in range(traces[-1] + 1, last) if not lines[i].startswith(" ")), last)
    return "\n".join(line[:300] for line in lines[max(0, last - 6) : last])


# Files ---------------------------------------------------------------------------------------------------------------


def contents(folder: Path, *without: str) -> dict[str, str]:
    """Digest of every file in a folder by its path, less its lock and those whose path is in ``without``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".formulavision.lock")
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items() if name not in without}


def difference(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """How the contents of a folder differ from those of another, or None."""
    parts = {
        "missing": expected.keys() - found.keys(),
        "extra": found.keys() - expected.keys(),
        "other bytes": {name for name in found.keys() & expected.keys() if found[name] != expected[name]},
    }
    texts = [f"{word}: {', '.join(sorted(names)[:4])}" for word, names in parts.items() if names]
    return "; ".join(texts) or None


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills in a forked process, once for all trials of a campaign."""
    folder = Path(os.environ["FAULTS_KEPT"]) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            ended = run(lambda: [make(partial)], partial, timeout=600)
            if ended.status:
                raise AssertionError(f"the fixture {name} cannot be made: {tail(ended)}")
            partial.rename(folder)
    return folder


def change_bytes(random: random.Random, data: bytes) -> bytes:
    """One change of a file's bytes: a bit, an end that is cut off, more bytes, a block of zeros, or nothing left."""
    kind = random.choice(["flip", "flip", "flip", "cut", "extend", "zero", "empty"])
    place = random.randrange(max(1, len(data)))
    if kind == "flip" and data:
        return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
    if kind == "cut":
        return data[:place]
    if kind == "extend":
        return data + random.randbytes(random.randint(1, 100))
    if kind == "zero":
        size = random.choice([1, 16, 512, 4096])
        return data[:place] + bytes(min(size, len(data) - place)) + data[place + size :]
    return b""


def damage(random: random.Random, folder: Path, path: Path) -> str:
    """Change, delete or swap a file of a folder; returns what was done."""
    name, old = path.relative_to(folder), path.read_bytes()
    kind = random.choice(["bytes", "bytes", "bytes", "bytes", "bytes", "bytes", "delete", "swap"])
    if kind == "delete":
        path.unlink()
        return f"{name} deleted"
    if kind == "swap":
        others = sorted(file for file in folder.rglob("*") if file.is_file() and file.read_bytes() != old)
        other = random.choice(others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(old)
        return f"{name} and {other.relative_to(folder)} swapped"
    new = change_bytes(random, old)
    path.write_bytes(new)
    if len(old) != len(new):
        return f"{name}, {len(old)} bytes, has {len(new)} bytes"
    place = next((i for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]), 0)
    return f"{name}, byte {place}: {old[place : place + 1].hex()} is {new[place : place + 1].hex()}"
