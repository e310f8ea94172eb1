"""The filters of a model's first layer as a picture (the paper's figure 6, a to e)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.fitting import preferred
from formulavision.util.errors import CheckpointError

__all__ = ["first_layer_filters"]

_CELL = 56
"""Pixels that a filter is enlarged to at most."""
_GAP = 4
_PAPER = 255


def first_layer_filters(checkpoint: str | Path) -> Image.Image:
    """The filters of a model's first convolution, or of a transformer's patch embedding, side by side.

    Each is brought to 0..255 by the lowest and the highest of its weights, of all three channels together, so that
    its colours stay; one whose weights are all the same is gray. Pixels are enlarged as they are.

    Args:
        checkpoint: whatever :func:`formulavision.load_checkpoint` takes.

    Returns:
        An RGB image: a grid of all filters, as square as it gets, in the order of the layer's outputs.

    Raises:
        CheckpointError: the checkpoint is none, or has no convolution of three channels.
    """
    weights = _first_layer(load_checkpoint(checkpoint), checkpoint)
    filters = weights.double().permute(0, 2, 3, 1).numpy()
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    extent = filters.max(axis=(1, 2, 3), keepdims=True) - low
    shares = np.divide(filters - low, extent, out=np.full_like(filters, 0.5), where=extent > 0)
    pixels = np.round(shares * 255).astype(np.uint8)
    count, height, width, _ = pixels.shape
    scale = max(1, _CELL // max(height, width))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    columns = math.ceil(math.sqrt(count))
    down, across = height * scale + _GAP, width * scale + _GAP
    sheet = np.full((math.ceil(count / columns) * down + _GAP, columns * across + _GAP, 3), _PAPER, np.uint8)
    for i, cell in enumerate(pixels):
        top, left = i // columns * down + _GAP, i % columns * across + _GAP
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return Image.fromarray(sheet)


def _first_layer(weights: Checkpoint, source: str | Path) -> torch.Tensor:
    """The weights of the only convolution that takes three channels, float [filters, 3, h, w]."""
    found = {
        name: tensor
        for name, tensor in weights.state.items()
        if tensor.ndim == 4 and tensor.shape[1] == 3 and "optim" not in name.partition(".")[0]
    }
    if len(found) > 1 and weights.model is not None:
        from timm.models import get_pretrained_cfg_value

        first = f"{get_pretrained_cfg_value(weights.model, 'first_conv')}.weight"
        found = {name: tensor for name, tensor in found.items() if f".{name}".endswith(f".{first}")}
    found = preferred(found)
    if len(found) != 1:
        which = f"several layers ({', '.join(found)})" if found else "no layer"
        raise CheckpointError(f"{source}: has {which} of filters on three channels: which one comes first is not told")
    ((name, filters),) = found.items()
    if not bool(torch.isfinite(filters).all()):
        raise CheckpointError(f"{source}: {name} holds NaN or infinite numbers: give other weights")
    return filters
