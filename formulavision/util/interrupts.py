"""Ctrl-C and a cluster's request to end, which are answered alike."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["SIGNALS", "Terminated", "held_back", "interrupt", "stoppable"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks a process to end: Ctrl-C, a cluster or a container, and the end of the terminal."""

_SAME_S = 1.0
"""A terminal and a launcher may both pass a signal on: a second one within this time is the first one."""


class Terminated(SystemExit, KeyboardInterrupt):
    """SIGTERM or SIGHUP: caught where Ctrl-C is; uncaught, it ends the process with status 128 + the number."""


def interrupt(number: int, frame: object = None) -> NoReturn:
    """Raise the exception that stands for a signal; a signal handler."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)


@contextmanager
def stoppable(first: Callable[[int], None], again: Callable[[], None] | None) -> Iterator[None]:
    """Let the work in the block come to a good end after the first signal, and end it at once after the second.

    Args:
        first: called with the first signal's number; it raises nothing.
        again: called at the second signal, before the exception that stands for it is raised. None: a second signal
            changes nothing.

    Only a main thread handles signals: elsewhere the block runs as it is.
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

    # What was told to ignore the end of its terminal (nohup) goes on doing so.
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
    """Signals wait until the block ends; processes that are started in it get none but in :func:`stoppable`."""
    waiting: list[int] = []
    before = {}
    mask = _mask("SIG_BLOCK", SIGNALS)
    try:
        # Another thread may take a signal, of which the handler runs in the main thread all the same.
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
    """Change which signals wait, where the operating system can; gives those that waited before."""
    if not hasattr(signal, "pthread_sigmask"):
        return ()
    return signal.pthread_sigmask(getattr(signal, how), signals)
