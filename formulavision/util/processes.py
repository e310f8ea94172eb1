"""Worker processes that end with their parent, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

__all__ = ["BROKEN_POOL", "CONTEXT", "end_workers", "worker_pool"]

BROKEN_POOL = (
    "a worker process ended abruptly: use fewer workers if memory ran out; a script that uses workers must start under "
    "'if __name__ == \"__main__\":', and its own generators must come from a module that can be imported"
)

CONTEXT = multiprocessing.get_context("spawn")
"""Fresh processes: a fork would copy the threads' locks of numba, torch and the progress bars in whatever state."""


def worker_pool(workers: int, start: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """Processes that call ``start(*arguments)`` before their first piece of work.

    Ctrl-C is left to the parent, which decides what becomes of the work.
    """
    return ProcessPoolExecutor(workers, CONTEXT, _start, (start, *arguments))


def end_workers(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes at once, whatever they are at: for work that writes nothing."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _start(start: Callable[..., None], *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    # A worker waits for work on a pipe that it holds itself, so it would wait for ever for a parent that was killed.
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
