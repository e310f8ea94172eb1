"""A model over all images of a dataset, in their order and without augmentation: its predictions, or its features."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from rich.console import Console

from formulavision.data.items import ImageDataset
from formulavision.data.loading import Prepared, make_loader
from formulavision.evaluation.progress import steps
from formulavision.recipes.device import device_name
from formulavision.training.fit import resolve_device, resolve_precision
from formulavision.training.models import to_input
from formulavision.training.progress import say_and_log
from formulavision.training.settings import Precision, TrainSettings
from formulavision.util.errors import ConfigError
from formulavision.util.machine import cores, versions
from formulavision.util.text import byte_size

__all__ = [
    "BATCH_SIZE",
    "Features",
    "choose_device",
    "computed_by",
    "each_batch",
    "extract_features",
    "over_dataset",
    "without_augmentation",
]

BATCH_SIZE = 256

_LOADERS_ON_CUDA = 16
_WORTH_TELLING = 1 << 30
"""Bytes of memory that a line tells of."""


def choose_device(settings: TrainSettings) -> torch.device:
    """The best device of this machine, whatever the model was trained on; the CPU where the settings say so."""
    return resolve_device("auto" if settings.device != "cpu" else "cpu")


def computed_by(settings: TrainSettings, device: torch.device) -> dict[str, Any]:
    """The device, precision, threads and versions by which a model is evaluated: what its numbers depend on besides
    the images and the weights."""
    return {
        "device": device_name(device),
        "precision": _precision(settings, device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _precision(settings: TrainSettings, device: torch.device) -> Precision:
    # A CPU has no 16-bit floats: a model that a GPU trained in these is evaluated in 32 bits.
    given = "32-true" if (settings.precision, device.type) == ("16-mixed", "cpu") else settings.precision
    return resolve_precision(given, device)


def without_augmentation(images: ImageDataset, settings: TrainSettings) -> Prepared:
    """The images at the size that the model sees: resized, and cropped at the centre."""
    return Prepared(images, **settings.resizing(), augment=False, flip=False, seed=settings.seed, cache=None)


def each_batch(
    step: Callable[[torch.Tensor], torch.Tensor],
    take: Callable[[torch.Tensor, torch.Tensor], object],
    images: ImageDataset,
    settings: TrainSettings,
    *,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    console: Console,
    doing: str,
) -> None:
    """Apply a function to all batches of a dataset.

    Args:
        step: inputs, float32 [b, 3, crop, crop] -> a tensor [b, ...].
        take: called with each result, float32 [b, ...] on the device, and the batch's targets on the CPU.
        images: the dataset.
        settings: settings of the images' size and normalisation, and of the precision.
        device: the device of the model.
        batch_size: images a step.
        workers: processes that load images; 0: this process; None: 0, or up to 16 where the device is a GPU.
        doing: text of the progress bar.

    Raises:
        ConfigError: ``batch_size`` or ``workers`` is out of range.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is not allowed: must be at least 1")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers: {workers} is not allowed: must be at least 0")
    on_gpu = device.type == "cuda"
    if workers is None:
        workers = min(_LOADERS_ON_CUDA, cores()) if on_gpu else 0
    prepared = without_augmentation(images, settings)
    loader = make_loader(prepared, batch_size=batch_size, shuffle=False, workers=workers, pin=on_gpu)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(_precision(settings, device))
    half = torch.autocast(device.type, dtype) if dtype else nullcontext()
    with torch.no_grad(), half, steps(console, doing, len(loader)) as advance:
        for pixels, targets in loader:
            take(step(to_input(pixels.to(device, non_blocking=True), mean, std)).float(), targets)
            advance()


def over_dataset(
    step: Callable[[torch.Tensor], torch.Tensor], images: ImageDataset, settings: TrainSettings, **how: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a function to all batches of a dataset, and join its results.

    Args:
        step, images, settings, how: as of :func:`each_batch`.

    Returns:
        The results, float32 [n, ...], and the labels, int64 [n] or int8 [n, classes], on the CPU.

    Raises:
        ConfigError: as of :func:`each_batch`.
    """
    whole = torch.empty(0)
    labels: list[torch.Tensor] = []
    done = 0

    def join(result: torch.Tensor, batch_labels: torch.Tensor) -> None:
        nonlocal whole, done
        if not done:  # allocated once: features of a million images leave no memory for a copy
            whole = torch.empty((len(images), *result.shape[1:]))
        whole[done : done + len(result)] = result
        done += len(result)
        labels.append(batch_labels)

    each_batch(step, join, images, settings, **how)
    return whole, torch.cat(labels)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a dataset's images, in its order.

    Attributes:
        values: float32 [n, d].
        labels: int64 [n], or int8 [n, classes] where an image has several (1 present, 0 absent, -1 not counted).
    """

    values: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, images: NDArray[Any]) -> Features:
        """The features of some images, by their indices or a mask."""
        chosen = torch.from_numpy(images)
        return Features(self.values[chosen], self.labels[chosen])


def extract_features(
    model: torch.nn.Module,
    images: ImageDataset,
    settings: TrainSettings,
    *,
    workers: int | None = None,
    console: Console,
) -> Features:
    """The input of a model's classification head, for all images of a dataset, without augmentation.

    Args:
        model: of timm: ``forward_head(forward_features(x), pre_logits=True)`` gives the features.
        images: the dataset.
        settings: settings of the images' size and normalisation, of the precision and the device.
        workers: processes that load images; 0: this process; None: 0, or up to 16 where the device is a GPU.
        console: prints the progress.

    Raises:
        ConfigError: ``workers`` is out of range.
    """
    device = choose_device(settings)
    timm_model: Any = model.eval().to(device)

    def features(inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = timm_model.forward_head(timm_model.forward_features(inputs), pre_logits=True)
        return result

    doing = f"features of {len(images):,} images"
    size = getattr(timm_model, "head_hidden_size", None) or timm_model.num_features
    needed = len(images) * size * torch.float32.itemsize
    if needed > _WORTH_TELLING:
        say_and_log(f"{doing} ({size:,} numbers each) take {byte_size(needed)} of memory", console)
    found = over_dataset(features, images, settings, device=device, workers=workers, console=console, doing=doing)
    return Features(*found)
