"""What happens in a training step, as a Lightning module: loss, metrics, moving average, optimizer."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from timm.data.random_erasing import RandomErasing
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from formulavision.data.loading import Batch
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.data_module import TrainingData
from formulavision.training.distributed import join_over_processes, sum_over_processes
from formulavision.training.models import to_input
from formulavision.training.optimization import count_steps, learning_rate_factor, make_optimizer
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import ClassTask, Task
from formulavision.util.config import parse

__all__ = ["LightningClassifier", "Sums"]

_AVERAGE = "average.module."


class Sums:
    """Loss and metrics over many batches, summed on the device; reading them waits for the device.

    Not a torchmetrics metric, whose wrappers and checks add host work to every step; on a GPU the host limits the loop.

    Args:
        task: of the images.
        validation: whether logits and targets are kept for the metrics that need those of all images.
    """

    def __init__(self, task: Task, *, validation: bool = False) -> None:
        self.task = task
        self.keeps = validation and bool(task.validated)
        self.reset()

    def reset(self) -> None:
        self.loss = torch.zeros(())
        self.counts = self.task.no_counts()
        self.count = 0
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._totals: tuple[float, dict[str, float], int] | None = None

    def add(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch: its mean loss, the model's output and the targets (see :class:`Task`)."""
        self.loss = self.loss.to(loss.device) + loss.detach() * len(targets)
        self.counts = self.counts.to(loss.device) + self.task.counts(logits.detach(), targets)
        self.count += len(targets)
        self._totals = None
        if self.keeps:
            self._kept.append((logits.detach(), targets))

    def state(self, device: torch.device) -> list[torch.Tensor]:
        """Loss, counts and number of images of all processes together."""
        values = (self.loss, self.counts, torch.tensor(float(self.count)))
        return [sum_over_processes(value.to(device)) for value in values]

    def load(self, state: Iterable[torch.Tensor]) -> None:
        """Go on from a :meth:`state`; that of earlier versions is one tensor of three numbers."""
        self.loss, self.counts, count = (value.clone() for value in state)
        self.count = round(float(count))

    def totals(self, device: torch.device) -> tuple[float, dict[str, float], int]:
        """Mean loss, metrics (0..1) by their names, and number of images, of all processes together."""
        if self._totals is None:
            loss, counts, count = self.state(device)
            images = round(float(count))
            metrics = self.task.measure(counts, images)
            mean = float(loss) / images
            if self.keeps and math.isfinite(mean):  # a run that diverges is told by its loss
                shape = (0, self.task.num_classes)
                # A process without images has none of the types that the others have.
                nothing = [torch.zeros(shape)], [torch.zeros(shape, dtype=torch.int8)]
                parts = zip(*self._kept, strict=True) if self._kept else nothing
                logits, targets = (join_over_processes(torch.cat(list(part)).to(device)).cpu() for part in parts)
                metrics = {**self.task.validate(logits, targets), **metrics}
            self._totals = mean, metrics, images
        return self._totals


