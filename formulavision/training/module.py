"""The part of a training run that Lightning drives: steps, sums of metrics, and what is written after each epoch."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from torch.nn.functional import cross_entropy

from formulavision.errors import FormulaVisionError
from formulavision.files import commit, write_text
from formulavision.training.loading import Batch
from formulavision.training.models import to_input
from formulavision.training.runs import LAST_CHECKPOINT, Row
from formulavision.training.settings import TrainSettings

__all__ = ["COLUMNS", "Classifier", "Recorder", "Sums"]

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
"""Of metrics.csv. Epochs count from 1; accuracies are shares of 1; seconds are of the epoch with its validation,
images per second of its training alone."""


class Sums(torch.nn.Module):
    """Loss and accuracy over many batches, summed on the device: reading them is what waits for it."""

    loss: torch.Tensor
    correct: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("loss", torch.zeros(()), persistent=False)
        self.register_buffer("correct", torch.zeros((), dtype=torch.int64), persistent=False)
        self.count = 0

    def reset(self) -> None:
        self.loss.zero_()
        self.correct.zero_()
        self.count = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: its mean loss, logits [b, classes] and labels int64 [b]."""
        self.loss += loss.detach() * len(labels)
        self.correct += (logits.detach().argmax(1) == labels).sum()
        self.count += len(labels)

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy (0..1) of an image."""
        return float(self.loss) / self.count, float(self.correct) / self.count


class Classifier(lightning.LightningModule):
    """A timm model with the loss and the optimizer of the paper's section 4."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: torch.nn.Module, settings: TrainSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1), persistent=False)
        self.train_sums = Sums()
        self.validation_sums = Sums()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [b, classes] of uint8 images [b, c, h, w]."""
        return self.model(to_input(images, self.mean, self.std))

    def on_train_epoch_start(self) -> None:
        # What is random inside the model (dropout) depends on the epoch alone, so that a resumed run repeats it.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.current_epoch)
        self.train_sums.reset()

    def training_step(self, batch: Batch, step: int) -> torch.Tensor:
        return self._step(batch, self.train_sums)

    def on_validation_epoch_start(self) -> None:
        self.validation_sums.reset()

    def validation_step(self, batch: Batch, step: int) -> None:
        self._step(batch, self.validation_sums)

    def _step(self, batch: Batch, sums: Sums) -> torch.Tensor:
        images, labels = batch
        logits = self(images)
        loss = cross_entropy(logits, labels)
        sums.add(loss, logits, labels)
        return loss

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.SGD(
            [p for p in self.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(settings.milestones), settings.gamma)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Recorder(lightning.Callback):
    """After each epoch: a row in metrics.csv and TensorBoard, and a checkpoint to resume from.

    Args:
        folder: the run's.
        on_epoch: called with each new row.
    """

    def __init__(self, folder: Path, on_epoch: Callable[[Row], None] = lambda row: None) -> None:
        self.folder = folder
        self.on_epoch = on_epoch
        self.history: list[Row] = []
        self.images = 0
        self.train_seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "images": self.images, "train_seconds": self.train_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self.images = state_dict["images"]
        self.train_seconds = state_dict["train_seconds"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=len(self.history) + 1)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._started = time.perf_counter()
        self._trained: float | None = None
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._end_of_training(pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        seconds = self._end_of_training(pl_module)
        loss, accuracy = pl_module.train_sums.means()
        validated = pl_module.validation_sums.count > 0
        validation = pl_module.validation_sums.means() if validated else (None, None)
        epoch = trainer.current_epoch + 1
        if not loss < float("inf"):
            raise FormulaVisionError(
                f"{self.folder}: the loss became {loss} in epoch {epoch}: "
                f"lower learning_rate (it is {self._learning_rate:g})"
            )
        row: Row = dict(
            zip(
                COLUMNS,
                (
                    epoch,
                    loss,
                    accuracy,
                    *validation,
                    self._learning_rate,
                    time.perf_counter() - self._started,
                    pl_module.train_sums.count / seconds,
                ),
                strict=True,
            )
        )
        self.history.append(row)
        self.images += pl_module.train_sums.count
        self.train_seconds += seconds
        self._write(trainer, row, epoch)
        self.on_epoch(row)

    def _end_of_training(self, pl_module: lightning.LightningModule) -> float:
        """Seconds of this epoch's training."""
        if self._trained is None:
            assert isinstance(pl_module, Classifier)
            pl_module.train_sums.means()
            self._trained = time.perf_counter() - self._started
        return self._trained

    def _write(self, trainer: lightning.Trainer, row: Row, epoch: int) -> None:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.folder / "metrics.csv", table.getvalue())
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._board.add_scalar(name, value, epoch)
        self._board.flush()
        checkpoint = self.folder / LAST_CHECKPOINT
        temporary = checkpoint.with_name(f"{checkpoint.name}.partial")
        try:
            trainer.save_checkpoint(temporary)
            commit(temporary, checkpoint)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FormulaVisionError(
                f"{checkpoint}: {error.strerror or error}; --resume goes on after epoch {epoch - 1}"
            ) from None

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if hasattr(self, "_board"):
            self._board.close()
