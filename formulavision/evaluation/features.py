"""Features of a frozen model: what its last layer before the head says of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from rich.console import Console

from formulavision.data.loading import ImageDataset
from formulavision.evaluation.inference import choose_device, over_dataset
from formulavision.training.progress import say
from formulavision.training.settings import TrainSettings

__all__ = ["Features", "extract_features"]

_WORTH_TELLING = 1 << 30


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
        """Those of some images, by their indices or a mask."""
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
        settings: of the images' size, their normalisation, the precision and the device.
        workers: processes that load images; 0 loads them here; None: 0, or up to 16 where the device is a GPU.

    Raises:
        ConfigError: ``workers`` is out of range.
    """
    device = choose_device(settings)
    model = model.eval().to(device)

    def features(inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return model.forward_head(model.forward_features(inputs), pre_logits=True).float(), labels  # type: ignore[operator]

    doing = f"features of {len(images):,} images"
    size: Any = getattr(model, "head_hidden_size", None) or model.num_features
    needed = len(images) * size * torch.float32.itemsize
    if needed > _WORTH_TELLING:
        say(console, f"{doing}, {size:,} numbers each: {needed / 1e9:.1f} GB of the machine's memory")
    return Features(
        *over_dataset(features, images, settings, device=device, workers=workers, console=console, doing=doing)
    )
