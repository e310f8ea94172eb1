"""Signals that ask a process to end: Ctrl-C, and SIGTERM or SIGHUP from a cluster or a terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["Terminated", "answer_signals", "catch_signals", "held_back", "interrupt", "keep_signals", "stoppable"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Sent by Ctrl-C, by a cluster or a container, and at the end of a terminal."""

_SAME_S = 1.0
"""Seconds. A terminal and a launcher may both send a signal: a second one within this time counts as the first."""


class Terminated(SystemExit, KeyboardInterrupt):
    """SIGTERM or SIGHUP. It is caught like Ctrl-C; uncaught, it ends the process with status 128 + its number."""


_interrupted: int | None = None


def answer_signals() -> dict[int, Any]:
    """Answer SIGTERM and SIGHUP as Ctrl-C is answered, by an exception, from now on. Returns the handlers before."""

    def handler(number: int, frame: object) -> NoReturn:
        global _interrupted
        _interrupted = number
        interrupt(number)

    # A process that ignores the end of its terminal (nohup) continues to ignore it.
    usual = (signal.SIG_DFL, signal.default_int_handler)
    return {number: signal.signal(number, handler) for number in _SIGNALS if signal.getsignal(number) in usual}


@contextmanager
def catch_signals() -> Iterator[None]:
    """:func:`answer_signals` and :func:`keep_signals` while the block runs; the handlers before come back."""
    global _interrupted
    before = answer_signals()
    try:
        with keep_signals():
            yield
    finally:
        _interrupted = None
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def keep_signals() -> Iterator[None]:
    """An exception that a library raises in place of a signal's becomes the signal's again.

    A library that calls our code from C or Rust may replace exceptions, as pydantic does. Without
    :func:`catch_signals` around it nothing changes.
    """
    try:
        yield
    except Exception:
        if _interrupted is not None:
            interrupt(_interrupted)
        raise


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
    taken = [number for number in _SIGNALS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
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
    mask = _mask("SIG_BLOCK", _SIGNALS)
    try:
        # The system may deliver a signal to another thread; Python still runs its handler in the main thread.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
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
