"""One training run: from a plan to a complete run's folder."""

from __future__ import annotations

import copy
import functools
import math
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from formulavision.data.items import ImageDataset, Transform, check_targets, target_of
from formulavision.data.labels import Relabelled
from formulavision.data.pixmix import Mixing
from formulavision.recipes.device import device_name, find_device
from formulavision.training.data_module import TrainingData
from formulavision.training.distributed import synchronise_batch_norm
from formulavision.training.export import write_card
from formulavision.training.extras import Extras, check_sendable, quiet_lightning
from formulavision.training.loggers import open_loggers
from formulavision.training.models import build_model, check_training, save_timm_model, save_weights
from formulavision.training.module import LightningClassifier
from formulavision.training.on_cpu import attention, has_fast_bfloat16, use_matrix_products
from formulavision.training.optimization import count_steps
from formulavision.training.progress import Bar, conclude, describe_model, describe_run, say_and_log
from formulavision.training.randomness import own_randomness
from formulavision.training.ranks import environment, is_first, launched, ranked, train_in_processes
from formulavision.training.recorder import Recorder
from formulavision.training.runs import (
    BEST_WEIGHTS,
    PREVIOUS_CHECKPOINT,
    WEIGHTS,
    Run,
    claim,
    file_digest,
    find_checkpoint,
    own_class,
    write_result,
)
from formulavision.training.settings import Precision, TrainSettings
from formulavision.training.tasks import TASKS, make_task
from formulavision.util.errors import ConfigError, FormulaVisionError
from formulavision.util.interrupts import interrupt, stoppable
from formulavision.util.logs import LOG, logged, note
from formulavision.util.machine import cores, processor, versions
from formulavision.util.text import counted
from formulavision.util.version import __version__

__all__ = ["Plan", "arrange", "fit", "new_model", "resolve_device", "resolve_precision"]

_PATIENCE = timedelta(hours=12)
"""Time for which processes wait for each other: one may cluster a million images while the others do nothing."""


@dataclass(frozen=True)
class Plan:
    """A training run.

    Attributes:
        out: the run's folder.
        content: of settings.yaml: ``kind``, ``settings``, ``precision`` (what ``auto`` stands for), and what the run
            was started on.
        settings: how the model is trained.
        model: with its initial weights; its frozen layers are frozen.
        train: training images.
        validation: images to validate on after each epoch; None: none.
        frozen: names of the frozen parameters.
        extras: loggers, callbacks and Trainer arguments of the user.
        transform, mixing: of the training images.
    """

    out: Path
    content: dict[str, Any]
    settings: TrainSettings
    model: torch.nn.Module
    train: ImageDataset
    validation: ImageDataset | None = None
    frozen: Sequence[str] = ()
    extras: Extras = field(default_factory=Extras)
    transform: Transform | None = None
    mixing: Mixing | None = None


def new_model(settings: TrainSettings, num_classes: int) -> torch.nn.Module:
    """A model whose initial weights depend on the seed alone."""
    with own_randomness():
        torch.manual_seed(settings.seed)
        return build_model(settings, num_classes)


def resolve_device(name: str) -> torch.device:
    """The device that a setting names: ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if name != "mps":
        return find_device(name)
    if not mps:
        raise ConfigError("device: 'mps' is not available on this machine: must be auto or cpu")
    return torch.device("mps")


def resolve_precision(name: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Lightning's name of the precision that a setting names.

    ``auto`` is bf16-mixed on CUDA, and on CPUs that multiply bfloat16 faster than float32; elsewhere it is 32-true.

    Raises:
        ConfigError: the device does not support it.
    """
    if name == "16-mixed" and device.type == "cpu":
        raise ConfigError("precision: '16-mixed' is not supported on the CPU: must be 32-true or bf16-mixed")
    if name == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and has_fast_bfloat16())
        return "bf16-mixed" if fast else "32-true"
    return name


def arrange(
    model: torch.nn.Module, settings: TrainSettings, device: torch.device, *, own: bool = False
) -> TrainSettings:
    """Arrange a model in place for fast training steps on a device.

    Args:
        own: the model is a module of the user's own. It keeps its convolutions, and contiguous memory where
            ``channels_last`` is unset: its code may rely on them, as ``view`` does.

    Returns:
        The settings, with ``channels_last`` where it was unset.
    """
    faster = device.type == "cpu" and not own
    if faster:
        use_matrix_products(model)
    if settings.channels_last is None:
        settings = settings.model_copy(update={"channels_last": faster})
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    return settings


