"""What a run says on the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as lightning
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from formulavision.data.loading import Prepared
from formulavision.training.module import Classifier
from formulavision.training.runs import Row, Run
from formulavision.training.settings import TrainSettings
from formulavision.util.logs import note

__all__ = ["Bar", "announce", "conclude", "describe_model", "epoch_line", "say"]

_LOSS_EVERY_S = 1.0
"""Reading the loss waits for the device."""


def say(console: Console, line: str) -> None:
    """Print one line as it is, and add it to the run's log."""
    note(line)
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def announce(console: Console, kind: str, settings: TrainSettings, data: Sequence[Prepared]) -> None:
    """Say what a run trains on, and on what it is tested where ``data`` holds a second dataset."""
    train = data[0].source
    images = f"{len(train):,} images of {train.num_classes} classes"
    if len(data) > 1:
        images += f", tested on {len(data[1]):,}"
    verb = {"pretrain": "pre-training", "finetune": "fine-tuning"}[kind]
    say(
        console,
        f"{verb} {settings.model} on {images}: {settings.epochs} epochs of batches of {settings.batch_size}, "
        f"{settings.crop}-pixel crops of {settings.resize}",
    )
    kept = sum(prepared.cache.megabytes for prepared in data if prepared.cache)
    if kept:
        say(console, f"resized images are kept in memory after their first use ({max(1, round(kept))} MB)")


def describe_model(model: torch.nn.Module, frozen: Sequence[str]) -> str:
    """The number of parameters, and which of them are frozen."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    text = f"{sum(sizes.values()) / 1e6:.1f} M parameters"
    if not frozen:
        return f"{text}, none frozen"
    share = sum(sizes[name] for name in frozen) / sum(sizes.values())
    return f"{text}, frozen {len(frozen)} of {len(sizes)} tensors ({share:.1%}): {frozen[0]} to {frozen[-1]}"


def conclude(console: Console, run: Run, seconds: float) -> None:
    """Say what came out of a run, where it is, and what comes next."""
    tested = run.final["validation_accuracy"] is not None
    accuracy = run.final["validation_accuracy" if tested else "train_accuracy"]
    say(
        console,
        f"{run.folder}: accuracy {accuracy:.2%} on {'test' if tested else 'training'} images after "
        f"{len(run.history)} epochs; {seconds:.0f} s, {run.images_per_second:.0f} images/s in training",
    )
    if run.kind == "pretrain":
        following = f"finetune --checkpoint {run.folder} --downstream cifar10 --out ..."
    else:
        following = f"evaluate --checkpoint {run.folder} --downstream {run.settings['downstream']['name']}"
    say(console, f"next: formulavision {following}")


def epoch_line(row: Row) -> str:
    """One epoch of a run in one line."""
    parts = [f"epoch {row['epoch']}", f"loss {row['train_loss']:.4f}", f"accuracy {row['train_accuracy']:.2%}"]
    if row["validation_accuracy"] is not None:
        parts.append(f"validation loss {row['validation_loss']:.4f}, accuracy {row['validation_accuracy']:.2%}")
    parts += [f"{row['seconds']:.1f} s", f"{row['images_per_second']:.0f} images/s"]
    return "  ".join(parts)


class Bar(lightning.Callback):
    """A progress bar over all steps of a run, with images a second and the time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        epochs, steps = trainer.max_epochs or 1, int(trainer.num_training_batches)
        done = trainer.current_epoch * steps + trainer.fit_loop.epoch_loop.batch_progress.current.ready % steps
        self._task = self._progress.add_task("", total=epochs * steps, completed=done, state="starting")
        self._progress.start()
        self._started = self._read = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._progress.update(self._task, description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")
        self._started = self._read = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Classifier)
        self._progress.advance(self._task)
        now = time.perf_counter()
        if now - self._read > _LOSS_EVERY_S:
            loss, _ = pl_module.train_sums.means()
            rate = pl_module.train_sums.count / (now - self._started)
            self._progress.update(self._task, state=f"{rate:.0f} images/s  loss {loss:.3f}")
            self._read = now

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._progress.update(self._task, state="validating")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._progress.stop()
