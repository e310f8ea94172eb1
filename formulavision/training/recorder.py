"""What a run writes while it trains: a row of metrics after each epoch, and checkpoints to resume from."""

from __future__ import annotations

import csv
import io
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch

from formulavision.data.loading import EpochLoader
from formulavision.training.distributed import sum_over_processes
from formulavision.training.module import Classifier
from formulavision.training.runs import Row
from formulavision.training.state import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from formulavision.util.errors import FormulaVisionError
from formulavision.util.files import commit, partial_path, write_text
from formulavision.util.interrupts import interrupt

__all__ = ["COLUMNS", "Recorder"]

COLUMNS = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)
"""Of metrics.csv. Epochs count from 1; accuracies are shares of 1 (with several labels an image, the share of labels
told right); the learning rate is the epoch's first; seconds are of the epoch with its validation, images per second of
its training alone."""


class Recorder(lightning.Callback):
    """After each epoch: a row in metrics.csv and TensorBoard. Then, and every few minutes, a checkpoint to resume from.

    Args:
        folder: the run's.
        loader: of the training images.
        minutes: between checkpoints within an epoch.
        resumed_from: the checkpoint that the run goes on from.
        on_epoch: called with each new row.

    Attributes:
        history: the rows.
        position: (epoch, batch) that the last checkpoint goes on with; both count from 0.
        stop: number of a signal; set from outside, a run writes a checkpoint after the step at hand and raises what
            stands for it, KeyboardInterrupt or :class:`~formulavision.util.interrupts.Terminated`. 0: none.
    """

    def __init__(
        self,
        folder: Path,
        loader: EpochLoader,
        *,
        minutes: float,
        resumed_from: Path | None,
        on_epoch: Callable[[Row], None],
    ) -> None:
        self.folder = folder
        self.loader = loader
        self.minutes = minutes
        # A damaged last one does not take the place of the one before it.
        self._keeps_last = resumed_from in (None, folder / LAST_CHECKPOINT)
        self.on_epoch = on_epoch
        self.history: list[Row] = []
        self.images = 0
        self.train_seconds = 0.0
        self.stop = 0
        self.position = (0, 0)
        self._before = 0.0  # seconds of this epoch in the process that was stopped in it
        self._learning_rate = 0.0
        self._trained: float | None = None

    # What a checkpoint holds -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "images": self.images,
            "train_seconds": self.train_seconds,
            "elapsed": self._elapsed() if self.position[1] else 0.0,
            "learning_rate": self._learning_rate,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self.images = state_dict["images"]
        self.train_seconds = state_dict["train_seconds"]
        self._before = state_dict["elapsed"]
        self._learning_rate = state_dict["learning_rate"]

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["steps_per_epoch"] = len(self.loader.batches)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Now: loader workers begin to read before an epoch's start is told.
        batches = self.loader.batches
        if checkpoint["steps_per_epoch"] != len(batches):
            raise FormulaVisionError(
                f"{self.folder}: has {checkpoint['steps_per_epoch']} steps an epoch, and {len(batches)} with "
                f"{trainer.world_size} processes: resume it with as many processes as it had"
            )
        batches.epoch, batches.start = self.position = divmod(checkpoint["global_step"], len(batches))

    # Hooks -----------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._started = self._saved = time.perf_counter()
        self._speaks = trainer.is_global_zero
        if self._speaks:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=len(self.history) + 1)
            if self.history:  # what a damaged or older table lacks
                self._write_table()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.loader.batches.epoch, self.loader.batches.start = trainer.current_epoch, 0
        self._started, self._before, self._trained = time.perf_counter(), 0.0, None
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == len(self.loader):
            return  # the end of the epoch writes one
        stop, due = self.stop > 0, time.perf_counter() - self._saved >= 60 * self.minutes
        if trainer.world_size > 1:  # all do what one of them wants
            wishes = torch.tensor([float(stop), float(due)], device=pl_module.device)
            stop, due = (sum_over_processes(wishes) > 0).tolist()
        if stop or due:
            assert isinstance(pl_module, Classifier)
            self._check_loss(float(pl_module.train_sums.loss), trainer.current_epoch + 1)
            self._save(trainer, trainer.current_epoch, batch_idx + 1)
        if stop:
            interrupt(self.stop or signal.SIGTERM)  # 0 where another process was told to

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._end_of_training(pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        seconds = self._end_of_training(pl_module)
        epoch = trainer.current_epoch + 1
        loss, accuracy, images = pl_module.train_sums.totals(pl_module.device)
        self._check_loss(loss, epoch)
        validation: tuple[float | None, float | None] = (None, None)
        if trainer.val_dataloaders is not None:
            validation = pl_module.validation_sums.totals(pl_module.device)[:2]
            self._check_loss(validation[0], epoch)
        values = (epoch, loss, accuracy, *validation, self._learning_rate, self._elapsed(), images / seconds)
        row: Row = dict(zip(COLUMNS, values, strict=True))
        self.history.append(row)
        self.images += images
        self.train_seconds += seconds
        if self._speaks:
            self._write(row, epoch)
        self._save(trainer, epoch, 0)
        self.on_epoch(row)
        if trainer.strategy.reduce_boolean_decision(self.stop > 0, all=False) and epoch < (trainer.max_epochs or 0):
            interrupt(self.stop or signal.SIGTERM)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if hasattr(self, "_board"):
            self._board.close()

    # ------------------------------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        """Seconds of this epoch so far."""
        return self._before + time.perf_counter() - self._started

    def _end_of_training(self, pl_module: lightning.LightningModule) -> float:
        """Seconds of this epoch's training."""
        if self._trained is None:
            assert isinstance(pl_module, Classifier)
            float(pl_module.train_sums.loss)  # waits for the device
            self._trained = self._elapsed()
        return self._trained

    def _check_loss(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise FormulaVisionError(
                f"{self.folder}: the loss became {loss} in epoch {epoch}: "
                f"lower learning_rate (it is {self._learning_rate:g})"
            )

    def _write(self, row: Row, epoch: int) -> None:
        self._write_table()
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._board.add_scalar(name, value, epoch)
        self._board.flush()

    def _write_table(self) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.folder / "metrics.csv", table.getvalue())

    def _save(self, trainer: lightning.Trainer, epoch: int, batch: int) -> None:
        """Write the checkpoint that goes on with this batch of this epoch."""
        self.position = (epoch, batch)
        checkpoint = self.folder / LAST_CHECKPOINT
        temporary = partial_path(checkpoint)
        try:
            trainer.save_checkpoint(temporary)
            if self._speaks:
                if self._keeps_last and checkpoint.exists():
                    checkpoint.replace(self.folder / PREVIOUS_CHECKPOINT)
                commit(temporary, checkpoint)
                self._keeps_last = True
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FormulaVisionError(
                f"{checkpoint}: {error.strerror or error}; resumed, the run goes on after the checkpoint before it"
            ) from None
        self._saved = time.perf_counter()
