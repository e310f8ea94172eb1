"""Predicted masks of several models beside the true ones, on the same test images."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream import DownstreamLike, open_for_run
from formulavision.evaluation.columns import INK, Colour, Column, channels_last, side_by_side
from formulavision.evaluation.evaluating import build_finetuned, check_classes, open_finetuned
from formulavision.evaluation.inference import without_augmentation
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.targets import IGNORED
from formulavision.training.models import to_input
from formulavision.util.errors import ConfigError

__all__ = ["prediction_sheet"]

_IGNORED: Colour = (255, 255, 255)
_BACKGROUND: Colour = (40, 40, 40)


def prediction_sheet(
    checkpoints: Mapping[str, str | PathLike[str]],
    downstream: DownstreamLike,
    *,
    count: int = 6,
    seed: int = 0,
) -> Image.Image:
    """Test images, their masks, and the masks that several fine-tuned models predict, side by side.

    Each class has a colour, which the legend names, as far as the class is seen; ignored pixels are white. The line
    below a prediction is its share of correct pixels, without ignored ones.

    Args:
        checkpoints: name of a column -> folder of a fine-tuning run on images with masks; the first two columns are the
            image and its mask, as the first model sees them.
        downstream: the dataset that the models were fine-tuned on, or how to open it.
        count: number of test images, a row each.
        seed: seed of the choice of images; fewer are the first of more.

    Returns:
        An RGB image.

    Raises:
        CheckpointError: a checkpoint is no run of this dataset.
        DownstreamError: the dataset cannot be used as it is, has no masks, or a run was trained on a test image.
        ConfigError: there are no checkpoints, or ``count`` is out of range.
    """
    if not checkpoints:
        raise ConfigError("checkpoints: give at least one fine-tuned run")
    if count < 1:
        raise ConfigError(f"count: {count} is not allowed: must be at least 1")
    opened: Any = downstream
    found = {name: open_finetuned(checkpoint) for name, checkpoint in checkpoints.items()}
    for _, run in found.values():
        opened = open_for_run(opened, run)
        check_classes(run, opened)
    if opened.target != "semantic":
        raise ConfigError(f"downstream: {opened.name} has no masks: grad_cam_sheet() is for classes")
    chosen = random_stream(seed, Stream.SHOWN).permutation(len(opened.test))[:count].tolist()
    columns: list[Column] = []
    colours = _colours(opened.classes)
    seen: set[int] = set()

    def painted(title: str, masks: torch.Tensor, captions: list[str]) -> Column:
        seen.update(np.unique(masks.numpy()).tolist())
        return Column(title, colours[masks.numpy()], [(text, INK) for text in captions], smooth=False)

    for name, (weights, run) in found.items():
        model, settings = build_finetuned(weights, run)
        images, masks = without_augmentation(opened.test, settings).__getitems__([(0, index) for index in chosen])
        if not columns:
            columns.append(Column("image", channels_last(images)))
            columns.append(painted("truth", masks, []))
        predicted = _predict(model, images, settings)
        counted = masks != IGNORED
        shares = ((predicted == masks) & counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
        columns.append(painted(name, predicted, [f"{share:.0%} of pixels" for share in shares.tolist()]))
    names = dict(enumerate(opened.classes)) | {IGNORED: "ignored"}
    return side_by_side(columns, {names[label]: tuple(colours[label].tolist()) for label in sorted(seen)})


def _predict(model: torch.nn.Module, images: torch.Tensor, settings: Any) -> torch.Tensor:
    """The class of each pixel, uint8 [n, crop, crop], of images uint8 [n, c, crop, crop]."""
    device = next(model.parameters()).device
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    with torch.no_grad():
        logits = model(to_input(images.to(device), mean, std))
    return logits.argmax(1).to(torch.uint8).cpu()


def _colours(classes: list[str]) -> NDArray[np.uint8]:
    """A colour for each value of a mask: uint8 [256, 3]."""
    few = len(classes) <= 20
    palette = matplotlib.colormaps["tab20" if few else "gist_ncar"].resampled(20 if few else len(classes))
    colours = np.full((256, 3), _IGNORED, np.uint8)
    # Neighbours in tab20 are light and dark of one hue: the dark ones first.
    order = [*range(0, 20, 2), *range(1, 20, 2)] if few else list(range(len(classes)))
    for label, name in enumerate(classes):
        colours[label] = _BACKGROUND if name == "background" else np.rint(np.array(palette(order[label])[:3]) * 255)
    return colours
