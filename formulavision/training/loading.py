"""From a map-style dataset to batches: the same batches whatever the number of workers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional

from formulavision.generator import random_stream

__all__ = ["Batch", "EpochSampler", "ImageDataset", "Prepared", "image_cache", "make_loader"]

Key = tuple[int, int]
"""(epoch, index): all that an image's augmentation depends on, besides the seed."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images, uint8 [b, c, crop, crop], and labels, int64 [b]."""

CACHE_BYTES = 1 << 30
"""Resized images are kept in memory where all of them take less than this."""

_SHUFFLE, _AUGMENT = 0, 1


class ImageDataset(Protocol):
    """What a model is trained on: index -> (uint8 [c, h, w], label), c is 1 or 3 and the same for all images."""

    @property
    def num_classes(self) -> int: ...
    @property
    def class_names(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[torch.Tensor, int]: ...


class EpochSampler(Sampler[Key]):
    """Each index once an epoch, as (epoch, index); shuffled by a permutation keyed by (seed, epoch)."""

    def __init__(self, length: int, *, seed: int, shuffle: bool) -> None:
        self.length = length
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Key]:
        if self.shuffle:
            order = random_stream(self.seed, _SHUFFLE, self.epoch).permutation(self.length).tolist()
        else:
            order = range(self.length)
        return ((self.epoch, index) for index in order)


class ImageCache:
    """Resized images, filled as they are first asked for; it lies in shared memory where there are workers.

    Workers write without a lock: whoever writes an image writes the same bytes.
    """

    def __init__(self, length: int, shape: tuple[int, int, int], *, shared: bool) -> None:
        self.images = torch.empty((length, *shape), dtype=torch.uint8)
        self.labels = torch.full((length,), -1, dtype=torch.int64)  # -1: not filled yet
        if shared:
            self.images.share_memory_()
            self.labels.share_memory_()

    @property
    def megabytes(self) -> float:
        return self.images.numel() / 1e6


def image_cache(dataset: ImageDataset, resize: int, *, workers: int) -> ImageCache | None:
    """A cache for the dataset's resized images, where they are small enough to be kept in memory."""
    channels = int(dataset[0][0].shape[0])
    needed = len(dataset) * channels * resize * resize
    if needed > CACHE_BYTES:
        return None
    shared = Path("/dev/shm")
    # Containers often have 64 MB of shared memory, and writing past its end kills the process.
    if workers and not (shared.is_dir() and shutil.disk_usage(shared).free > 2 * needed):
        return None
    return ImageCache(len(dataset), (channels, resize, resize), shared=workers > 0)


class Prepared(Dataset[Any]):
    """A dataset's images at the size that the model sees, a batch at a time.

    Args:
        source: the images.
        resize, crop: sides in pixels.
        augment: crop at random (and flip, where ``flip``); otherwise the crop is central.
        seed: of the augmentation, which is keyed by (seed, epoch, index): it does not depend on who draws it when.
        cache: keeps the resized images.
        fresh: take the source's ``fresh_items``, which are others in every epoch.
    """

    def __init__(
        self,
        source: ImageDataset,
        *,
        resize: int,
        crop: int,
        augment: bool,
        flip: bool,
        seed: int,
        cache: ImageCache | None,
        fresh: bool = False,
    ) -> None:
        self.source = source
        self.resize = resize
        self.crop = crop
        self.augment = augment
        self.flip = flip
        self.seed = seed
        self.cache = cache
        self.fresh = fresh

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: list[Key]) -> Batch:
        """Images, uint8 [b, c, crop, crop], and labels, int64 [b]."""
        images, labels = self._resized(keys)
        margin = self.resize - self.crop
        if not self.augment:
            start = margin // 2
            return images[:, :, start : start + self.crop, start : start + self.crop].contiguous(), labels
        if margin == 0 and not self.flip:
            return images, labels
        out = np.empty((*images.shape[:2], self.crop, self.crop), np.uint8)
        # numpy, because a torch view costs several times as much, and there are some for every image.
        for cropped, image, (epoch, index) in zip(out, images.numpy(), keys, strict=True):
            down, right, mirror = random_stream(self.seed, _AUGMENT, epoch, index).random(3).tolist()
            top, left = int(down * (margin + 1)), int(right * (margin + 1))
            window = image[:, top : top + self.crop, left : left + self.crop]
            cropped[:] = window[:, :, ::-1] if self.flip and mirror < 0.5 else window
        return torch.from_numpy(out), labels

    def _resized(self, keys: list[Key]) -> Batch:
        if self.fresh:
            return self._stacked(self.source.fresh_items(keys))  # type: ignore[attr-defined]
        indices = [index for _, index in keys]
        if self.cache is None:
            return self._fetch(indices)
        wanted = torch.tensor(indices)
        missing = wanted[self.cache.labels[wanted] < 0]
        if len(missing):
            images, labels = self._fetch(missing.tolist())
            self.cache.images[missing] = images
            self.cache.labels[missing] = labels
        return self.cache.images[wanted], self.cache.labels[wanted]

    def _fetch(self, indices: list[int]) -> Batch:
        fetch = getattr(self.source, "__getitems__", None)
        return self._stacked(fetch(indices) if fetch else [self.source[index] for index in indices])

    def _stacked(self, items: list[tuple[torch.Tensor, int]]) -> Batch:
        size = [self.resize, self.resize]
        images = [image for image, _ in items]
        if len({image.shape for image in images}) == 1:
            batch = torch.stack(images)
            batch = batch if list(batch.shape[2:]) == size else functional.resize(batch, size, antialias=True)
        else:
            batch = torch.stack([functional.resize(image, size, antialias=True) for image in images])
        return batch, torch.tensor([label for _, label in items], dtype=torch.int64)


def make_loader(prepared: Prepared, *, batch_size: int, shuffle: bool, workers: int, pin: bool) -> DataLoader[Batch]:
    """Batches of ``prepared``: all images once an epoch.

    The last batch is smaller; where it would be a single image in training, of which batch normalisation has no
    statistics, that image waits for another epoch.
    """
    sampler = EpochSampler(len(prepared), seed=prepared.seed, shuffle=shuffle)
    return DataLoader(
        prepared,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=shuffle and len(prepared) > 1 and len(prepared) % batch_size == 1,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
        collate_fn=_as_it_is,
        # Of its own: a loader draws a seed for each epoch, and the global stream belongs to the model.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch
