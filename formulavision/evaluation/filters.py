"""The filters of a model's first layer as a picture (the paper's figure 6, a to e)."""

from __future__ import annotations

import math
from os import PathLike

import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.matching import preferred
from formulavision.util.errors import CheckpointError, SmallFiltersError

__all__ = ["first_layer_filters"]

_CELL = 56
"""Pixels that a filter is enlarged to at most."""
_GAP = 4


def first_layer_filters(checkpoint: str | PathLike[str], *, smallest: int = 1) -> Image.Image:
    """The filters of a model's first convolution, or of a transformer's patch embedding, side by side.

    Each filter is scaled from the lowest to the highest of its weights, of all three channels together, to 0..255, so
    that its colours stay; a filter of equal weights is gray. Pixels are enlarged without interpolation.

    Args:
        checkpoint: as of :func:`formulavision.load_checkpoint`.
        smallest: least width and height of the filters in pixels.

    Returns:
        An RGB image: a grid of all filters, as square as possible, in the order of the layer's outputs.

    Raises:
        CheckpointError: the checkpoint is none, or has no convolution of three channels.
        SmallFiltersError: its filters are smaller than ``smallest``.
    """
    filters = _first_layer(load_checkpoint(checkpoint), checkpoint).double()
    height, width = filters.shape[2:]
    if min(height, width) < smallest:
        raise SmallFiltersError(f"filters of {height} x {width} pixels are smaller than {smallest} x {smallest}")
    low = filters.amin((1, 2, 3), keepdim=True)
    extent = filters.amax((1, 2, 3), keepdim=True) - low
    shares = torch.where(extent > 0, (filters - low) / extent, 0.5)
    scale = max(1, _CELL // max(filters.shape[2:]))
    pixels = (shares * 255).round().byte().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    columns = math.ceil(math.sqrt(len(pixels)))
    picture: Image.Image = to_pil_image(make_grid(pixels, nrow=columns, padding=_GAP, pad_value=255))
    return picture


def _first_layer(weights: Checkpoint, source: str | PathLike[str]) -> torch.Tensor:
    """The weights of the only convolution of three channels, or of the model's first one: float [filters, 3, h, w]."""
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
        raise CheckpointError(f"{source}: has {which} of filters on three channels, and must have one")
    ((name, filters),) = found.items()
    if not bool(torch.isfinite(filters).all()):
        raise CheckpointError(f"{source}: {name} holds NaN or infinite numbers: give other weights")
    return filters
