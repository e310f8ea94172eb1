"""Files that a run writes while it trains: metrics after each epoch, and checkpoints to resume from."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch

from formulavision.training.data_module import TrainingData
from formulavision.training.distributed import sum_over_processes
from formulavision.training.extras import check_states
from formulavision.training.models import save_weights
from formulavision.training.module import LightningClassifier
from formulavision.training.optimization import count_steps
from formulavision.training.progress import epoch_line
from formulavision.training.runs import BEST_WEIGHTS, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, EpochMetrics, file_digest
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import Task
from formulavision.util.errors import FormulaVisionError
from formulavision.util.files import commit, partial_path
from formulavision.util.interrupts import interrupt
from formulavision.util.text import counted, write_csv

__all__ = ["Recorder", "columns"]


def columns(task: Task, unit: str = "epoch") -> tuple[str, ...]:
    """Columns of metrics.csv. Epochs or steps (``unit``) count from 1. Metrics are 0..1; those of training images are
    measured while the model is trained. The learning rate is that of the row's first step. Seconds include validation;
    images per second are those of training alone."""
    return (
        unit,
        *(f"train_{name}" for name in ("loss", *task.metrics)),
        *(f"validation_{name}" for name in ("loss", *task.validated, *task.metrics)),
        *("learning_rate", "seconds", "images_per_second"),
    )


class Recorder(lightning.Callback):
    """Writes metrics.csv and the loggers' metrics after each epoch, and a checkpoint then and every few minutes.

    Args:
        folder: of the run.
        data: the batches of the run.
        task: of the run.
        settings: of the run: minutes between checkpoints within an epoch, and batches a step.
        resumed_from: the checkpoint that the run goes on from.
        tell: called with a line on each epoch, and with where a resumed run goes on.
        described: hyperparameters of the run, for its loggers.

    Attributes:
        history: metrics of all epochs.
        best: number and SHA-256 of the weights of the epoch with the highest score on validation images (the task's
            ``best``); empty without one.
        stop: number of a signal, set from outside: the run then writes a checkpoint after the current step and raises
            KeyboardInterrupt or :class:`~formulavision.util.interrupts.Terminated`. 0: none.
    """

    def __init__(
        self,
        folder: Path,
        data: TrainingData,
        task: Task,
        *,
        settings: TrainSettings,
        resumed_from: Path | None,
        tell: Callable[[str], None],
        described: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.data = data
        self.task = task
        self.unit = "epoch" if settings.steps is None else "step"
        self.columns = columns(task, self.unit)
        self.settings = settings
        # A damaged last checkpoint does not replace the one before it.
        self._keeps_last = resumed_from in (None, folder / LAST_CHECKPOINT)
        self.tell = tell
        self.described = dict(described)
        self.history: list[EpochMetrics] = []
        self.best: dict[str, Any] = {}
        self.images = 0
        self.train_seconds = 0.0
        self.stop = 0
        self._position = (0, 0)  # epoch and batch that a resumed run begins with; both count from 0
        self._before = 0.0  # seconds of this epoch in the process that was stopped in it
        self._learning_rate = 0.0
        self._trained: float | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.batches = self.data.train_loader.batches
        self.epochs = trainer.max_epochs or 0

    def describe_position(self) -> str:
        """The part of the run that the last checkpoint holds, in words."""
        epoch, batch = self._position
        if self.settings.steps is not None:
            done = self._number(epoch) + batch // self.settings.grad_accum_steps
            return f"{min(done, self.settings.steps):,} of {counted(self.settings.steps, 'step')}"
        within = f" and {batch:,} of {counted(len(self.batches), 'step')} of the next" if batch else ""
        return f"{epoch:,} of {counted(self.epochs, 'epoch')}{within}"

    # Content of a checkpoint -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "images": self.images,
            "train_seconds": self.train_seconds,
            "elapsed": self._elapsed() if self._position[1] else 0.0,
            "learning_rate": self._learning_rate,
            "best": self.best,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self.images = state_dict["images"]
        self.train_seconds = state_dict["train_seconds"]
        self._before = state_dict["elapsed"]
        self._learning_rate = state_dict["learning_rate"]
        self.best = state_dict.get("best", {})  # earlier versions kept no best weights

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["steps_per_epoch"] = self.batches.batches

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Not at the epoch's start: loader workers begin to read before it.
        batches = self.batches
        if checkpoint["steps_per_epoch"] != batches.batches:
            processes = counted(trainer.world_size, "process")
            raise FormulaVisionError(
                f"{self.folder}: has {counted(checkpoint['steps_per_epoch'], 'step')} an epoch, and {batches.batches} "
                f"with {processes}: resume it with as many processes as it had"
            )
        steps = self.settings.interval or count_steps(batches.batches, self.settings)
        epoch, step = divmod(checkpoint["global_step"], steps)
        batches.epoch, batches.start = self._position = epoch, step * self.settings.grad_accum_steps

    # Hooks -----------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._started = self._saved = time.perf_counter()
        check_states(trainer.callbacks)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_hyperparams(self.described)
            if self.history:  # metrics.csv may be damaged, or older than the checkpoint
                self._write_table()
        if self._position > (0, 0):
            self.tell(f"goes on after {self.describe_position()}")

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.batches.epoch, self.batches.start = trainer.current_epoch, 0
        # The last epoch of Lightning may be shorter where these are intervals of steps.
        trainer.fit_loop.max_batches = trainer.val_check_batch = len(self.batches)
        self._started, self._before, self._trained = time.perf_counter(), 0.0, None
        self._learning_rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == len(self.batches):
            return  # the end of the epoch writes a checkpoint
        self._check_not_stopped(trainer)
        if (batch_idx + 1) % self.settings.grad_accum_steps:
            return  # a checkpoint holds no gradients: it is written after a step of the optimizer
        stop, due = self.stop > 0, time.perf_counter() - self._saved >= 60 * self.settings.checkpoint_minutes
        if trainer.world_size > 1:  # all processes do what one of them asks for
            wishes = torch.tensor([float(stop), float(due)], device=pl_module.device)
            stop, due = (sum_over_processes(wishes) > 0).tolist()
        if stop or due:
            assert isinstance(pl_module, LightningClassifier)
            self._check_loss(float(pl_module.train_sums.loss), trainer.current_epoch + 1)
            self._save(trainer, trainer.current_epoch, batch_idx + 1)
        if stop:
            interrupt(self.stop or signal.SIGTERM)  # 0 where another process got the signal

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._end_of_training(pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, LightningClassifier)
        seconds = self._end_of_training(pl_module)
        epoch = trainer.current_epoch + 1
        loss, found, images = pl_module.train_sums.totals(pl_module.device)
        self._check_loss(loss, epoch)
        number = self._number(epoch)
        metrics: EpochMetrics = {**dict.fromkeys(self.columns), self.unit: number, **_named("train", loss, found)}
        if trainer.val_dataloaders:
            tested_loss, tested, _ = pl_module.validation_sums.totals(pl_module.device)
            self._check_loss(tested_loss, epoch)
            metrics |= _named("validation", tested_loss, tested)
            before = [row[f"validation_{self.task.best}"] for row in self.history]
            if all(other is None or tested[self.task.best] > other for other in before):
                self._keep_best(trainer, pl_module.final_model, epoch)
        metrics |= {
            "learning_rate": self._learning_rate,
            "seconds": self._elapsed(),
            "images_per_second": images / seconds,
        }
        self.history.append(metrics)
        self.images += images
        self.train_seconds += seconds
        if trainer.is_global_zero:
            self._write_table()
            logged = {name: value for name, value in metrics.items() if name != self.unit and value is not None}
            for logger in trainer.loggers:
                logger.log_metrics(logged, step=number)
                logger.save()
        self._save(trainer, epoch, 0)
        self.tell(epoch_line(metrics))
        if trainer.strategy.reduce_boolean_decision(self.stop > 0, all=False) and epoch < self.epochs:
            interrupt(self.stop or signal.SIGTERM)
        if epoch < self.epochs:
            self._check_not_stopped(trainer)

    # ------------------------------------------------------------------------------------------------------------------

    def _number(self, epoch: int) -> int:
        """The epochs that are done after so many epochs of Lightning or, in a run of steps, the steps."""
        if self.settings.steps is None or self.settings.interval is None:
            return epoch
        return min(epoch * self.settings.interval, self.settings.steps)

    def _elapsed(self) -> float:
        """Seconds of this epoch so far."""
        return self._before + time.perf_counter() - self._started

    def _end_of_training(self, pl_module: lightning.LightningModule) -> float:
        """Seconds of this epoch's training."""
        if self._trained is None:
            assert isinstance(pl_module, LightningClassifier)
            float(pl_module.train_sums.loss)  # waits for the device
            self._trained = self._elapsed()
        return self._trained

    def _check_loss(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            moment = f"{'in epoch' if self.unit == 'epoch' else 'before step'} {self._number(epoch)}"
            raise FormulaVisionError(
                f"{self.folder}: the loss became {loss} {moment}: lower learning_rate (it is {self._learning_rate:g})"
            )

    def _keep_best(self, trainer: lightning.Trainer, model: torch.nn.Module, epoch: int) -> None:
        """Write the weights of this epoch, the best one so far; resumed before it, a run writes the same again."""
        if not trainer.is_global_zero:
            return
        path = self.folder / BEST_WEIGHTS
        try:
            save_weights(model, path)
        except OSError as error:
            raise FormulaVisionError(
                f"{path}: {error.strerror or error}; --resume goes on after the epoch before"
            ) from None
        self.best = {"best_epoch": epoch, "best_sha256": file_digest(path)}

    def _check_not_stopped(self, trainer: lightning.Trainer) -> None:
        if trainer.should_stop:
            raise FormulaVisionError(
                f"{self.folder}: a callback stopped the run (should_stop) before its last epoch: leave it out, and "
                "resume the run"
            )

    def _write_table(self) -> None:
        rows = [[metrics[column] for column in self.columns] for metrics in self.history]
        write_csv(self.folder / "metrics.csv", [self.columns, *rows])

    def _save(self, trainer: lightning.Trainer, epoch: int, batch: int) -> None:
        """Write the checkpoint of a run that goes on with this batch of this epoch."""
        self._position = (epoch, batch)
        checkpoint = self.folder / LAST_CHECKPOINT
        temporary = partial_path(checkpoint)
        check_states(trainer.callbacks)  # type: ignore[attr-defined]
        try:
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
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


def _named(images: str, loss: float, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{images}_{name}": value for name, value in {"loss": loss, **metrics}.items()}
