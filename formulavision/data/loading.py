"""Batches of a map-style dataset: resized, cropped and augmented; the same whatever the number of workers."""

from __future__ import annotations

import copy
import functools
import itertools
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from formulavision.data.augmentation import Augmentation
from formulavision.data.datasets import InstanceNumbers
from formulavision.data.items import (
    ImageDataset,
    Transform,
    apply_transform,
    as_mask,
    check_class_labels,
    check_labels,
    check_mask,
)
from formulavision.data.mixtures import MixtureImages, images_of_epoch
from formulavision.data.pixmix import Mixing
from formulavision.data.resizing import Interpolation, ResizeMode, centre, mask_to_square, to_square
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.drawing import Drawer
from formulavision.rendering.random import uniform_streams
from formulavision.util.errors import ConfigError
from formulavision.util.interrupts import held_back
from formulavision.util.text import counted

__all__ = [
    "Batch",
    "DrawnImages",
    "EpochBatches",
    "EpochLoader",
    "Key",
    "Prepared",
    "image_cache",
    "is_drawn",
    "make_batches",
    "make_loader",
    "random_windows",
]

Key = tuple[int, int]
"""(epoch, index). An image's augmentation depends on these and the seed alone. Where an image is several times in an
epoch, the first number is epoch * repeats + the number of the repetition. Where an ``order`` names an image again, its
epoch there is epoch + 2^32 * the number of times that it was named before."""

_AGAIN = 1 << 32
"""Added to the epoch of an image each time that an ``order`` names it again."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images, uint8 [b, c, crop, crop], and targets by the dataset's target
(:func:`~formulavision.data.items.target_of`): of ``class`` labels, int64 [b]; of ``labels`` int8 [b, classes], 1
present, 0 absent, -1 not counted; of ``semantic`` masks [b, crop, crop], uint8 with 255 for ignored pixels, or int32
with 65535."""

CACHE_BYTES = 1 << 30
"""Resized images are kept in memory where all of them take less memory than this."""


@runtime_checkable
class DrawnImages(ImageDataset, Protocol):
    """A dataset whose images a recipe draws, each from the numbers of its category and instance."""

    @property
    def drawer(self) -> Drawer | None:
        """Draws the images; None where they are read."""

    @property
    def endless(self) -> bool:
        """Whether each epoch can have new images."""

    def fresh_items(self, keys: Sequence[Key], /) -> list[tuple[torch.Tensor, Any]]:
        """New items for each (epoch, index)."""

    def find_instances(self, keys: Sequence[Key], /, *, fresh: bool) -> InstanceNumbers:
        """The numbers of the items, or of the fresh items, for each (epoch, index)."""


def mixture_in(dataset: Any) -> MixtureImages | None:
    """The mixture that a dataset is, or whose images it gives other labels; None: another dataset."""
    inner = getattr(dataset, "source", dataset)
    return inner if isinstance(inner, MixtureImages) else None


def is_drawn(dataset: Any) -> bool:
    """Whether images of a dataset are drawn on demand."""
    mixture = mixture_in(dataset)
    if mixture is not None:
        return any(is_drawn(part) for part in mixture.parts)
    return getattr(dataset, "drawer", None) is not None


