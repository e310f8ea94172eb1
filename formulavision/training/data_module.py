"""Batches of training and validation images for one training process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import lightning.pytorch as lightning
import torch
from torch.utils.data import DataLoader

from formulavision.data.augmentation import Augmentation
from formulavision.data.device_loading import draw_on_device, make_device_loader
from formulavision.data.items import ImageDataset, Transform
from formulavision.data.loading import Batch, EpochLoader, Prepared, image_cache, is_drawn, make_loader
from formulavision.data.pixmix import Mixing
from formulavision.recipes.drawing import Drawer
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import PluginError
from formulavision.util.machine import cores
from formulavision.util.progress import progress_bars

__all__ = ["TrainingData", "draws_on_device", "make_mixing"]

_LOADERS_ON_CUDA = 16


def draws_on_device(settings: TrainSettings, device: torch.device) -> bool:
    """Whether images drawn on demand are drawn on the device where the model trains, if the generator can."""
    return settings.draw_on == "auto" and device.type == "cuda"


class TrainingData(lightning.LightningDataModule):
    """The batches of a run; each of several processes loads its share of every batch.

    Args:
        settings: of the training.
        train: training images.
        validation: images to validate on after each epoch; None: none.
        transform, mixing: of the training images, as of :class:`~formulavision.data.loading.Prepared`.
        tell: called with a line for the user.

    Attributes:
        train_loader, validation_loader: made by :meth:`setup`, which a Trainer calls; ``validation_loader`` is None
            without validation images.
    """

    train_loader: EpochLoader
    validation_loader: EpochLoader | None

    def __init__(
        self,
        settings: TrainSettings,
        train: ImageDataset,
        validation: ImageDataset | None = None,
        *,
        transform: Transform | None = None,
        mixing: Mixing | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.train = train
        self.validation = validation
        self.transform = transform
        self.mixing = mixing
        self.tell = tell

    def setup(self, stage: str) -> None:
        self.train_loader = self._loader(self.train, training=True)
        self.validation_loader = None if self.validation is None else self._loader(self.validation, training=False)

        loaders = [self.train_loader, *self.val_dataloader()]
        kept = sum(loader.dataset.cache.megabytes for loader in loaders if loader.dataset.cache)
        memory = f"; resized images are kept in memory after their first use ({max(1, round(kept))} MB)" if kept else ""
        self.tell(f"images: {self.train_loader.describe()}{memory}")

    def train_dataloader(self) -> DataLoader[Batch]:
        return self.train_loader

    def val_dataloader(self) -> list[EpochLoader]:
        return [] if self.validation_loader is None else [self.validation_loader]

    def _loader(self, dataset: ImageDataset, *, training: bool) -> EpochLoader:
        settings, trainer = self.settings, self.trainer
        assert trainer is not None
        device = trainer.strategy.root_device
        fresh = training and settings.fresh and getattr(dataset, "endless", False)
        if training and settings.fresh and getattr(dataset, "endless", None) is False:
            self.tell("fresh: the recipe's images are a finite set, so every epoch has the same images")
        images: dict[str, Any] = {
            **settings.resizing(), "augment": training, "flip": settings.horizontal_flip, "seed": settings.seed,
            "fresh": fresh,
        }  # fmt: skip
        augmentation = None
        if training:
            images |= {"vertical_flip": settings.vertical_flip, "repeats": settings.repeated_augmentation}
            augmentation = _augmentation(settings)
        transform, mixing = (self.transform, self.mixing) if training else (None, None)
        batches: dict[str, Any] = {
            "batch_size": settings.batch_size, "shuffle": training, "rank": trainer.global_rank,
            "ranks": trainer.world_size,
        }  # fmt: skip
        if training and settings.steps and settings.interval:
            stretch, total = (steps * settings.grad_accum_steps for steps in (settings.interval, settings.steps))
            batches |= {"stretch": stretch, "total": total}
        on_cpu = augmentation is not None or mixing is not None
        if on_cpu and draws_on_device(settings, device) and is_drawn(dataset):
            self.tell(
                "random resized crops, RandAugment, colour jitter and mixing are made on the CPU: loader processes draw"
            )
        elif transform is None and draws_on_device(settings, device):
            try:
                drawn = draw_on_device(dataset, device, **images)
            except PluginError as error:  # kernels need a C compiler, which slim containers lack
                self.tell(f"{error}; loader processes draw instead")
                drawn = None
            if drawn is not None:
                return make_device_loader(drawn, **batches)
        local_ranks = trainer.world_size // trainer.num_nodes
        workers = settings.workers
        if workers is None:
            workers = _default_workers(device, fresh or mixing is not None, local_ranks)
        cache = None
        if not fresh and transform is None and not (augmentation and augmentation.crops):
            cache = image_cache(dataset, settings.resize, workers=workers, ranks=local_ranks, mode=settings.resize_mode)
        prepared = Prepared(
            dataset, cache=cache, transform=transform, augmentation=augmentation, mixing=mixing, **images
        )
        return make_loader(prepared, workers=workers, pin=device.type == "cuda", **batches)


def _augmentation(settings: TrainSettings) -> Augmentation | None:
    """Random changes of training images that are made on the CPU; None: none."""
    if not (settings.random_resized_crop or settings.rand_augment or settings.color_jitter):
        return None
    sizes = settings.resizing()
    return Augmentation(
        crop=settings.crop,
        area=settings.random_resized_crop,
        rand_augment=settings.rand_augment,
        color_jitter=settings.color_jitter,
        interpolation=settings.interpolation,
        fill=sizes["fill"],
    )


def make_mixing(settings: TrainSettings, *, show_progress: bool) -> Mixing | None:
    """Mixing of pictures into training images, if the settings ask for it; categories of its recipe that are not cached
    are searched here.

    Raises:
        ConfigError: the recipe's folder of categories is missing or cannot be read.
        PluginError: the recipe's generator failed.
    """
    if settings.mixing is None:
        return None
    recipe = settings.mixing.recipe
    with progress_bars(show=show_progress) as bars:
        drawer = Drawer(
            recipe,
            workers=settings.workers or 1,
            progress=lambda found: bars.categories(found, recipe.num_categories),
        )
    return Mixing(
        drawer,
        rounds=settings.mixing.rounds,
        beta=settings.mixing.beta,
        severity=settings.mixing.severity,
        resize=settings.resize,
        crop=settings.crop,
        interpolation=settings.interpolation,
    )


def _default_workers(device: torch.device, draws: bool, local_ranks: int) -> int:
    """Number of loader processes where the settings leave it open.

    Args:
        draws: whether loading draws images, rather than reading them alone.
    """
    if device.type == "cuda":
        return max(1, min(_LOADERS_ON_CUDA, cores() // local_ranks))
    # Images that are read are kept in memory. New images are drawn while the model trains, but not where a process is
    # spawned, which needs a script with a __main__ guard.
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    return int(draws and method == "fork")
