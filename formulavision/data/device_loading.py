"""Batches drawn on the device where the model trains: no images in the machine's memory, no loader processes."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from formulavision.data.loading import Batch, EpochBatches, EpochLoader, ImageDataset, Key, Prepared, make_batches
from formulavision.recipes.drawing import DeviceDrawer, Drawer
from formulavision.rendering.triton_support import upload

__all__ = ["DeviceLoader", "DrawnOnDevice", "device_drawer", "make_device_loader"]


def device_drawer(dataset: ImageDataset, device: torch.device) -> DeviceDrawer | None:
    """What draws a dataset's images on a device; None where they are not drawn, or not there.

    Raises:
        PluginError: the generator raised.
    """
    drawer = getattr(dataset, "drawer", None)
    if not isinstance(drawer, Drawer):
        return None
    on_device = DeviceDrawer(drawer, device)
    if not on_device.native:
        return None
    # Now, rather than at the first step: kernels are compiled when they first draw.
    on_device.draw_instances(np.zeros(1, np.int64), np.zeros(1, np.int64))
    on_device.wait()
    return on_device


class DrawnOnDevice(Prepared):
    """A dataset's images at the size that the model sees, drawn and cropped on a device.

    They are those of :class:`Prepared`; where they are resized, a GPU may round a pixel to the next level.

    Args:
        source: images that are drawn: with ``places``.
        drawer: draws them.
        resize, crop, augment, flip, seed, fresh: as of :class:`Prepared`.
    """

    def __init__(self, source: ImageDataset, drawer: DeviceDrawer, **settings: Any) -> None:
        super().__init__(source, cache=None, **settings)
        self.drawer = drawer

    @property
    def device(self) -> torch.device:
        return self.drawer.device

    def _resized(self, keys: list[Key]) -> Batch:
        labels, categories, instances = self.source.places(keys, fresh=self.fresh)  # type: ignore[attr-defined]
        images = self.drawer.draw_instances(categories, instances).permute(0, 3, 1, 2).contiguous()
        return self._at_size(images), upload(labels, self.device)

    def _cut(self, images: torch.Tensor, windows: NDArray[np.int64]) -> torch.Tensor:
        top, left, mirrored = upload(windows, self.device)[:, :, None]
        place = torch.arange(self.crop, device=self.device)
        rows = top + place
        columns = left + torch.where(mirrored > 0, self.crop - 1 - place, place)
        image = torch.arange(len(images), device=self.device)[:, None, None, None]
        channel = torch.arange(images.shape[1], device=self.device)[:, None, None]
        return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


class DeviceLoader(EpochLoader):
    """Batches of an :class:`EpochLoader`, already on the device: uint8 [b, c, crop, crop] and int64 [b].

    On CUDA, batch k + 1 is drawn on a stream of its own while step k runs on the stream that asks for batches. Drawing
    it does not begin before step k - 1 has ended, and step k not before batch k is drawn. When it asks for batch k,
    the host waits for the end of step k - 2. So no more than three batches are referred to, the one of a step that
    has just ended, the running step's and the next one, and no more steps than two lie queued; the memory of a batch
    is used again once the step that saw it has ended.
    """

    dataset: DrawnOnDevice

    def __init__(self, drawn: DrawnOnDevice, batches: EpochBatches) -> None:
        super().__init__(drawn, batches, collate_fn=_as_it_is, generator=torch.Generator())

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


def make_device_loader(
    drawn: DrawnOnDevice, *, batch_size: int, shuffle: bool, rank: int = 0, ranks: int = 1
) -> DeviceLoader:
    """The batches of :func:`make_batches`, drawn on the device."""
    return DeviceLoader(drawn, make_batches(drawn, batch_size=batch_size, shuffle=shuffle, rank=rank, ranks=ranks))


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One of a process for each device: what a stream's tensors lay in is kept for that stream."""
    return torch.cuda.Stream(device)


def _handed_over(batch: Batch, ready: torch.cuda.Event, device: torch.device) -> Batch:
    """A batch that the current stream waits for, and that is not used again before that stream is done with it."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(ready)
    for tensor in batch:
        tensor.record_stream(stream)
    return batch


def _as_it_is(batch: Any) -> Any:
    return batch
