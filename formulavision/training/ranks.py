"""Several processes that train one model: which one this is, and starting them on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from formulavision.util.errors import ConfigError, FormulaVisionError
from formulavision.util.interrupts import held_back, interrupt, stoppable

__all__ = ["Processes", "environment", "is_first", "launched", "ranked", "train_in_processes"]


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together, as torchrun counts them.

    Attributes:
        world_size: number of processes.
        local_size: number of processes on this machine.
    """

    world_size: int
    local_size: int

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.local_size


def launched() -> Processes | None:
    """The processes that torchrun started together with this one; None where it did not start this one.

    Raises:
        ConfigError: the machines have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    world_size, local_size = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if world_size % local_size:
        raise ConfigError(f"torchrun: {world_size} processes are not {local_size} on each machine")
    return Processes(world_size, local_size)


def is_first() -> bool:
    """Whether this process writes files and prints: it is the only one, or has rank 0."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


@contextmanager
def ranked() -> Iterator[None]:
    """Lightning's loggers write in the first process, and in no other.

    Lightning takes a rank from what Slurm, Kubernetes and others set for processes that train by themselves, too.
    """
    from lightning.pytorch.utilities import rank_zero_only

    lightning: Any = rank_zero_only
    before, lightning.rank = lightning.rank, int(os.environ["RANK"]) if launched() else 0
    try:
        yield
    finally:
        lightning.rank = before


def environment() -> list[Any]:
    """What the Trainer's ``plugins`` say of this process: it trains by itself, unless torchrun started it."""
    from lightning.pytorch.plugins.environments import LightningEnvironment

    return [] if launched() else [LightningEnvironment()]


def train_in_processes(train: Callable[[], None], count: int) -> int:
    """Call a function in several new processes of this machine, with the environment that torchrun would give them.

    Args:
        train: can be pickled.
        count: number of processes.

    Returns:
        The number of the signal that came in the last epoch, after which they ended as usual; 0: none.

    Raises:
        FormulaVisionError: what the first process to fail raised; or one of them was killed.
        KeyboardInterrupt: a signal stopped them.
    """
    import torch.multiprocessing
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcomes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    logging.getLogger(torch.multiprocessing.spawn.__module__).setLevel(logging.ERROR)
    processes: list[Any] = []
    stopped = 0

    def stop(number: int) -> None:
        nonlocal stopped
        stopped = number
        for process in processes:
            process.terminate()  # they end together, with a checkpoint

    def kill() -> None:
        for process in processes:
            process.kill()

    with stoppable(stop, kill):
        # A terminal sends Ctrl-C to all processes, and this one passes it on: they take it once they are ready for it.
        with held_back():
            context = torch.multiprocessing.spawn(_take_part, (train, count, port, outcomes), nprocs=count, join=False)
        processes += context.processes
        if stopped:
            stop(stopped)
        try:
            while context.sentinels:
                wait(list(context.sentinels))
                if any(process.exitcode for process in processes):
                    kill()  # the others wait for the one that failed
                context.join()
        except (ProcessRaisedException, ProcessExitedException) as error:
            if not outcomes.empty():
                raise outcomes.get() from error
            if isinstance(error, ProcessRaisedException):
                raise
            raise FormulaVisionError(
                f"a process that trains was ended from outside ({error.signal_name or error.exit_code}), perhaps since "
                "there was too little memory: --resume goes on from the last checkpoint"
            ) from error
    if not outcomes.empty():
        interruption = outcomes.get()
        if stopped:
            interrupt(stopped)
        raise interruption
    return stopped


def _take_part(rank: int, train: Callable[[], None], count: int, port: int, outcomes: Any) -> None:
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="formulavision",
    )  # fmt: skip
    try:
        train()
        # Threads of the group that still run when the interpreter ends may abort the process.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except FormulaVisionError as error:
        outcomes.put(error)
        raise
    except KeyboardInterrupt as error:
        outcomes.put(error)
