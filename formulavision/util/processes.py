"""Worker processes that end when their parent ends, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from formulavision.util.interrupts import held_back

__all__ = ["BROKEN_POOL", "CONTEXT", "Pools", "end_workers", "worker_pool"]

BROKEN_POOL = (
    "a worker process ended abruptly: use fewer workers if memory ran out; a script that uses workers must start under "
    "'if __name__ == \"__main__\":', and its own generators must come from a module that can be imported"
)

CONTEXT = multiprocessing.get_context("spawn")
"""New processes are spawned: a fork would copy locks that threads of numba, torch or the progress bars hold."""

Pools = Callable[..., Executor]
"""Makes a pool of processes that call ``start(*arguments)`` before their first work: ``pools(start, *arguments)``."""

_GRACE_S = 2.0


def worker_pool(workers: int, start: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """A pool of processes that call ``start(*arguments)`` before their first work.

    Signals that go to the whole group of processes, such as Ctrl-C, are left to the parent, which decides about the
    work. This holds from the first moment of a worker on, before Python has started in it.
    """
    return _Pool(workers, CONTEXT, _start, (start, *arguments))


class _Pool(ProcessPoolExecutor):
    def submit(self, work: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
        with held_back():  # processes are started here
            return super().submit(work, *args, **keywords)


def end_workers(pool: Executor) -> None:
    """Kill a pool's processes at once. Only for work that writes no files."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
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
    # The parent may receive the signal, too, and then needs this time to finish its work.
    timer = threading.Timer(_GRACE_S, os._exit, [128 + signal.SIGTERM])
    timer.daemon = True
    timer.start()


def _end_with_parent() -> None:
    # A worker holds both ends of the pipe that it waits on, so it would wait for ever after its parent was killed.
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
