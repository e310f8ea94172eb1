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
from formulavision.training.progress import Bar, epoch_line
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
    claim(out, plan.to_dict(), resume=resume)
    write_json(list(train.class_names), out / "classes.json")
    loaders = [_loader(train, settings, workers, device, training=True)]
    if test is not None:
        loaders.append(_loader(test, settings, workers, device, training=False))
    parameters = sum(p.numel() for p in model.parameters())
    _say_what_starts(console, plan, train, test, parameters, frozen, model, device, precision, workers, loaders)
    recorder = Recorder(out, lambda row: console.print(epoch_line(row), highlight=False))
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
        with _keyboard_interrupt(trainer, out, recorder, console):
            trainer.fit(
                Classifier(model, settings),
                *loaders,
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
    _say_what_ended(console, run, time.perf_counter() - started)
    return run


def _loader(
    dataset: ImageDataset, settings: TrainSettings, workers: int, device: torch.device, *, training: bool
) -> Any:
    prepared = Prepared(
        dataset,
        resize=settings.resize,
        crop=settings.crop,
        augment=training,
        flip=settings.horizontal_flip,
        seed=settings.seed,
        cache=image_cache(dataset, settings.resize, workers=workers),
    )
    return make_loader(
        prepared, batch_size=settings.batch_size, shuffle=training, workers=workers, pin=device.type == "cuda"
    )


def _say_what_starts(
    console: Console,
    plan: Plan,
    train: ImageDataset,
    test: ImageDataset | None,
    parameters: int,
    frozen: list[str],
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    workers: int,
    loaders: list[Any],
) -> None:
    settings = plan.settings
    verb = {"pretrain": "pre-training", "finetune": "fine-tuning"}[plan.kind]
    images = f"{len(train):,} images of {train.num_classes} classes"
    if test is not None:
        images += f", testing on {len(test):,}"
    console.print(f"{verb} {settings.model} ({parameters / 1e6:.1f} M parameters) on {images}", highlight=False)
    console.print(
        f"{settings.epochs} epochs of batches of {settings.batch_size}, {settings.crop}-pixel crops of "
        f"{settings.resize}, on {device.type} in {precision}, {workers} loader processes",
        highlight=False,
    )
    kept = sum(loader.dataset.cache.megabytes for loader in loaders if loader.dataset.cache)
    if kept:
        console.print(f"resized images are kept in memory after their first use ({kept:.0f} MB)", highlight=False)
    if frozen:
        share = sum(p.numel() for p in model.parameters() if not p.requires_grad) / parameters
        console.print(
            f"frozen: {len(frozen)} of {sum(1 for _ in model.parameters())} parameter tensors ({share:.0%} of the "
            f"parameters), {frozen[0]} to {frozen[-1]}",
            highlight=False,
        )


def _say_what_ended(console: Console, run: Run, seconds: float) -> None:
    accuracy = run.final["validation_accuracy"]
    of = "test images" if accuracy is not None else "training images"
    accuracy = accuracy if accuracy is not None else run.final["train_accuracy"]
    console.print(
        f"{run.folder}: accuracy {accuracy:.2%} on {of} after {len(run.history)} epochs; "
        f"{seconds:.0f} s, {run.images_per_second:.0f} images/s",
        highlight=False,
    )
    if run.kind == "pretrain":
        following = f"finetune --checkpoint {run.folder} --downstream cifar10 --out ..."
    else:
        following = f"evaluate --checkpoint {run.folder} --downstream {run.settings['downstream']['name']}"
    console.print(f"next: formulavision {following}", highlight=False, soft_wrap=True)


@contextmanager
def _keyboard_interrupt(trainer: lightning.Trainer, out: Path, recorder: Recorder, console: Console) -> Iterator[None]:
    """Lightning answers Ctrl-C by ignoring further ones and leaving the process; here it stays a KeyboardInterrupt."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if isinstance(trainer, lightning.Trainer) and not trainer.interrupted:
            raise
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        done = len(recorder.history)
        console.print(
            f"{out}: stopped after {done} whole epochs of {trainer.max_epochs}; --resume goes on from there",
            highlight=False,
        )
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
