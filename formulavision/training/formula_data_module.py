"""Formula-driven images for a Lightning Trainer of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from formulavision.data.items import ImageDataset, Transform, target_of
from formulavision.data.loading import Batch
from formulavision.training.data_module import TrainingData
from formulavision.training.models import to_input
from formulavision.training.pretraining_data import held_out_images, open_data
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import Task, check_target, make_task
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError
from formulavision.util.text import counted

if TYPE_CHECKING:
    from formulavision.recipes.recipe import RecipeLike

__all__ = ["FormulaDataModule"]


class FormulaDataModule(TrainingData):
    """The batches that :func:`formulavision.pretrain` trains on, for a Lightning Trainer of your own.

    A batch is (images, labels): float32 [b, 3, crop, crop], scaled to 0..1 and normalised by ``mean`` and ``std`` on
    the device, and int64 [b]; or other targets, as of :data:`~formulavision.data.loading.Batch`. The images of an
    epoch and their order, crops and flips depend on the seed and the epoch alone. Several processes share each batch:
    give ``Trainer(use_distributed_sampler=False)``.

    Args:
        data: as of :func:`formulavision.pretrain`: a recipe, its file, a mapping or a generator's name; a store; or a
            dataset.
        settings: those of :func:`formulavision.pretrain` that concern images: ``target``, ``batch_size``, ``resize``,
            ``crop``, ``mean``, ``std``, ``horizontal_flip``, ``fresh``, ``held_out`` (validation batches), ``workers``,
            ``draw_on``, ``seed``.
        transform: of the training images, as of :func:`formulavision.pretrain`.

    Attributes:
        classes: names of the classes, in the order of the labels.

    Raises:
        ConfigError: a setting is wrong, or there are no such data.
        StoreError: the store cannot be read.
        PluginError: the recipe's generator failed.
    """

    def __init__(
        self,
        data: RecipeLike | ImageDataset | Any,
        settings: TrainSettings | Mapping[str, Any] | None = None,
        *,
        transform: Transform | None = None,
    ) -> None:
        if not isinstance(settings, TrainSettings):
            settings = parse(TrainSettings, dict(settings or {}))
        train, _ = open_data(data, settings, show_progress=False)
        check_target(target_of(train))
        if settings.steps:  # a Trainer of the user's own ends when it is told to, and its epochs are passes
            settings = settings.model_copy(update={"steps": None, "interval": None})
        validation = held_out_images(train, settings, show_progress=False)
        super().__init__(settings, train, validation, transform=transform)
        self.classes = list(train.classes)

    @cached_property
    def task(self) -> Task:
        """Loss and metrics of the images' target, for :class:`formulavision.LightningClassifier`."""
        return make_task(self.train)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        held_out = "" if self.validation is None else f", {len(self.validation):,} held out"
        return (
            f"FormulaDataModule({counted(len(self.train), 'image')} of {counted(self.num_classes, 'class')}{held_out}, "
            f"batches of {self.settings.batch_size}, {self.settings.crop} pixels)"
        )

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ConfigError("FormulaDataModule: shares batches itself: give Trainer(use_distributed_sampler=False)")
        super().setup(stage)

    def train_dataloader(self) -> DataLoader[Batch]:
        # Where a checkpoint is resumed, loader processes begin to read here. Lightning tells later epochs by set_epoch.
        assert self.trainer is not None
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        batches = self.train_loader.batches
        batches.epoch, batches.start = divmod(progress.processed, len(batches))
        return self.train_loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        values = (self.settings.mean, self.settings.std)
        mean, std = (torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in values)
        return to_input(images, mean, std), labels