class LightningClassifier(lightning.LightningModule):
    """A model with loss, optimizer and schedule of :func:`formulavision.pretrain`, for any Lightning Trainer.

    It logs ``train_loss`` and ``train_accuracy`` at the end of an epoch, and ``validation_loss`` and
    ``validation_accuracy`` after validation; other tasks have other metrics. The schedule ends with the Trainer's last
    step; milestones and ``warmup_epochs`` are parts of ``settings.epochs``, also where the Trainer has other epochs.
    Random numbers of a step depend on its number: the global generators are set for it.

    Args:
        model: images, float32 [b, 3, h, w], to logits, [b, classes].
        settings: of the training, as of :func:`formulavision.pretrain`: optimizer, schedule, mixing, ``ema``, ...
        num_classes: number of classes.
        task: loss and metrics; None: those of one class an image.

    Batches are images, uint8 [b, c, h, w] or normalised float32 [b, 3, h, w], and targets, for one class an image
    int64 [b]. Each of several
    processes must have the same number of images in a batch, unless ``data`` is set.

    Attributes:
        data: the batches of a run of :func:`formulavision.pretrain`, which logs the metrics itself; None in your own.
        average: moving average of the weights, which is validated and kept; None without ``settings.ema``.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        model: torch.nn.Module,
        settings: TrainSettings | Mapping[str, Any],
        num_classes: int,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(settings, TrainSettings):
            settings = parse(TrainSettings, dict(settings))
        self.data: TrainingData | None = None
        self.model = model
        self.settings = settings
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1), persistent=False)
        self.task = task if task is not None else ClassTask(num_classes)
        self.train_sums = Sums(self.task)
        self.validation_sums = Sums(self.task, validation=True)
        self.average: AveragedModel | None = None
        if settings.ema:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
            self.average.requires_grad_(False)
        mixtures = [
            kind(alpha=alpha, num_classes=num_classes)
            for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
            if alpha
        ]
        self.mix = v2.RandomChoice(mixtures) if mixtures else None

    @property
    def final_model(self) -> torch.nn.Module:
        """The model that a run keeps: the averaged one, or the trained one without an average."""
        return self.model if self.average is None else self.average.module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images: uint8 [b, c, h, w], or float32 [b, 3, h, w] that are normalised already.

        Returns:
            float [b, classes]; of a segmentation model [b, classes, h, w].
        """
        return self.model(self._input(images))

    def _input(self, images: torch.Tensor) -> torch.Tensor:
        inputs = images if images.is_floating_point() else to_input(images, self.mean, self.std)
        return inputs.contiguous(memory_format=torch.channels_last) if self.settings.channels_last else inputs

    def on_train_epoch_start(self) -> None:
        self.train_sums.reset()

    def training_step(self, batch: Batch, step: int) -> torch.Tensor:
        # Random numbers of a step (dropout, mixing) depend on its number alone, so that a resumed run repeats them.
        place = (self.current_epoch, step) if self.data is None else self.data.train_loader.batches.place(step)
        stream = random_stream(self.settings.seed, Stream.STEP, *place, self.global_rank)
        seed = int(stream.integers(2**63))
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        images, labels = batch
        inputs, targets = self._input(images), labels
        if self.settings.random_erasing:
            inputs = RandomErasing(self.settings.random_erasing, mode="pixel", device=inputs.device)(inputs.clone())
        if self.mix is not None:
            inputs, targets = self.mix(inputs, targets)
        logits = self.model(inputs)
        loss = self.task.loss(logits, targets, self.settings.label_smoothing)
        self.train_sums.add(loss, logits, labels)
        ranks, group = self.trainer.world_size, self.settings.grad_accum_steps
        if ranks * group == 1 or self.data is None:
            return loss
        # Gradients are averaged over processes and over the batches of a step, which may differ in size.
        batches = self.data.train_loader.batches
        first = step - step % group
        whole = sum(batches.size(batch) for batch in range(first, min(first + group, len(batches))))
        return loss * (len(labels) * ranks * group / whole)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.trainer.is_last_batch:
            self._log("train", self.train_sums)

    def on_validation_epoch_start(self) -> None:
        self.validation_sums.reset()

    def validation_step(self, batch: Batch, step: int) -> None:
        images, labels = batch
        logits = self.final_model(self._input(images))
        self.validation_sums.add(self.task.loss(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        self._log("validation", self.validation_sums)

    def _log(self, images: str, sums: Sums) -> None:
        """Metrics of the epoch for callbacks and, where no run of ours writes them, for loggers."""
        loss, found, _ = sums.totals(self.device)
        metrics = {f"{images}_{name}": value for name, value in {"loss": loss, **found}.items()}
        logged = self.data is None and bool(self.trainer.loggers)
        # The same numbers in all processes: their mean is taken only because Lightning asks for it.
        self.log_dict(metrics, on_step=False, on_epoch=True, logger=logged, batch_size=1, sync_dist=True)

    # A checkpoint's state_dict holds the model alone, as timm's checkpoints do, so that it loads as weights.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        whole = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in whole.items() if name.startswith("model.")}
        if self.average is not None:
            checkpoint["state_dict_ema"] = {
                name.removeprefix(_AVERAGE): value for name, value in whole.items() if name.startswith(_AVERAGE)
            }
            checkpoint["n_averaged"] = whole["average.n_averaged"]
        checkpoint["sums"] = [value.cpu() for value in self.train_sums.state(self.device)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            average = checkpoint["state_dict_ema"].items()
            checkpoint["state_dict"] |= {f"{_AVERAGE}{name}": value for name, value in average}
            checkpoint["state_dict"]["average.n_averaged"] = checkpoint["n_averaged"]
        if self.trainer.is_global_zero:
            self.train_sums.load(checkpoint["sums"])

    def configure_optimizers(self) -> Any:
        # Lightning clips no gradients of a fused optimizer. On a GPU torch's choice is about as fast.
        fused = True if self.device.type == "cpu" and not self.trainer.gradient_clip_val else None
        optimizer = make_optimizer(self.model, self.settings, fused=fused)
        settings = self.settings
        total: int | None
        if self.data is None:
            total = int(self.trainer.estimated_stepping_batches)
            steps_per_epoch = total / (settings.epochs or 1)  # the Trainer's epochs may be others
        else:  # the Trainer's estimate starts the loader workers: the run's clusters are not yet found
            steps_per_epoch, total = count_steps(self.data.train_loader.batches.batches, settings), settings.steps
        factor = learning_rate_factor(settings, steps_per_epoch, total)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
