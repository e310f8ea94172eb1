"""One training run from its plan to its folder."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from formulavision.data.device_loading import DrawnOnDevice, device_drawer, make_device_loader
from formulavision.data.labels import Relabelled
from formulavision.data.loading import EpochLoader, ImageDataset, Prepared, image_cache, make_loader
from formulavision.recipes.device import device_name
from formulavision.training.distributed import Processes, launched, synchronise_batch_norm
from formulavision.training.export import write_card
from formulavision.training.models import build_model, check_training, export
from formulavision.training.module import Classifier
from formulavision.training.progress import Bar, announce, conclude, describe_model, epoch_line, say
from formulavision.training.randomness import own_randomness
from formulavision.training.recorder import Recorder
from formulavision.training.runs import Run, claim
from formulavision.training.settings import TrainSettings
from formulavision.training.state import find_checkpoint, write_result
from formulavision.util.errors import ConfigError, FormulaVisionError, PluginError
from formulavision.util.interrupts import held_back, interrupt, stoppable
from formulavision.util.logs import logged, note
from formulavision.util.machine import cores, processor, versions
from formulavision.util.version import __version__

__all__ = ["Plan", "fit", "new_model", "resolve_device", "resolve_precision"]

_LOADERS_ON_CUDA = 16
_PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: one may cluster a million images while the others do nothing."""

_ADVICE = (
    ".*does not have many workers",
    "You defined a `validation_step` but have no `val_dataloader`",
    "You're resuming from a checkpoint that ended before the epoch ended",  # the recorder sees to it
    r"Found \d+ module\(s\) in eval mode",  # frozen layers
    "GPU available but not used",  # device: cpu
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
)
"""Lightning's advice to users of Lightning is none to ours."""


@dataclass(frozen=True)
class Plan:
    """What a run does, as settings.yaml says it."""

    kind: str
    settings: TrainSettings
    inputs: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "settings": self.settings.model_dump(mode="json"), **self.inputs}


def new_model(settings: TrainSettings, num_classes: int) -> torch.nn.Module:
    """A model whose initial weights depend on the seed alone."""
    with own_randomness():
        torch.manual_seed(settings.seed)
        return build_model(settings, num_classes)