def fit(plan: Plan, *, resume: bool = False, overwrite: bool = False, console: Console) -> Run:
    """Train a model, and write the folder of a complete run.

    Args:
        resume: go on with the run in the folder.
        overwrite: remove the run in the folder first.
        console: where progress is printed.

    Raises:
        ConfigError: the run to be resumed has other settings, the folder cannot be written, or this machine has no such
            device.
        KeyboardInterrupt: Ctrl-C, or SIGTERM (as :class:`~formulavision.util.interrupts.Terminated`); the run can be
            resumed from the step that it stopped after.
    """
    torchrun = launched()
    ranks = torchrun.world_size if torchrun else plan.settings.devices
    _check(plan, ranks)
    started = time.perf_counter()
    first = is_first()
    claimed = claim(plan.out, plan.content, plan.train.classes, resume=resume, overwrite=overwrite)
    with claimed if first else nullcontext(), logged(plan.out) if first else nullcontext():
        note(f"versions: {versions()}; {cores()} cores of {processor()}; settings: {plan.content}")
        checkpoint = find_checkpoint(plan.out, lambda line: say_and_log(line, console)) if resume else None
        if ranks > 1 and torchrun is None:
            stopped = train_in_processes(functools.partial(_train_a_part, plan, checkpoint, console.quiet), ranks)
        else:
            stopped = _train(plan, checkpoint, console)
    run = Run.load(plan.out)
    if first:
        conclude(console, run, time.perf_counter() - started)
    if stopped:  # in the last epoch
        interrupt(stopped)
    return run


def _check(plan: Plan, ranks: int) -> None:
    """Refuse a plan that would fail later, before anything is written to the folder."""
    settings, train, validation = plan.settings, plan.train, plan.validation
    device = resolve_device(settings.device)
    for what, count in (
        ("batches of", settings.batch_size),
        ("training images:", len(train)),
        ("images to validate on:", ranks if validation is None else len(validation)),
    ):
        if ranks > count:
            raise ConfigError(f"devices: {ranks} processes cannot share {what} {count}")
    resolve_precision(plan.content["precision"], device)
    batches = math.ceil(len(train) / settings.batch_size)
    steps = settings.steps or (settings.epochs or 0) * count_steps(batches, settings)
    if settings.warmup_steps >= steps:
        raise ConfigError(f"warmup_steps: is {settings.warmup_steps}: must be below the {steps} steps of the run")
    if settings.layer_decay < 1 and not hasattr(plan.model, "group_matcher"):
        raise ConfigError(f"layer_decay: is {settings.layer_decay}: must be 1: only timm's models know their layers")
    if device.type == "cuda" and settings.devices > torch.cuda.device_count():
        raise ConfigError(f"devices: is {settings.devices}, and this machine has {torch.cuda.device_count()}")
    check_targets(train)
    if validation is not None:
        check_targets(validation, learnt=False)
    task = TASKS[target_of(train)](len(train.classes))
    check_training(plan.model, settings, task, processes=ranks)
    if settings.devices > 1 and launched() is None:
        extras = plan.extras
        check_sendable(
            model=plan.model,
            transform=plan.transform,
            logger=extras.loggers,
            callbacks=extras.callbacks,
            trainer_args=extras.trainer_args,
        )


def _train_a_part(plan: Plan, checkpoint: Path | None, quiet: bool) -> None:
    """:func:`_train` in a process of :func:`train_in_processes`."""
    # The memory of tensors that are sent to another process is shared with it.
    plan = replace(plan, model=copy.deepcopy(plan.model))
    with logged(plan.out) if is_first() else nullcontext():
        _train(plan, checkpoint, Console(quiet=quiet))


