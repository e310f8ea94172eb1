"""Two processes that train together, one job after another."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest
import torch
from forked import FORKED

__all__ = ["Pair"]

_PATIENCE_S = 900


class Pair:
    """Two processes with the variables that torchrun sets, started for the first job."""

    def __init__(self) -> None:
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def __call__(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call ``work`` with the same arguments in both processes; the result is that of the first.

        Where it fails in one of them, so does the test, with the process's traceback.
        """
        if not self._processes:
            self._start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for pipe in self._pipes:
            pipe.send((port, work, arguments, named))
        results: dict[int, Any] = {}
        while len(results) < 2:
            # One that failed leaves the other waiting for it.
            ready = wait([pipe for rank, pipe in enumerate(self._pipes) if rank not in results], _PATIENCE_S)
            failure = None if ready else f"no result in {_PATIENCE_S} s"
            for rank in [rank for rank, pipe in enumerate(self._pipes) if pipe in ready]:
                results[rank], failure = self._pipes[rank].recv()
            if failure:
                self.close(kill=True)
                pytest.fail(failure)
        return results[0]

    def _start(self) -> None:
        for rank in range(2):
            ours, theirs = FORKED.Pipe()
            process = FORKED.Process(target=_serve, args=(rank, theirs))
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def close(self, *, kill: bool = False) -> None:
        """End both processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if kill:
                process.kill()
            process.join()
        self._processes, self._pipes = [], []


def _serve(rank: int, pipe: Connection) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="pair",
    )  # fmt: skip
    while True:
        try:
            port, work, arguments, named = pipe.recv()
        except EOFError:
            return
        os.environ["MASTER_PORT"] = str(port)
        result, failure = None, None
        try:
            result = work(*arguments, **named)
        except BaseException:
            failure = traceback.format_exc()
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        pipe.send((result, failure))
