"""Batches drawn on the device where the model trains: no images in the machine's memory, no loader processes."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision.data.datasets import FormulaDataset
from formulavision.data.loading import Batch, DrawnImages, EpochLoader, ImageDataset, Key, Prepared, make_batches
from formulavision.data.mixtures import MixtureImages, is_endless
from formulavision.recipes.drawing import DeviceDrawer, Drawer
from formulavision.recipes.targets import MAX_CATEGORIES_8
from formulavision.rendering.triton_support import upload

__all__ = ["DeviceLoader", "DrawnOnDevice", "MixtureOnDevice", "device_drawer", "draw_on_device", "make_device_loader"]


def draw_on_device(dataset: ImageDataset, device: torch.device, **settings: Any) -> DrawnOnDevice | None:
    """A dataset's images drawn on a device; None where they are not drawn, or some cannot be drawn there.

    Args:
        settings: as of :class:`DrawnOnDevice`.

    Raises:
        PluginError: a generator raised.
    """
    if isinstance(dataset, MixtureImages):
        parts = []
        for part in dataset.parts:
            drawn = draw_on_device(part, device, **settings | {"fresh": settings["fresh"] and is_endless(part)})
            if drawn is None:
                return None
            parts.append(drawn)
        return MixtureOnDevice(dataset, parts, **settings)
    drawer = device_drawer(dataset, device)
    if drawer is None:
        return None
    assert isinstance(dataset, DrawnImages)
    return DrawnOnDevice(dataset, drawer, **settings)


def device_drawer(dataset: ImageDataset, device: torch.device) -> DeviceDrawer | None:
    """The drawer of a dataset's images on a device; None where they are not drawn, or cannot be drawn there.

    Raises:
        PluginError: the generator raised.
    """
    drawer = getattr(dataset, "drawer", None)
    if not isinstance(drawer, Drawer):
        return None
    on_device = DeviceDrawer(drawer, device)
    if not on_device.native:
        return None
    # Kernels are compiled when they first draw: now, rather than at the first step.
    first = np.zeros(1, np.int64)
    if drawer.recipe.is_scene:
        on_device.draw_scenes(first)
    else:
        on_device.draw_instances(first, first)
    on_device.wait()
    return on_device


class DrawnOnDevice(Prepared):
    """A dataset's images at the size that the model sees, drawn and cropped on a device.

    The images are those of :class:`Prepared`; where they are resized, a GPU may round a pixel to the next level.

    Args:
        source: a dataset whose images are drawn.
        drawer: draws the images on the device.
        settings: ``resize``, ``crop``, ``augment``, ``flip``, ``vertical_flip``, ``repeats``, ``seed`` and ``fresh``,
            as of :class:`Prepared`.
    """

    source: DrawnImages

    def __init__(self, source: DrawnImages, drawer: DeviceDrawer, **settings: Any) -> None:
        super().__init__(source, cache=None, **settings)
        self.drawer = drawer

    @property
    def device(self) -> torch.device:
        return self.drawer.device

    def _resized(self, keys: list[Key]) -> Batch:
        if isinstance(self.source, FormulaDataset) and self.source.has_scenes:
            return self._resized_scenes(self.source, keys)
        labels, categories, instances = self.source.find_instances(self._drawn(keys), fresh=self.fresh)
        images = self.drawer.draw_instances(categories, instances).permute(0, 3, 1, 2).contiguous()
        return self._at_size(images), upload(labels, self.device)

    def _resized_scenes(self, source: FormulaDataset, keys: list[Key]) -> Batch:
        keys = self._drawn(keys)
        images, object_maps, drawn = self.drawer.draw_scenes(source.find_scenes(keys, fresh=self.fresh))
        places = [(epoch if self.fresh else -1, index) for epoch, index in keys]
        categories = [source.categories_of(*place, own) for place, own in zip(places, drawn, strict=True)]
        targets = scene_targets(object_maps, categories, source.target, source.num_categories, source.min_visible)
        if targets.ndim == 3:
            targets = self._mask_at_size(targets[:, None])[:, 0]
        return self._at_size(images.permute(0, 3, 1, 2).contiguous()), targets

    def _cut(self, images: torch.Tensor, windows: NDArray[np.int64]) -> torch.Tensor:
        top, left, flips = upload(windows, self.device)[:, :, None]
        place = torch.arange(self.crop, device=self.device)
        rows = top + torch.where((flips & 2) > 0, self.crop - 1 - place, place)
        columns = left + torch.where((flips & 1) > 0, self.crop - 1 - place, place)
        image = torch.arange(len(images), device=self.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=self.device)[:, None, None]
        return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


class MixtureOnDevice(DrawnOnDevice):
    """A mixture's images at the size that the model sees, all drawn on one device.

    Args:
        source: the mixture.
        parts: its parts.
        settings: as of :class:`DrawnOnDevice`; ``fresh`` of a part may be false.
    """

    def __init__(self, source: MixtureImages, parts: Sequence[DrawnOnDevice], **settings: Any) -> None:
        super().__init__(source, parts[0].drawer, **settings)  # type: ignore[arg-type]
        self.mixture = source
        self.parts = parts

    def plain(self) -> Self:
        plain = super().plain()
        plain.parts = [part.plain() for part in self.parts]
        return plain

    def _resized(self, keys: list[Key]) -> Batch:
        divided = list(self.mixture.divided(keys))
        batches = [self.parts[part]._resized(own) for part, _, own in divided]
        places = np.argsort(np.concatenate([places for _, places, _ in divided]))
        order = upload(places, self.device)
        images, targets = (torch.cat(tensors)[order] for tensors in zip(*batches, strict=True))
        return images, targets


def scene_targets(
    object_maps: torch.Tensor,
    categories: Sequence[NDArray[np.int64]],
    target: str,
    num_categories: int,
    min_visible: int,
) -> torch.Tensor:
    """Targets of scenes on the device that drew them, as of :class:`formulavision.data.datasets.RecipeDataset`.

    Args:
        object_maps: int32 [n, size, size].
        categories: of the objects of each scene, int64 [objects] each.
        target: class, labels or semantic.

    Returns:
        int64 [n], int8 [n, num_categories], or uint8 or int32 [n, size, size].
    """
    # The value of each object in the map, 0 for background and for places behind a scene's last object.
    values = np.zeros((len(categories), 1 + max(map(len, categories))), np.int64)
    for row, own in zip(values, categories, strict=True):
        row[1 : 1 + len(own)] = own + 1
    if target == "class":
        return upload(values[:, 1] - 1, object_maps.device)
    of_objects = upload(values, object_maps.device)
    pixels = object_maps.flatten(1).long()
    visible = torch.zeros_like(of_objects).scatter_add_(1, pixels, torch.ones_like(pixels))
    of_objects = torch.where(visible >= max(1, min_visible), of_objects, 0)
    if target == "labels":
        present = torch.zeros((len(values), 1 + num_categories), dtype=torch.int8, device=object_maps.device)
        return present.scatter_(1, of_objects, 1)[:, 1:].contiguous()
    kind = torch.uint8 if num_categories <= MAX_CATEGORIES_8 else torch.int32
    return of_objects.to(kind).gather(1, pixels).view(object_maps.shape)


class DeviceLoader(EpochLoader):
    """Batches of an :class:`EpochLoader` that are drawn on the device.

    On CUDA, batch k + 1 is drawn on a separate stream while step k runs on the stream that asks for batches. Drawing
    batch k + 1 waits for the end of step k - 1, and step k waits for batch k. When batch k is asked for, the host waits
    for the end of step k - 2. So at most three batches are alive (of the step that has just ended, of the running step,
    and the next one), and at most two steps are queued. The memory of a batch is reused after its step has ended.
    """

    dataset: DrawnOnDevice

    @property
    def drawn_on(self) -> str:
        return self.dataset.device.type

    def describe(self) -> str:
        return f"drawn on {self.drawn_on}"

    def central(self, batch_size: int) -> DeviceLoader:
        return make_device_loader(self.dataset.plain(), batch_size=batch_size, shuffle=False)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.dataset.device.type == "cuda":
            return self._ahead()
        return (self.dataset.__getitems__(keys) for keys in self.batches)

    def _ahead(self) -> Iterator[Batch]:
        device = self.dataset.device
        side = _side_stream(device)
        ended: torch.cuda.Event | None = None
        drawn: deque[tuple[Batch, torch.cuda.Event]] = deque()
        for keys in chain(self.batches, (None,)):
            before, ended = ended, torch.cuda.current_stream(device).record_event()
            if before is not None:
                before.synchronize()
            if keys is not None:
                side.wait_event(ended)
                with torch.cuda.stream(side):
                    drawn.append((self.dataset.__getitems__(keys), side.record_event()))
            if len(drawn) > (keys is not None):
                yield _handed_over(*drawn.popleft(), device)


def make_device_loader(drawn: DrawnOnDevice, **batches: Any) -> DeviceLoader:
    """A loader of the batches of :func:`make_batches`, whose arguments are ``batches``; drawn on the device."""
    return DeviceLoader(drawn, make_batches(drawn, **batches))


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for drawing, one for each device: torch keeps freed memory for the stream that used it."""
    return torch.cuda.Stream(device)


def _handed_over(batch: Batch, ready: torch.cuda.Event, device: torch.device) -> Batch:
    """Make the current stream wait for a batch; the batch's memory is reused only after this stream has used it."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(ready)
    for tensor in batch:
        tensor.record_stream(stream)
    return batch
