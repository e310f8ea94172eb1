"""One training run from its plan to its folder."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from rich.console import Console

from formulavision import __version__
from formulavision.errors import ConfigError
from formulavision.training.loading import ImageDataset, Prepared, image_cache, make_loader
from formulavision.training.models import build_model, export
from formulavision.training.module import Classifier, Recorder
from formulavision.training.progress import Bar, announce, conclude, describe_model, epoch_line, say
from formulavision.training.runs import LAST_CHECKPOINT, Run, claim, write_json
from formulavision.training.settings import TrainSettings

__all__ = ["Plan", "fit", "new_model", "resolve_device", "resolve_precision"]

_LOADERS_ON_CUDA = 16

_ADVICE = (
    ".*does not have many workers",
    "You defined a `validation_step` but have no `val_dataloader`",
    r"Found \d+ module\(s\) in eval mode",  # frozen layers
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
    """Lightning's name of the precision that a setting stands for."""
    return name if name != "auto" else "bf16-mixed" if device.type == "cuda" else "32-true"


def fit(
    plan: Plan,
    model: torch.nn.Module,
    train: ImageDataset,
    test: ImageDataset | None,
    *,
    out: Path,
    resume: bool,
    frozen: list[str],
    console: Console,
) -> Run:
    """Train, and leave a complete run's folder.

    Raises:
        ConfigError: the run to be resumed has other settings, the folder cannot be written, or there is no such device.
        KeyboardInterrupt: Ctrl-C; the last whole epoch can be resumed from.
    """
    settings = plan.settings
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    workers = settings.workers
    if workers is None:
        workers = min(_LOADERS_ON_CUDA, os.cpu_count() or 1) if device.type == "cuda" else 0
    loaders = [_loader(train, settings, workers, device, training=True)]
    if test is not None:
        loaders.append(_loader(test, settings, workers, device, training=False))
    claim(out, plan.to_dict(), train.class_names, resume=resume)
    parameters = sum(p.numel() for p in model.parameters())
    announce(console, plan.kind, settings, [loader.dataset for loader in loaders])
    say(
        console,
        f"{settings.model}: {describe_model(model, frozen)}, on {device.type} in {precision}, {workers} loaders",
    )
    recorder = Recorder(out, lambda row: say(console, epoch_line(row)))
    checkpoint = out / LAST_CHECKPOINT
    started = time.perf_counter()
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=device.type,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            callbacks=[recorder, *([Bar(console)] if console.is_terminal and not console.quiet else [])],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        with _keyboard_interrupt(out, settings.epochs, recorder, console):
            trainer.fit(
                Classifier(model, settings),
                train_dataloaders=loaders[0],
                val_dataloaders=loaders[1:] or None,
                ckpt_path=checkpoint if resume and checkpoint.is_file() else None,
                weights_only=True,
            )
    export(model, out, settings=settings, class_names=train.class_names)
    write_json(
        {
            "kind": plan.kind,
            "complete": True,
            "history": recorder.history,
            "final": recorder.history[-1],
            "seconds": sum(row["seconds"] or 0 for row in recorder.history),
            "images_per_second": recorder.images / recorder.train_seconds,
            "parameters": parameters,
            "frozen": frozen,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "precision": precision,
            "formulavision": __version__,
        },
        out / "run.json",
    )
    run = Run.load(out)
    conclude(console, run, time.perf_counter() - started)
    return run


def _loader(
    dataset: ImageDataset, settings: TrainSettings, workers: int, device: torch.device, *, training: bool
) -> Any:
    fresh = training and settings.fresh and getattr(dataset, "endless", False)
    prepared = Prepared(
        dataset,
        resize=settings.resize,
        crop=settings.crop,
        augment=training,
        flip=settings.horizontal_flip,
        seed=settings.seed,
        cache=None if fresh else image_cache(dataset, settings.resize, workers=workers),
        fresh=fresh,
    )
    return make_loader(
        prepared, batch_size=settings.batch_size, shuffle=training, workers=workers, pin=device.type == "cuda"
    )


@contextmanager
def _keyboard_interrupt(out: Path, epochs: int, recorder: Recorder, console: Console) -> Iterator[None]:
    """Lightning answers Ctrl-C by ignoring further ones and leaving the process; here it stays a KeyboardInterrupt."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        done = len(recorder.history)
        say(console, f"{out}: stopped with {done} of {epochs} epochs done; --resume goes on from there")
        raise KeyboardInterrupt from None


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
