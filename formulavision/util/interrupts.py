"""Signals that ask a process to end: Ctrl-C, and SIGTERM or SIGHUP from a cluster or a terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["SIGNALS", "Terminated", "catch_signals", "held_back", "interrupt", "interrupted", "stoppable"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Sent by Ctrl-C, by a cluster or a container, and at the end of a terminal."""

_SAME_S = 1.0
"""Seconds. A terminal and a launcher may both send a signal: a second one within this time counts as the first."""


class Terminated(SystemExit, KeyboardInterrupt):
    """SIGTERM or SIGHUP. It is caught like Ctrl-C; uncaught, it ends the process with status 128 + its number."""


_interrupted: int | None = None


@contextmanager
def catch_signals() -> Iterator[None]:
    """Answer SIGTERM and SIGHUP as Ctrl-C is answered, by an exception, and remember the signal while the block runs.

    After the block the handlers stay, so that the program's end can be interrupted in the same way.
    """
    global _interrupted

    def handler(number: int, frame: object) -> NoReturn:
        global _interrupted
        _interrupted = number
        interrupt(number)

    for number in SIGNALS:
        # A process that ignores the end of its terminal (nohup) continues to ignore it.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, handler)
    try:
        yield
    finally:
        _interrupted = None


def interrupted() -> int | None:
    """Number of the signal that has come in the block of :func:`catch_signals`; None: none, or there is no such block.

    A library that calls our code from C or Rust may replace the signal's exception by one of its own, as pydantic does.
    """
    return _interrupted


def interrupt(number: int, frame: object = None) -> NoReturn:
    """Signal handler: raise KeyboardInterrupt or :class:`Terminated`."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)


@contextmanager
def stoppable(first: Callable[[int], None], again: Callable[[], None] | None) -> Iterator[None]:
    """Handle the first signal by ``first``, so that the block can finish its step; end it at once after the second.

    Args:
        first: called with the first signal's number; it raises nothing.
        again: called at the second signal, before its exception is raised. None: a second signal is ignored.

    Only a main thread can handle signals: in other threads the block runs without this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    since: float | None = None

    def handler(number: int, frame: object) -> None:
        nonlocal since
        if since is None:
            since = time.monotonic()
            first(number)
        elif again is not None and time.monotonic() - since > _SAME_S:
            again()
            interrupt(number)

    # A process that ignores the end of its terminal (nohup) continues to ignore it.
    taken = [number for number in SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in taken}
    mask = _mask("SIG_UNBLOCK", taken)
    try:
        yield
    finally:
        _mask("SIG_SETMASK", mask)
        for number, old in before.items():
            if old is not None:  # set by other means than Python's
                signal.signal(number, old)


@contextmanager
def held_back() -> Iterator[None]:
    """Delay signals until the block ends. Processes that start in it receive none, except in :func:`stoppable`."""
    waiting: list[int] = []
    before = {}
    mask = _mask("SIG_BLOCK", SIGNALS)
    try:
        # The system may deliver a signal to another thread; Python still runs its handler in the main thread.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before[number] = signal.signal(number, lambda number, frame: waiting.append(number))
        yield
    finally:
        for number, old in before.items():
            if old is not None:  # set by other means than Python's
                signal.signal(number, old)
        _mask("SIG_SETMASK", mask)
        for number in waiting:
            signal.raise_signal(number)


def _mask(how: str, signals: Any) -> Any:
    """Change the mask of blocked signals, if the operating system has one; return the mask before."""
    if not hasattr(signal, "pthread_sigmask"):
        return ()
    return signal.pthread_sigmask(getattr(signal, how), signals)