def resolve_device(name: str) -> torch.device:
    """The device that a setting stands for.

    Raises:
        ConfigError: this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_there in there.items() if is_there)
    if not there[name]:
        raise ConfigError(f"device: '{name}' is not available on this machine: must be auto or cpu")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """Lightning's name of the precision that a setting stands for.

    Raises:
        ConfigError: the device has it not.
    """
    if name == "16-mixed" and device.type == "cpu":
        raise ConfigError("precision: '16-mixed' is not for the CPU: must be 32-true or bf16-mixed there")
    return name if name != "auto" else "bf16-mixed" if device.type == "cuda" else "32-true"


def draws_there(settings: TrainSettings, device: torch.device) -> bool:
    """Whether images drawn on demand are drawn on the device where the model trains, if the generator can."""
    return settings.draw_on == "auto" and device.type == "cuda"


def fit(
    plan: Plan,
    model: torch.nn.Module,
    train: ImageDataset,
    test: ImageDataset | None,
    *,
    out: Path,
    resume: bool,
    overwrite: bool = False,
    frozen: list[str],
    console: Console,
) -> Run:
    """Train, and leave a complete run's folder.

    Args:
        plan: what the run does.
        model: with the weights that it starts from, and its frozen layers frozen.
        train, test: images to train on, and to validate on after each epoch.
        out: the run's folder.
        resume: go on with the unfinished run in it.
        overwrite: remove the run in it first.
        frozen: names of the frozen parameters.
        console: where progress is told.

    Raises:
        ConfigError: the run to be resumed has other settings, the folder cannot be written, or there is no such device.
        KeyboardInterrupt: Ctrl-C, or SIGTERM (as :class:`~formulavision.util.interrupts.Terminated`); the run can be
            resumed from the step that it stopped after.
    """
    settings = plan.settings
    device = resolve_device(settings.device)
    torchrun = launched()
    ranks = torchrun.world_size if torchrun else settings.devices
    for what, count in (
        ("batches of", settings.batch_size),
        ("training images:", len(train)),
        ("images to validate on:", ranks if test is None else len(test)),
    ):
        if ranks > count:
            raise ConfigError(f"devices: {ranks} processes cannot share {what} {count}")
    resolve_precision(settings.precision, device)
    if device.type == "cuda" and settings.devices > torch.cuda.device_count():
        raise ConfigError(f"devices: {settings.devices} are not there: this machine has {torch.cuda.device_count()}")
    if (settings.mixup or settings.cutmix) and isinstance(train[0][1], torch.Tensor):
        raise ConfigError(f"{'mixup' if settings.mixup else 'cutmix'}: mixes images of one label each, not of several")
    check_training(model, settings, len(train.class_names))
    local = torchrun.local_size if torchrun else ranks
    job = _Job(plan, model, train, test, out, None, frozen, device, ranks, local)
    started = time.perf_counter()
    # Of several processes the first one writes.
    first = torchrun is None or torchrun.rank == 0
    claimed = claim(out, plan.to_dict(), train.class_names, resume=resume, overwrite=overwrite)
    with claimed if first else nullcontext(), logged(out) if first else nullcontext():
        note(f"versions: {versions()}; {cores()} cores of {processor()}; settings: {plan.to_dict()}")
        if resume:
            job = replace(job, checkpoint=find_checkpoint(out, lambda line: say(console, line)))
        if ranks > 1 and torchrun is None:
            stopped = _train_in_processes(job, quiet=console.quiet)
        else:
            stopped = _train(job, torchrun.rank if torchrun else 0, torchrun, console)
    run = Run.load(out)
    if torchrun is None or torchrun.rank == 0:
        conclude(console, run, time.perf_counter() - started)
    if stopped:  # in the last epoch
        interrupt(stopped)
    return run


@dataclass(frozen=True)
class _Job:
    """All that a process needs to take its part."""

    plan: Plan
    model: torch.nn.Module
    train: ImageDataset
    test: ImageDataset | None
    out: Path
    checkpoint: Path | None
    frozen: list[str]
    device: torch.device
    ranks: int
    local_ranks: int

    def _workers(self, fresh: bool) -> int:
        """How many loader processes there are where the settings do not say it."""
        if self.device.type == "cuda":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            return max(1, min(_LOADERS_ON_CUDA, cores // self.local_ranks))
        # What is read is kept in memory. What is drawn is drawn while the model trains; but not where a process is
        # started anew, which takes a script with a __main__ guard.
        method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
        return int(fresh and method == "fork")

    def loader(
        self, dataset: ImageDataset, torchrun: Processes | None, console: Console, *, training: bool
    ) -> EpochLoader:
        """A process's share of the batches; where it draws on the device, it can be made in that process only."""
        settings = self.plan.settings
        fresh = training and settings.fresh and getattr(dataset, "endless", False)
        images: dict[str, Any] = {
            **settings.resizing(),
            "augment": training,
            "flip": settings.horizontal_flip,
            "seed": settings.seed,
            "fresh": fresh,
        }
        batches: dict[str, Any] = {
            "batch_size": settings.batch_size,
            "shuffle": training,
            "rank": torchrun.rank if torchrun else 0,
            "ranks": self.ranks,
        }
        if draws_there(settings, self.device):
            try:
                drawer = device_drawer(dataset, self._own_device(torchrun))
            except PluginError as error:  # kernels need a C compiler, which slim containers lack
                say(console, f"{error}; loader processes draw instead")
                drawer = None
            if drawer is not None:
                return make_device_loader(DrawnOnDevice(dataset, drawer, **images), **batches)
        workers = settings.workers if settings.workers is not None else self._workers(fresh)
        cache = None
        if not fresh:
            cache = image_cache(
                dataset, settings.resize, workers=workers, ranks=self.local_ranks, mode=settings.resize_mode
            )
        prepared = Prepared(dataset, cache=cache, **images)
        return make_loader(prepared, workers=workers, pin=self.device.type == "cuda", **batches)

    def _own_device(self, torchrun: Processes | None) -> torch.device:
        """The one that Lightning trains on in this process."""
        if self.device.type != "cuda":
            return self.device
        return torch.device("cuda", torchrun.local_rank if torchrun else 0)