class EpochBatches(Sampler[list[Key]]):
    """Batches of one epoch as lists of (epoch, index): each index once, in a permutation keyed by (seed, epoch).

    With ``stretch``, one iteration has so many batches instead, which go on through as many epochs as they need.

    Ranks (processes that train together) share each batch: its first image is for rank 0, the second for rank 1 and so
    on. All ranks together see the batches that a single process sees.

    Args:
        length: number of images.
        batch_size: images a batch, of all ranks together.
        shuffle: otherwise the images come in order.
        rank, ranks: number of this process, and number of all.
        least: a last batch of fewer images is left out in this epoch.
        stretch: batches of one iteration; None: those of an epoch.
        total: batches of all iterations with ``stretch``; the last iteration may be shorter.
        repeats: times that an image is in an epoch, one behind the other, with fewer images an epoch (repeated
            augmentation: Hoffer et al., "Augment Your Batch", CVPR 2020; Touvron et al., "DeiT", ICML 2021).
        mixture: images, and images an epoch, of each part of a mixture with shares: an epoch has the images of
            :func:`~formulavision.data.mixtures.images_of_epoch`, and the first number of a key counts passes over the
            part in place of epochs.

    Attributes:
        batches: batches of an epoch.
        epoch: the number of the next iteration, from 0; without ``stretch`` that of its epoch.
        start: its first batch; the iteration after it begins with the first one.
        order: replaces the permutation where it is set, int64 [length]; it may name an image several times.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        ranks: int = 1,
        least: int = 1,
        stretch: int | None = None,
        total: int = 0,
        repeats: int = 1,
        mixture: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.ranks = ranks
        rest = length % batch_size
        # The last batch is smaller: some ranks may have no image of it.
        self.batches = length // batch_size + (rest >= max(least, rank + 1))
        self.stretch = stretch
        self.total = total
        self.repeats = repeats
        self.mixture = mixture
        self.epoch = self.start = 0
        self.order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        if self.stretch is None:
            return self.batches
        left = self.total - self.epoch * self.stretch
        return min(self.stretch, left) if left > 0 else self.stretch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    @property
    def sampler(self) -> Self:
        """Itself: before each epoch, Lightning calls ``set_epoch`` of a batch sampler's sampler."""
        return self

    def place(self, batch: int) -> tuple[int, int]:
        """The epoch of a batch of this iteration, and the number of the batch in the epoch, both from 0."""
        return divmod(self.epoch * (self.stretch or self.batches) + batch, self.batches)

    def size(self, batch: int) -> int:
        """Images of a batch of this iteration, of all ranks together."""
        return min(self.batch_size, self.length - self.place(batch)[1] * self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        start, self.start = self.start, 0
        places = [self.place(batch) for batch in range(start, len(self))]
        for epoch, group in itertools.groupby(places, key=lambda place: place[0]):
            epochs, order = self._images(epoch)
            for _, batch in group:
                end = min((batch + 1) * self.batch_size, self.length)
                images, copies = np.divmod(
                    np.arange(batch * self.batch_size + self.rank, end, self.ranks), self.repeats
                )
                keys = (epochs[images] * self.repeats + copies).tolist(), order[images].tolist()
                yield list(zip(*keys, strict=True))

    def _images(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The keys of an epoch's images, in their order: the first numbers, and the indices."""
        epochs = np.full(self.length, epoch)
        if self.order is not None:
            return epochs + _AGAIN * _times_before(self.order), self.order
        if not self.shuffle:
            return epochs, np.arange(self.length)
        order = random_stream(self.seed, Stream.SHUFFLE, epoch).permutation(self.length)
        if self.mixture is None:
            return epochs, order
        passes, indices = images_of_epoch(*self.mixture, seed=self.seed, epoch=epoch)
        return passes[order], indices[order]


def _times_before(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each index of an order was there before, int64 [n]."""
    places = np.argsort(order, kind="stable")
    ordered = order[places]
    times = np.empty_like(order)
    times[places] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return times


class ImageCache:
    """Resized images, each kept when it is first read; in shared memory where there are workers.

    Workers write without a lock: all of them write the same bytes of an image.
    """

    def __init__(self, length: int, shape: tuple[int, int, int], label: torch.Tensor, *, shared: bool) -> None:
        self.images = torch.empty((length, *shape), dtype=torch.uint8)
        self.labels = torch.empty((length, *label.shape), dtype=label.dtype)
        self.filled = torch.zeros(length, dtype=torch.bool)
        if shared:
            for tensor in (self.images, self.labels, self.filled):
                tensor.share_memory_()

    @property
    def megabytes(self) -> float:
        return self.images.numel() / 1e6


def image_cache(
    dataset: ImageDataset, resize: int, *, workers: int, ranks: int = 1, mode: ResizeMode = "squash"
) -> ImageCache | None:
    """A cache for the dataset's resized images, with their masks; None where they take too much memory.

    Args:
        resize: side of the images in pixels.
        workers: number of processes that load.
        ranks: number of processes on this machine that have a cache each.
        mode: as of :func:`to_square`.
    """
    image, label = dataset[0]
    channels = 3 if mode == "border" else int(image.shape[0])
    kind = label if isinstance(label, torch.Tensor) else torch.tensor(label)
    if kind.ndim == 2:
        kind = as_mask(kind).new_empty(resize, resize)
    needed = len(dataset) * (channels * resize * resize + kind.nbytes) * ranks
    if needed > CACHE_BYTES:
        return None
    shared = Path("/dev/shm")
    # Containers often have only 64 MB of shared memory, and writing past its end kills the process.
    if workers and not (shared.is_dir() and shutil.disk_usage(shared).free > 2 * needed):
        return None
    return ImageCache(len(dataset), (channels, resize, resize), kind, shared=workers > 0)


class Prepared(Dataset[Any]):
    """A dataset's images at the size that the model sees, a batch at a time.

    Args:
        source: the images.
        resize, crop: sides in pixels.
        augment: crop at random (and flip, where ``flip``); otherwise the crop is central.
        flip: mirror half of the images.
        vertical_flip: turn half of the images upside down, where ``augment`` is set.
        augmentation: further random changes, where ``augment`` is set; of images without masks.
        mixing: mixes pictures into the images after these changes, where ``augment`` is set; of images without masks.
        repeats: times that each image is in an epoch, as of :class:`EpochBatches`.
        seed: seed of the augmentation, which depends on (seed, epoch, index) alone.
        cache: keeps the resized images; None: they are resized each time.
        fresh: take the source's ``fresh_items``, which are new in every epoch.
        mode, interpolation, fill: as of :func:`to_square`.
        transform: applied to each image before it is resized, uint8 [c, h, w] -> uint8 [c, h', w'], c being 1 or 3; of
            images with masks, to both (see :data:`Transform`). Its random numbers depend on (seed, epoch, index) alone.
            With it there is no cache.
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
        mode: ResizeMode = "squash",
        interpolation: Interpolation = "bilinear",
        fill: Sequence[int] = (0, 0, 0),
        transform: Transform | None = None,
        vertical_flip: bool = False,
        augmentation: Augmentation | None = None,
        mixing: Mixing | None = None,
        repeats: int = 1,
    ) -> None:
        self.source = source
        self.resize = resize
        self.crop = crop
        self.augment = augment
        self.flip = flip
        self.seed = seed
        self.cache = cache
        self.fresh = fresh
        self.mode = mode
        self.interpolation = interpolation
        self.fill = fill
        self.transform = transform
        self.vertical_flip = vertical_flip
        self.augmentation = augmentation
        self.mixing = mixing
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: list[Key]) -> Batch:
        """Images, uint8 [b, c, crop, crop], and their targets."""
        images, targets = self._resized(keys)
        margin = images.shape[-1] - self.crop
        if not self.augment:
            cut: Callable[[torch.Tensor], torch.Tensor] = functools.partial(centre, crop=self.crop)
        elif margin or self.flip or self.vertical_flip:
            windows = random_windows(keys, margin, seed=self.seed, flip=self.flip, vertical_flip=self.vertical_flip)
            cut = functools.partial(self._cut, windows=windows)
        else:
            cut = _unchanged
        # Masks are cut as their images are.
        images, targets = cut(images), cut(targets[:, None])[:, 0] if targets.ndim == 3 else targets
        if self.augment and self.augmentation is not None and self.augmentation.changes:
            images = torch.stack(self._randomly(Stream.AUGMENTATION, self.augmentation.change, images, keys))
        if self.augment and self.mixing is not None:
            mixed = zip(images, self.mixing.sources(self.seed, keys), strict=True)
            images = torch.stack(self._randomly(Stream.MIXING, self.mixing.mix, mixed, keys))
        return images, targets

    def plain(self) -> Self:
        """The source's own images (not fresh ones), cropped centrally."""
        plain = copy.copy(self)
        plain.augment = plain.flip = plain.fresh = False
        plain.transform = None
        plain.repeats = 1
        return plain

    def _cut(self, images: torch.Tensor, windows: NDArray[np.int64]) -> torch.Tensor:
        """A window of each image: [b, c, crop, crop]. Windows are as of :func:`random_windows`."""
        # numpy's views cost a fraction of torch's, and each image takes several.
        whole = images.numpy()
        out = np.empty((*images.shape[:2], self.crop, self.crop), whole.dtype)
        for cropped, image, (top, left, flips) in zip(out, whole, windows.T.tolist(), strict=True):
            window = image[:, top : top + self.crop, left : left + self.crop]
            cropped[:] = window[:, :: -1 if flips & 2 else 1, :: -1 if flips & 1 else 1]
        return torch.from_numpy(out)

    def _resized(self, keys: list[Key]) -> Batch:
        indices = [index for _, index in keys]
        if self.fresh or self.cache is None:
            fresh = self.fresh
            items = cast(DrawnImages, self.source).fresh_items(self._drawn(keys)) if fresh else self._items(indices)
            if self.transform is not None:
                items = self._transformed(items, keys)
            if self.crops_at_random:
                assert self.augmentation is not None
                whole = [image for image, _ in items]
                cut = self._randomly(Stream.RESIZED_CROP, self.augmentation.cut, whole, keys)
                items = [(image, target) for image, (_, target) in zip(cut, items, strict=True)]
            return self._stacked(items)
        wanted = torch.tensor(indices)
        missing = wanted[~self.cache.filled[wanted]]
        if len(missing):
            images, labels = self._stacked(self._items(missing.tolist()))
            self.cache.images[missing] = images
            self.cache.labels[missing] = labels
            self.cache.filled[missing] = True
        return self.cache.images[wanted], self.cache.labels[wanted]

    @property
    def crops_at_random(self) -> bool:
        """Whether the source's images are cropped and resized at random, rather than resized and then cropped."""
        return self.augment and self.augmentation is not None and self.augmentation.crops

    def _drawn(self, keys: list[Key]) -> list[Key]:
        """(epoch, index) of the images, without the number of the repetition and of times in an order."""
        return [(epoch // self.repeats % _AGAIN, index) for epoch, index in keys]

    def _items(self, indices: list[int]) -> list[tuple[torch.Tensor, Any]]:
        fetch = getattr(self.source, "__getitems__", None)
        return fetch(indices) if fetch else [self.source[index] for index in indices]

    def _transformed(self, items: list[tuple[torch.Tensor, Any]], keys: list[Key]) -> list[tuple[torch.Tensor, Any]]:
        assert self.transform is not None
        transform = self.transform
        found = self._randomly(Stream.TRANSFORM, lambda item: apply_transform(transform, *item), items, keys)
        if len({len(image) for image, _ in found}) > 1:
            raise ConfigError("transform: must give images with the same number of channels, gave gray and RGB ones")
        return found

    def _randomly(
        self, stream: Stream, change: Callable[[Any], Any], items: Iterable[Any], keys: list[Key]
    ) -> list[Any]:
        """``change`` of each item, whose global random numbers are set from the seed, the stream and the item's key."""
        python, numpy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        found = []
        try:
            for item, key in zip(items, keys, strict=True):
                seed = int(random_stream(self.seed, stream, *key).integers(2**63))
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                torch.default_generator.manual_seed(seed)
                found.append(change(item))
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            torch.set_rng_state(state)
        return found

    def _stacked(self, items: list[tuple[torch.Tensor, Any]]) -> Batch:
        images, targets = [image for image, _ in items], [target for _, target in items]
        if others := {getattr(image, "dtype", type(image)) for image in images} - {torch.uint8}:
            raise ConfigError(f"data: an item has an image of {others.pop()}: must be a uint8 tensor [c, h, w]")
        batch = self._together(images, self._at_size)
        classes = len(self.source.classes)
        if np.ndim(targets[0]) == 0:
            unknown = bool(getattr(self.source, "clusters", None))  # until clusters are found
            return batch, check_class_labels(targets, classes, unknown=unknown)
        if np.ndim(targets[0]) == 1:
            return batch, torch.stack([check_labels(labels, classes) for labels in targets])
        masks = [check_mask(image, mask, classes) for image, mask in items]
        return batch, self._together([mask[None] for mask in masks], self._mask_at_size)[:, 0]

    @staticmethod
    def _together(images: list[torch.Tensor], resized: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Resized images in one tensor; images of one size are resized at once."""
        if len({image.shape for image in images}) == 1:
            return resized(torch.stack(images))
        return torch.stack([resized(image) for image in images])

    def _at_size(self, images: torch.Tensor) -> torch.Tensor:
        if self.crops_at_random:
            return images
        return to_square(images, self.resize, self.crop, self.mode, self.interpolation, self.fill)

    def _mask_at_size(self, masks: torch.Tensor) -> torch.Tensor:
        return mask_to_square(masks, self.resize, self.crop, self.mode)


def random_windows(
    keys: Sequence[Key], margin: int, *, seed: int, flip: bool, vertical_flip: bool = False
) -> NDArray[np.int64]:
    """Random crops of images; the crop of an image depends on (seed, epoch, index) alone.

    Args:
        keys: (epoch, index) of each image.
        margin: difference of the sides of image and crop, in pixels.
        seed: seed of the augmentation.
        flip: mirror half of the images.
        vertical_flip: turn half of them upside down.

    Returns:
        Top row, left column, and 1 for a mirrored image plus 2 for one that is upside down: int64 [3, n].
    """
    counters = np.zeros((len(keys), 3), np.int64)
    counters[:, :2] = keys
    down, right, mirror, turn = uniform_streams((seed, Stream.AUGMENT), counters, 4).reshape(-1, 4).T
    places = (np.stack([down, right]) * (margin + 1)).astype(np.int64)
    return np.concatenate([places, [((mirror < 0.5) & flip) + 2 * ((turn < 0.5) & vertical_flip)]])


class EpochLoader(DataLoader[Batch]):
    """A loader of the batches that ``batches`` lists.

    Args:
        prepared: the images.
        batches: which images come when.
        workers: processes that load; 0: this process.
        pin: whether batches lie in page-locked memory, which a GPU copies faster.
    """

    dataset: Prepared

    def __init__(self, prepared: Prepared, batches: EpochBatches, *, workers: int = 0, pin: bool = False) -> None:
        super().__init__(
            prepared,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin,
            collate_fn=_unchanged,
            # A generator of its own: a loader draws a seed for each epoch, and the global one belongs to the model.
            generator=torch.Generator(),
        )
        self.batches = batches

    def __iter__(self) -> Any:
        with held_back():  # workers end with this process, and by it alone
            return super().__iter__()

    @property
    def drawn_on(self) -> str | None:
        """Type of the device that draws the images; None where they are read."""
        return "cpu" if is_drawn(self.dataset.source) else None

    def describe(self) -> str:
        """The number of processes that load, in words."""
        return counted(self.num_workers, "loader")

    def central(self, batch_size: int) -> EpochLoader:
        """A loader of the same kind for the source's own images, in their order and cropped centrally."""
        return make_loader(
            self.dataset.plain(),
            batch_size=batch_size,
            shuffle=False,
            workers=self.num_workers,
            pin=self.pin_memory,
        )


def make_batches(prepared: Prepared, *, batch_size: int, shuffle: bool, ranks: int = 1, **more: Any) -> EpochBatches:
    """Batches of ``prepared``: all images once an epoch. ``more`` are further arguments of :class:`EpochBatches`.

    The last batch is smaller. In training it is left out where it has fewer than two images, because batch
    normalisation needs two, or fewer than there are ranks.
    """
    least = max(2, ranks) if shuffle and len(prepared) >= batch_size else 1
    more |= {"seed": prepared.seed, "shuffle": shuffle, "ranks": ranks, "least": least, "repeats": prepared.repeats}
    mixture = mixture_in(prepared.source)
    if mixture is not None and mixture.portions is not None:
        more["mixture"] = (mixture.lengths, mixture.portions)
    return EpochBatches(len(prepared), batch_size, **more)


def make_loader(prepared: Prepared, *, workers: int, pin: bool, **batches: Any) -> EpochLoader:
    """A loader of the batches of :func:`make_batches`, whose arguments are ``batches``."""
    return EpochLoader(prepared, make_batches(prepared, **batches), workers=workers, pin=pin)


def _unchanged(batch: Any) -> Any:
    return batch
