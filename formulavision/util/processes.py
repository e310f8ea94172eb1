"""Worker processes that end with their parent, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from formulavision.util.interrupts import held_back

__all__ = ["BROKEN_POOL", "CONTEXT", "end_workers", "worker_pool"]

BROKEN_POOL = (
    "a worker process ended abruptly: use fewer workers if memory ran out; a script that uses workers must start under "
    "'if __name__ == \"__main__\":', and its own generators must come from a module that can be imported"
)

CONTEXT = multiprocessing.get_context("spawn")
"""Fresh processes: a fork would copy the threads' locks of numba, torch and the progress bars in whatever state."""

_GRACE_S = 2.0


def worker_pool(workers: int, start: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """Processes that call ``start(*arguments)`` before their first piece of work.

    Ctrl-C, and a request to end that goes to the whole group of processes, are left to the parent, which decides what
    becomes of the work: from a worker's first moment on, when Python has yet to start there.
    """
    return _Pool(workers, CONTEXT, _start, (start, *arguments))


class _Pool(ProcessPoolExecutor):
    def submit(self, work: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
        with held_back():  # processes are started here
            return super().submit(work, *args, **keywords)


def end_workers(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes at once, whatever they are at: for work that writes nothing."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def _start(start: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        # A pool whose worker has died ends the others by it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_soon(*signal_and_frame: object) -> None:
    # The parent may be asked to end as well, and then needs the time to end the work in good order.
    timer = threading.Timer(_GRACE_S, os._exit, [128 + signal.SIGTERM])
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    # A worker waits for work on a pipe that it holds itself, so it would wait for ever for a parent that was killed.
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
