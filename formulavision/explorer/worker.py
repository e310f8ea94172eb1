"""The process that draws for the explorer: one piece of work at a time, killed when that takes too long."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from formulavision.explorer.limits import Limits
from formulavision.util.errors import ConfigError, FormulaVisionError

__all__ = ["ReportProgress", "Worker"]

_COMPILING = "compiling kernels (once after an installation)"


class ReportProgress(Protocol):
    """Called with what is done in words, how much of it is done, and how much there is (None: not known)."""

    def __call__(self, told: str, done: int, total: int | None) -> None: ...


def unwatched(told: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


class Worker:
    """Runs functions in a process of its own, which has limits of time and memory.

    The process is started by the first call, and anew after it was killed. It is not started by multiprocessing, which
    would run the user's script again.

    Args:
        limits: of time and memory.
        advice: what helps where a limit is reached, for the error's line.
    """

    def __init__(self, limits: Limits, advice: str = "a smaller canvas, fewer points or fewer categories help") -> None:
        self.limits = limits
        self.advice = advice
        self._process: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def __repr__(self) -> str:
        return f"Worker({self.limits!r})"

    def call(
        self,
        work: Callable[..., Any],
        *arguments: Any,
        progress: ReportProgress = unwatched,
    ) -> Any:
        """The result of ``work(*arguments, progress)``, which an importable module defines.

        A kernel that has to be compiled is told by ``progress``, and the limit of time begins anew with each: how long
        that takes is not the visitor's choice.

        Raises:
            FormulaVisionError: as the work raised; or it took more time or memory than the limits allow.
        """
        with self._one_at_a_time:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            def start() -> threading.Timer:
                timer = threading.Timer(self.limits.seconds, end)
                timer.start()
                return timer

            timer = start()
            try:
                pickle.dump((work, arguments), process.stdin)
                process.stdin.flush()
                while (message := pickle.load(process.stdout))[0] in ("progress", "compiling"):
                    if message[0] == "compiling":
                        timer.cancel()
                        timer = start()
                        progress(_COMPILING, message[1], None)
                    else:
                        progress(*message[1:])
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                self.close()
                raise ConfigError(f": the work {self._why(late.is_set(), process.returncode)}") from None
            except BaseException:  # of progress: the answer that comes later is not for the next visitor
                self.close()
                raise
            finally:
                timer.cancel()
        kind, *content = message
        if kind == "problems":
            raise ConfigError(*content)
        return content[0]

    def _why(self, late: bool, status: int) -> str:
        if late:
            return f"took longer than {self.limits.seconds:g} s and was stopped: {self.advice}"
        return f"ended its process abruptly (status {status}): {self.advice}"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({self.limits.memory})"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)},
            )
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def main(memory: int) -> None:
    """The process: reads work from standard input and writes messages to standard output until its parent has ended.

    Args:
        memory: bytes that it may take.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides about Ctrl-C
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    except (ImportError, ValueError, OSError):
        pass  # Windows, and systems that allow no such limit
    # Text that a plugin prints goes to standard error, and does not mix with the messages.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)

        def send(*message: Any) -> None:
            pickle.dump(message, out)
            out.flush()

        _tell_compilations(lambda count: send("compiling", count))
        while True:
            try:
                work, arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                result = work(*arguments, lambda told, done, total: send("progress", told, done, total))
            except FormulaVisionError as error:
                send("problems", *getattr(error, "problems", (f": {error}",)))
            except MemoryError:
                send("problems", ": the work takes more memory than is allowed here: a smaller canvas helps")
            else:
                send("result", result)


def _tell_compilations(told: Callable[[int], None]) -> None:
    """Call a function with the number of kernels that this process has compiled, before the next one and after it."""
    from numba.core import event

    class Listener(event.Listener):
        compiled = 0

        def on_start(self, event: Any) -> None:
            told(self.compiled)

        def on_end(self, event: Any) -> None:
            self.compiled += 1
            told(self.compiled)

    event.register("numba:compile", Listener())