def _train(job: _Job, rank: int, torchrun: Processes | None, console: Console) -> int:
    """Train in this process, which is one of ``job.ranks``.

    Returns:
        The number of the signal that would have stopped it, had this not been the last epoch; 0: none.
    """
    settings, model = job.plan.settings, job.model
    precision = resolve_precision(settings.precision, job.device)
    if rank:
        console = Console(quiet=True)
    note(f"{torch.get_num_threads()} threads, {device_name(job.device)}, {precision}")
    loaders = [job.loader(job.train, torchrun, console, training=True)]
    if job.test is not None:
        loaders.append(job.loader(job.test, torchrun, console, training=False))
    announce(console, job.plan.kind, settings, [loader.dataset for loader in loaders])
    together = f", {job.ranks} processes" if job.ranks > 1 else ""
    say(
        console,
        f"{settings.model}: {describe_model(model, job.frozen)}, on {job.device.type} in {precision}{together}, "
        f"{loaders[0].describe()}",
    )
    if job.ranks > 1:
        synchronise_batch_norm(model, job.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    module = Classifier(model, settings, loaders[0])
    if settings.compile:
        model.compile()
    recorder = Recorder(
        job.out,
        loaders[0],
        minutes=settings.checkpoint_minutes,
        resumed_from=job.checkpoint,
        on_epoch=lambda row: say(console, epoch_line(row)),
    )
    callbacks: list[lightning.Callback] = [recorder]
    if isinstance(job.train, Relabelled) and job.train.clusters is not None:
        from formulavision.training.deepcluster import Reclustering  # scikit-learn is slow to import

        callbacks.append(Reclustering(loaders[0], settings))
    if console.is_terminal and not console.quiet:
        callbacks.append(Bar(console))
    with _quiet_lightning(), own_randomness(), _interruptible(job, recorder, console):
        trainer = lightning.Trainer(
            accelerator=job.device.type,
            devices=torchrun.local_size if torchrun else 1,
            num_nodes=torchrun.nodes if torchrun else 1,
            strategy=DDPStrategy(timeout=_PATIENCE) if torchrun else "auto",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            callbacks=callbacks,
            gradient_clip_val=settings.clip_grad or None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        # Lightning's answer to SIGTERM stops without a checkpoint, and in several processes it may wait for ever.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit(
            module,
            train_dataloaders=loaders[0],
            val_dataloaders=loaders[1:] or None,
            ckpt_path=job.checkpoint,
            weights_only=True,
        )
    if rank == 0:
        try:
            _finish(job, module, recorder, precision, loaders[0].drawn_on)
        except OSError as error:
            raise FormulaVisionError(f"{job.out}: {error.strerror or error}; --resume writes what is missing") from None
    trainer.strategy.barrier()  # the other processes read what the first one wrote
    return recorder.stop


def _finish(job: _Job, module: Classifier, recorder: Recorder, precision: str, drawn_on: str | None) -> None:
    """Write what makes the run complete."""
    device = job.device
    model = module.final_model
    export(model, job.out, settings=job.plan.settings, class_names=job.train.class_names)
    write_result(
        job.out,
        {
            "kind": job.plan.kind,
            "complete": True,
            "history": recorder.history,
            "final": recorder.history[-1],
            "seconds": sum(row["seconds"] or 0 for row in recorder.history),
            "images_per_second": recorder.images / recorder.train_seconds,
            "parameters": sum(p.numel() for p in model.parameters()),
            "frozen": job.frozen,
            "device": device_name(device),
            "drawn_on": drawn_on,
            "processes": job.ranks,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "cores": cores(),
            "versions": versions(),
            "formulavision": __version__,
        },
    )
    write_card(job.out)


# Several processes --------------------------------------------------------------------------------------------------


def _train_in_processes(job: _Job, *, quiet: bool) -> int:
    """Train in ``job.ranks`` processes of this machine, which see themselves as torchrun would have started them.

    Returns:
        As :func:`_train` does.
    """
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
        # A terminal's Ctrl-C reaches all processes, this one passes it on, and they take it when they can.
        with held_back():
            context = torch.multiprocessing.spawn(
                _take_part, (job, quiet, port, outcomes), nprocs=job.ranks, join=False
            )
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
            if outcomes.empty():
                raise
            raise outcomes.get() from error
    if not outcomes.empty():
        interruption = outcomes.get()
        if stopped:
            interrupt(stopped)
        raise interruption
    return stopped


def _take_part(rank: int, job: _Job, quiet: bool, port: int, outcomes: Any) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // job.ranks))
    size = str(job.ranks)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=size, LOCAL_WORLD_SIZE=size, GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="formulavision",
    )  # fmt: skip
    # Sent to another process, a tensor's memory is shared with it.
    job = replace(job, model=copy.deepcopy(job.model))
    try:
        with logged(job.out) if rank == 0 else nullcontext():
            _train(job, rank, launched(), Console(quiet=quiet))
        # Threads of the group that still run when the interpreter ends may abort the process.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except FormulaVisionError as error:
        outcomes.put(error)
        raise
    except KeyboardInterrupt as error:
        outcomes.put(error)


@contextmanager
def _interruptible(job: _Job, recorder: Recorder, console: Console) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends training after the step at hand, with a checkpoint; the second one at once.

    Processes that this module started are ended by the one that started them.
    """

    def stop(number: int) -> None:
        recorder.stop = number
        say(console, "stopping after this step; Ctrl-C again stops at once")

    started_here = multiprocessing.parent_process() is not None and job.ranks > 1
    try:
        with stoppable(stop, None if started_here else lambda: None):
            yield
    except BaseException as error:
        # Lightning answers a KeyboardInterrupt by leaving the process.
        found = error if isinstance(error, KeyboardInterrupt) else error.__context__
        if not isinstance(found, KeyboardInterrupt):
            if isinstance(error, FormulaVisionError) and "DataLoader worker" in str(error):
                # The loader makes one message of the worker's traceback, which ends with the message that is meant.
                raise type(error)(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
            raise
        epoch, batch = recorder.position
        within = f" and {batch:,} of {len(recorder.loader):,} steps of the next" if batch else ""
        say(
            console,
            f"{job.out}: stopped with {epoch} of {job.plan.settings.epochs} epochs{within} done; "
            "resumed, it goes on from there",
        )
        raise type(found)(*found.args) from None


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No advice, and no lines about devices that were found."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
