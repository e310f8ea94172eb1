"""Lines and a progress bar of a run, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as lightning
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from formulavision.training.module import LightningClassifier
from formulavision.training.runs import METRICS, EpochMetrics, Run, score_of, when
from formulavision.training.settings import TrainSettings
from formulavision.util.console import say
from formulavision.util.logs import note
from formulavision.util.text import counted

__all__ = ["Bar", "conclude", "describe_model", "describe_run", "epoch_line", "say_and_log"]

_LOSS_EVERY_S = 1.0
"""Seconds between two readings of the loss, each of which waits for the device."""


def say_and_log(line: str, console: Console) -> None:
    """Print one line as it is, and add it to the log files that are open."""
    note(line)
    say(line, console)


def describe_run(kind: str, settings: TrainSettings, images: int, classes: int, tested: int | None) -> str:
    """The images that a run trains on, and the steps that it takes."""
    data = f"{counted(images, 'image')} of {counted(classes, 'class')}"
    if tested is not None:
        data += f", tested on {tested:,}"
    together = f" ({settings.grad_accum_steps} a step)" if settings.grad_accum_steps > 1 else ""
    length = counted(settings.epochs or 0, "epoch") if settings.steps is None else counted(settings.steps, "step")
    verb = {"pretrain": "pre-training", "finetune": "fine-tuning"}[kind]
    return (
        f"{verb} {settings.model} on {data}: {length} of batches of {settings.batch_size}"
        f"{together}, {settings.crop}-pixel crops of {settings.resize}"
    )


def describe_model(model: torch.nn.Module, frozen: Sequence[str]) -> str:
    """The number of parameters, and which of them are frozen."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    text = f"{sum(sizes.values()) / 1e6:.1f} M parameters"
    if not frozen:
        return f"{text}, none frozen"
    share = sum(sizes[name] for name in frozen) / sum(sizes.values())
    return f"{text}, frozen {len(frozen)} of {len(sizes)} tensors ({share:.1%}): {frozen[0]} to {frozen[-1]}"


def conclude(console: Console, run: Run, seconds: float) -> None:
    """Print a run's score and its folder."""
    metric, score, images = score_of(run.final, pretrained=run.kind == "pretrain")
    unit, number = when(run.final)
    length = counted(number, unit)
    say_and_log(
        f"{run.folder}: {metric} {score:.2%} on {images} images after {length}; "
        f"{seconds:.0f} s, {run.images_per_second:.0f} images/s in training",
        console,
    )


def epoch_line(metrics: EpochMetrics) -> str:
    """The metrics of an epoch in one line."""
    unit, number = when(metrics)
    parts = [f"{unit} {number}", *_in_words(metrics, "train")]
    if tested := _in_words(metrics, "validation"):
        parts.append(f"validation {', '.join(tested)}")
    parts += [f"{metrics['seconds']:.1f} s", f"{metrics['images_per_second']:.0f} images/s"]
    return "  ".join(parts)


def _in_words(metrics: EpochMetrics, images: str) -> list[str]:
    """Loss and metrics of training (``train``) or validation images; none where these were not measured."""
    loss = metrics[f"{images}_loss"]
    if loss is None:
        return []
    found = {words: metrics.get(f"{images}_{name}") for name, words in METRICS.items()}
    return [f"loss {loss:.4f}", *(f"{words} {value:.2%}" for words, value in found.items() if value is not None)]


class Bar(lightning.Callback):
    """A progress bar over all steps of a run, with images a second, the loss and the time left.

    Lightning's bars begin anew in every epoch, so that they do not tell the time left of the run.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
            console=console,
            transient=True,
        )

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        epochs, steps = trainer.max_epochs or 1, int(trainer.num_training_batches)
        done = trainer.current_epoch * steps + trainer.fit_loop.epoch_loop.batch_progress.current.ready % steps
        total = epochs * steps
        assert isinstance(pl_module, LightningClassifier)
        self._counts_steps = pl_module.settings.steps is not None
        if pl_module.settings.steps is not None:
            total, done = (n * trainer.accumulate_grad_batches for n in (pl_module.settings.steps, trainer.global_step))
        self._task = self._progress.add_task("", total=total, completed=done, state="starting")
        self._progress.start()
        self._started = self._read = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        part = "" if self._counts_steps else f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._progress.update(self._task, description=part)
        self._started = self._read = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LightningClassifier)
        self._progress.advance(self._task)
        now = time.perf_counter()
        if now - self._read > _LOSS_EVERY_S:
            sums = pl_module.train_sums
            loss, rate = float(sums.loss) / sums.count, sums.count / (now - self._started)
            self._progress.update(self._task, state=f"{rate:.0f} images/s  loss {loss:.3f}")
            self._read = now

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._progress.update(self._task, state="validating")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._progress.stop()