def _train(plan: Plan, checkpoint: Path | None, console: Console) -> int:
    """Train in this process, which may be one of several.

    Returns:
        The number of the signal that came in the last epoch, after which the run ended as usual; 0: none.
    """
    settings, model, torchrun = plan.settings, plan.model, launched()
    device = resolve_device(settings.device)
    precision = resolve_precision(plan.content["precision"], device)
    if not is_first():
        console = Console(quiet=True)
    tell = functools.partial(say_and_log, console=console)
    note(f"{counted(torch.get_num_threads(), 'thread')}, {device_name(device)}, {precision}")
    classes = len(plan.train.classes)
    tested = None if plan.validation is None else len(plan.validation)
    tell(describe_run(plan.content["kind"], settings, len(plan.train), classes, tested))
    together = f", {counted(torchrun.world_size, 'process')}" if torchrun else ""
    tell(f"{settings.model}: {describe_model(model, plan.frozen)}, on {device.type} in {precision}{together}")
    if torchrun and torchrun.world_size > 1:
        synchronise_batch_norm(model, device)
    settings = arrange(model, settings, device, own=own_class(plan.content) is not None)
    changes: dict[str, Any] = {"transform": plan.transform, "mixing": plan.mixing}
    data = TrainingData(settings, plan.train, plan.validation, **changes, tell=tell)
    task = make_task(plan.train)
    module = LightningClassifier(model, settings, classes, task)
    module.data = data
    if settings.compile:
        model.compile()
    recorder = Recorder(
        plan.out,
        data,
        task,
        settings=settings,
        resumed_from=checkpoint,
        tell=tell,
        described={**plan.content, **plan.extras.named.labels},
    )
    with quiet_lightning(), ranked(), own_randomness(), _interruptible(plan, recorder, tell):
        loggers = [*plan.extras.loggers, *open_loggers(plan.extras.named, plan.out)]
        trainer = lightning.Trainer(
            accelerator=device.type,
            devices=torchrun.local_size if torchrun else 1,
            num_nodes=torchrun.nodes if torchrun else 1,
            strategy=DDPStrategy(timeout=_PATIENCE) if torchrun else "auto",
            precision=precision,
            max_epochs=settings.epochs or math.ceil((settings.steps or 0) / (settings.interval or 1)),
            # The recorder writes checkpoints: after the user's callbacks, whose state is in them.
            callbacks=[*plan.extras.callbacks, recorder, *_more(plan, data, console)],
            accumulate_grad_batches=settings.grad_accum_steps,
            gradient_clip_val=settings.clip_grad or None,
            logger=loggers,
            plugins=environment(),
            default_root_dir=plan.out / LOG.parent,
            limit_val_batches=0 if plan.validation is None else None,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **plan.extras.arguments,
        )
        # Lightning answers SIGTERM without writing a checkpoint, and several processes may then wait for ever.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        with attention(model, precision) if device.type == "cpu" else nullcontext():
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if is_first():
        facts = {"device": device_name(device), "drawn_on": data.train_loader.drawn_on, "precision": precision}
        try:
            _finish(plan, module.final_model, recorder, {**facts, "processes": trainer.world_size})
        except OSError as error:
            raise FormulaVisionError(
                f"{plan.out}: {error.strerror or error}; --resume writes the missing files"
            ) from None
    trainer.strategy.barrier()  # the other processes read the files of the first one
    return recorder.stop


def _more(plan: Plan, data: TrainingData, console: Console) -> list[lightning.Callback]:
    """Callbacks that only some runs have."""
    callbacks: list[lightning.Callback] = []
    if isinstance(plan.train, Relabelled) and plan.train.clusters is not None:
        from formulavision.training.deepcluster import Reclustering  # scikit-learn is slow to import

        callbacks.append(Reclustering(plan.settings, data))
    if console.is_terminal and not console.quiet and not plan.extras.has_bar:
        callbacks.append(Bar(console))
    return callbacks


def _finish(plan: Plan, model: torch.nn.Module, recorder: Recorder, facts: dict[str, Any]) -> None:
    """Write the files that make the run complete."""
    if own_class(plan.content) or plan.settings.target == "semantic":
        save_weights(model, plan.out / WEIGHTS)
    else:
        save_timm_model(model, plan.out, settings=plan.settings, class_names=plan.train.classes)
    result = {
        "kind": plan.content["kind"],
        "complete": True,
        "history": recorder.history,
        "final": recorder.history[-1],
        **(recorder.best if _is_kept(plan.out / BEST_WEIGHTS, recorder.best) else {}),
        "seconds": sum(metrics["seconds"] or 0 for metrics in recorder.history),
        "images_per_second": recorder.images / recorder.train_seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "frozen": list(plan.frozen),
        **facts,
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "versions": versions(),
        "formulavision": __version__,
    }
    write_result(plan.out, result)
    # The one before the last: killed before this line, a run is complete, and has a file that nobody needs.
    (plan.out / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
    write_card(plan.out)


def _is_kept(path: Path, best: Mapping[str, Any]) -> bool:
    """Whether the file of the best weights is as it was written: no checkpoint can restore it."""
    return bool(best) and path.is_file() and file_digest(path) == best["best_sha256"]


@contextmanager
def _interruptible(plan: Plan, recorder: Recorder, tell: Any) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends training after the current step, with a checkpoint; the second one at once.

    Processes that :func:`train_in_processes` started are ended by the process that started them.
    """

    def stop(number: int) -> None:
        recorder.stop = number
        tell("stopping after this step; Ctrl-C again stops immediately")

    spawned = multiprocessing.parent_process() is not None and launched() is not None
    try:
        with stoppable(stop, None if spawned else lambda: None):
            yield
    except BaseException as error:
        # Lightning turns a KeyboardInterrupt into the end of the process.
        found = error if isinstance(error, KeyboardInterrupt) else error.__context__
        if isinstance(found, KeyboardInterrupt):
            tell(f"{plan.out}: stopped after {recorder.describe_position()}; resuming continues from there")
            raise type(found)(*found.args) from None
        if isinstance(error, FormulaVisionError) and "DataLoader worker" in str(error):
            # The loader makes one message of the worker's traceback, which ends with the worker's own message.
            raise type(error)(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
        raise
