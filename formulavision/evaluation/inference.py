"""A trained model over all images of a dataset, in order and without augmentation."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext

import torch
from rich.console import Console

from formulavision.data.loading import ImageDataset, Prepared, make_loader
from formulavision.evaluation.progress import steps
from formulavision.training.fit import resolve_device, resolve_precision
from formulavision.training.models import to_input
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import ConfigError

__all__ = ["BATCH_SIZE", "choose_device", "over_dataset", "without_augmentation"]

BATCH_SIZE = 256

_LOADERS_ON_CUDA = 16
_ON_DEVICE_BYTES = 1 << 28
"""Results that wait on the device to be moved to the CPU."""


def choose_device(settings: TrainSettings) -> torch.device:
    """The best device of this machine, which need not be the one that the model was trained on; the CPU where the
    settings say so."""
    return resolve_device("auto" if settings.device != "cpu" else "cpu")


def without_augmentation(images: ImageDataset, settings: TrainSettings) -> Prepared:
    """The images at the size that the model sees: resized, and cropped at the centre."""
    return Prepared(images, **settings.resizing(), augment=False, flip=False, seed=settings.seed, cache=None)


def over_dataset(
    step: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]],
    images: ImageDataset,
    settings: TrainSettings,
    *,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    console: Console,
    doing: str,
) -> list[torch.Tensor]:
    """Apply a function to all batches of a dataset, and join what it returns.

    What it returns is moved to the CPU a part at a time, so that the device holds little of it and seldom waits.

    Args:
        step: (inputs float32 [b, 3, crop, crop], labels) -> tensors whose first dimension is that of the batch.
        settings: of the images' size, their normalisation, and the precision.
        workers: processes that load images; 0 loads them here; None: 0, or up to 16 where the device is a GPU.
        doing: what the progress bar says.

    Returns:
        For each of the tensors, all batches of it in the order of the dataset, on the CPU.

    Raises:
        ConfigError: ``batch_size`` or ``workers`` is out of range.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is not allowed: must be at least 1")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers} is not allowed: must be at least 0")
    if workers is None:
        workers = min(_LOADERS_ON_CUDA, os.cpu_count() or 1) if device.type == "cuda" else 0
    prepared = without_augmentation(images, settings)
    loader = make_loader(prepared, batch_size=batch_size, shuffle=False, workers=workers, pin=device.type == "cuda")
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    # What a GPU trained in half precision is evaluated in full precision on a CPU, which has it not.
    precision = "32-true" if (settings.precision, device.type) == ("16-mixed", "cpu") else settings.precision
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolve_precision(precision, device))
    joined: list[torch.Tensor] = []
    batches: list[tuple[torch.Tensor, ...]] = []
    moved = 0

    def move() -> None:
        nonlocal moved
        parts = [torch.cat(each) for each in zip(*batches, strict=True)]
        if not joined:
            with torch.inference_mode(False):  # so that they may be used everywhere
                joined.extend(torch.empty((len(images), *part.shape[1:]), dtype=part.dtype) for part in parts)
        for whole, part in zip(joined, parts, strict=True):
            whole[moved : moved + len(part)] = part
        moved += len(parts[0])
        batches.clear()

    # Its processes are started before any thread is.
    loaded = iter(loader)
    half = torch.autocast(device.type, dtype) if dtype else nullcontext()
    with torch.inference_mode(), half, steps(console, doing, len(loader)) as advance:
        for pixels, labels in loaded:
            inputs = to_input(pixels.to(device, non_blocking=True), mean, std)
            batches.append(step(inputs, labels.to(device, non_blocking=True)))
            if sum(tensor.nbytes for batch in batches for tensor in batch) > _ON_DEVICE_BYTES:
                move()
            advance()
        if batches:
            move()
    return joined
