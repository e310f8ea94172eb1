"""What a run says on the terminal."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as lightning
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from formulavision.training.module import Classifier
from formulavision.training.runs import Row

__all__ = ["Bar", "epoch_line"]

_LOSS_EVERY_S = 1.0
"""Reading the loss waits for the device."""


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
        self._task = self._progress.add_task(
            "", total=epochs * steps, completed=trainer.current_epoch * steps, state="starting"
        )
        self._progress.start()

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
