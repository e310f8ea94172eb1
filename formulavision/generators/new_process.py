"""Runs work in a new process that knows the same generators, also those that no package registers."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from formulavision.generators.contract import Generator
from formulavision.generators.registry import plugins
from formulavision.util.errors import FormulaVisionError, PluginError

__all__ = ["GeneratorUnknownThereError", "Source", "run_in_new_process"]

_DONE, _UNKNOWN = "done", "unknown generator"
"""The last message of the process is one of these."""


class Work(Protocol):
    """What the process does; it is pickled."""

    def run(self) -> Iterator[Any]:
        """Yield results that JSON can write."""


class GeneratorUnknownThereError(Exception):
    """No other process can import the generator, as where a notebook's cell defined it."""


def run_in_new_process(
    generators: Iterable[type[Generator]], work: Work, *, folder: Path | None = None, limit_s: float | None = None
) -> Iterator[Any]:
    """Run work in a new process, and yield its results one by one.

    Args:
        generators: the generators that the process must know.
        folder: where the process runs; None: where this one does.
        limit_s: seconds to wait for each result after the first.

    Raises:
        GeneratorUnknownThereError: no other process can import a generator; before the first result.
        TimeoutError: the limit has passed; the process was killed.
        PluginError: the generator raised, or the process ended abruptly.
    """
    sources = [Source.of(generator) for generator in generators]
    if any(source.module == "__main__" or source.file is None for source in sources):
        raise GeneratorUnknownThereError
    # Not by multiprocessing, which would run the user's script again.
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
            "PYTHONHASHSEED": "random",
        },
    )
    assert process.stdin is not None
    assert process.stdout is not None
    message: dict[str, Any] = {}
    late = threading.Event()
    with process:
        try:
            process.stdin.write(pickle.dumps((sources, work)))
            process.stdin.close()
            while line := _read_line(process, limit_s if "result" in message else None, late):
                message = json.loads(line)
                if "error" in message:
                    raise PluginError(message["error"])
                if "result" in message:
                    yield message["result"]
        except BrokenPipeError:
            message = {}
        finally:
            process.kill()
    if late.is_set():
        raise TimeoutError
    if message.get("end") == _UNKNOWN:
        raise GeneratorUnknownThereError
    if message.get("end") != _DONE:
        names = ", ".join(source.name for source in sources)
        raise PluginError(f"{names}: the process that draws images again ended abruptly ({process.returncode})")


def _read_line(process: subprocess.Popen[bytes], limit_s: float | None, late: threading.Event) -> bytes:
    """The next line that the process writes; empty where it has ended, or was killed because the limit has passed."""
    assert process.stdout is not None
    if limit_s is None:
        return process.stdout.readline()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit_s, end)
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()


@dataclass(frozen=True)
class Source:
    """The location of a generator's class, from which another process imports it."""

    name: str
    module: str
    file: str | None
    qualname: str

    @classmethod
    def of(cls, generator: type[Generator]) -> Source:
        file = getattr(sys.modules.get(generator.__module__), "__file__", None)
        return cls(generator.name, generator.__module__, file, generator.__qualname__)

    def register(self) -> bool:
        """Make the generator known to this process; False where it cannot be imported here."""
        if self.name in plugins().generators:
            return True
        try:
            module = importlib.import_module(self.module)
        except ImportError:
            return False
        generator = getattr(module, self.qualname, None)
        if getattr(module, "__file__", None) != self.file or generator is None:
            return False
        plugins().add(generator)
        return True


def main() -> None:
    """The new process: reads its work from standard input and writes a line of JSON for each message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides about Ctrl-C
    sources, work = pickle.load(sys.stdin.buffer)
    # Text that a plugin prints goes to standard error, and does not mix with the messages.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def send(**message: Any) -> None:
            print(json.dumps(message), file=out, flush=True)

        try:
            known = all(source.register() for source in sources)
            for result in work.run() if known else ():
                send(result=result)
            send(end=_DONE if known else _UNKNOWN)
        except FormulaVisionError as error:
            send(error=str(error))
