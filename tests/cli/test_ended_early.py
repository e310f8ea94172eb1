"""Ctrl-C, a request to end, and a reader that has gone: one line or none, and the right status, at any moment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from formulavision.cli import app
from formulavision.util.errors import ConfigError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals")

COMMAND = [sys.executable, "-m", "formulavision"]


def begin(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "FORMULAVISION_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"},
    )


GOES_ON = "stopped; what is finished is kept: run the same command again to go on"


def stopped_well(process: subprocess.Popen[str], status: int, told: str) -> None:
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    lines = [line for line in errors.splitlines() if not line.startswith(("categories ", "images "))]
    lines = [line for line in lines if line.strip()]
    assert (process.returncode, len(lines)) == (status, 1), errors
    assert lines[0] == told
    with pytest.raises(ProcessLookupError):  # no worker is left
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("delay", "number"),
    [
        (0.0, signal.SIGINT),
        (0.3, signal.SIGTERM),
        # Other moments.
        pytest.param(0.7, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1.5, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_whole_group_ends_generate_in_one_line_and_the_run_goes_on(
    tmp_path: Path, delay: float, number: signal.Signals
) -> None:
    arguments = ["generate", "--plugin", "perlin", "--categories", "100", "--instances", "100", "--size", "128",
                 "--workers", "2", "--format", "imagefolder", "--out", str(tmp_path / "store")]  # fmt: skip
    process = begin(tmp_path, *arguments)
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(delay)
    os.killpg(process.pid, number)
    stopped_well(process, 128 + number, GOES_ON)
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize("delay", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])  # a later moment
def test_a_signal_ends_the_search_for_categories_in_one_line(tmp_path: Path, delay: float) -> None:
    process = begin(tmp_path, "categories", "--plugin", "ifs", "--categories", "5000", "--workers", "2", "--out",
                    str(tmp_path / "categories"))  # fmt: skip
    time.sleep(1.5 + delay)
    os.killpg(process.pid, signal.SIGINT)
    stopped_well(process, 130, "stopped")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pretrain", "--plugin", "perlin", "--out", "run"],
         "stopped; run the same command with --resume to go on from the last checkpoint"),
        (["finetune", "--downstream", "digits", "--out", "run"],
         "stopped; run the same command with --resume to go on from the last checkpoint"),
        (["finetune", "--downstream", "digits", "--out", "run", "--overwrite"],
         "stopped; run the same command with --resume, without --overwrite, to go on from the last checkpoint"),
        (["compare", "comparison.yaml"], GOES_ON),
        (["compare", "comparison.yaml", "--overwrite"],
         "stopped; what is finished is kept: run the same command again, without --overwrite, to go on"),
        (["verify", "store"], "stopped"),
        (["plugins"], "stopped"),
    ],
)  # fmt: skip
def test_what_is_told_after_ctrl_c_is_true_for_the_command(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    def stop(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    for name in ("training.pretrain", "training.finetune", "comparison.ComparisonSettings.load", "storage.verify"):
        monkeypatch.setattr(f"formulavision.{name}", stop)
    if arguments == ["plugins"]:
        monkeypatch.setattr("formulavision.generators.registry.plugins", stop)
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr.strip()) == (130, told)


@pytest.mark.parametrize("arguments", [["plugins"], ["verify", "absent"], ["compare", "absent.yaml"]])
def test_a_command_that_has_ended_leaves_no_signal_handler(arguments: list[str]) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    CliRunner().invoke(app, arguments)
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.usefixtures("hangup_ends_processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("error", [RuntimeError("in C"), ConfigError("seed: is wrong"), OSError(5, "broken")])
def test_a_signal_whose_exception_a_library_replaces_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, error: Exception
) -> None:
    """As pydantic does with all that is raised while it serializes."""

    def replaces(*arguments: object, **keywords: object) -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        raise error

    monkeypatch.setattr("formulavision.storage.verify", replaces)
    result = CliRunner().invoke(app, ["verify", "store"])
    assert (result.exit_code, result.stderr.strip()) == (128 + number, "stopped")
    monkeypatch.setattr("formulavision.storage.verify", lambda *_, **__: (_ for _ in ()).throw(ConfigError("another")))
    assert CliRunner().invoke(app, ["verify", "store"]).exit_code == 2  # the next command is not stopped


def test_an_interrupt_while_the_command_line_is_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*COMMAND, "plugins"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nstopped\n")


def test_a_worker_that_dies_does_not_leave_the_others_waiting() -> None:
    code = (
        "import os, time\n"
        "from concurrent.futures.process import BrokenProcessPool\n"
        "from formulavision.util.processes import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    pool = worker_pool(2, int)\n"
        "    futures = [pool.submit(time.sleep, 0.01) for _ in range(2)] + [pool.submit(os._exit, 0)]\n"
        "    try:\n"
        "        futures[-1].result()\n"
        "    except BrokenProcessPool:\n"
        "        print('broken')\n"
        "    pool.shutdown()\n"
    )
    path = Path(os.environ.get("TMPDIR", "/tmp"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "broken\n", "")


# Pipes


@pytest.mark.parametrize(
    "arguments", [["plugins"], ["plugins", "show", "ifs"], ["--help"], ["generate", "--help"], ["--version"]]
)
def test_a_reader_that_has_gone_ends_a_command_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_reader_that_goes_later_does_so_too(tmp_path: Path) -> None:
    """What was drawn before stays, and a store that is complete is complete."""
    arguments = ["generate", "--plugin", "perlin", "--categories", "2", "--instances", "2", "--size", "16", "--out"]
    command = shlex.join([*COMMAND, *arguments, str(tmp_path / "store")])
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | head -n 1"], capture_output=True, text=True)
    assert done.returncode == 141 and done.stdout.startswith("perlin: ")
    assert "error" not in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "store" / "manifest.json").is_file()
