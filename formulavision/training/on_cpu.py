"""Faster training steps on a CPU: bfloat16, matrix products in place of convolutions of small maps, and attention.

Measurements: docs/results/training/.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, pad

from formulavision.util.machine import processor

__all__ = ["MatrixConv2d", "attention", "has_fast_bfloat16", "use_matrix_products"]

_SMALL = 4
"""Most pixels of an output map that a matrix product computes faster than a convolution of oneDNN."""
_FEW = 100
"""Most tokens for which plain attention is faster than the fused one; its memory grows with their square."""


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32: by AMX, or by AVX-512 of AMD (not of Intel)."""
    avx512 = torch.cpu._is_avx512_bf16_supported() and "AMD" in processor()
    return torch.cpu._is_amx_tile_supported() or avx512


class MatrixConv2d(torch.nn.Conv2d):
    """A convolution that is a product of matrices where oneDNN's is slow: patches side by side, and maps of few pixels.

    Networks for images of 224 pixels compute maps of 2 x 2 or 1 x 1 pixels of images of 64 or 32 pixels. One group,
    dilation 1, and padding with zeros only.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float [n, c, h, w] -> float [n, channels, h', w'], in channels-last memory format where it is a product."""
        size, stride, padding = self.kernel_size, self.stride, self.padding
        assert not isinstance(padding, str)
        sides = [(images.shape[-2 + i] + 2 * padding[i] - size[i]) // stride[i] + 1 for i in (0, 1)]
        faster = sides[0] * sides[1] <= _SMALL or size == stride != (1, 1)
        if images.dim() != 4 or min(sides) < 1 or not faster:
            return super().forward(images)
        pixels, weight = images.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)
        if sides == [1, 1]:  # weights that meet the padding alone are left out
            height, width = pixels.shape[1:3]
            weight = weight[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
            windows = pixels[:, None, None, : weight.shape[1], : weight.shape[2]]
        else:
            pixels = pad(pixels, (0, 0, padding[1], padding[1], padding[0], padding[0]))
            windows = pixels.unfold(1, size[0], stride[0]).unfold(2, size[1], stride[1]).permute(0, 1, 2, 4, 5, 3)
        return linear(windows.flatten(3), weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def use_matrix_products(model: torch.nn.Module) -> None:
    """Make convolutions of a model :class:`MatrixConv2d`, in place, where they can be. Its tensors stay the same."""
    for module in model.modules():
        plain = type(module) is torch.nn.Conv2d and module.padding_mode == "zeros"
        if plain and module.groups == 1 and module.dilation == (1, 1) and not isinstance(module.padding, str):
            module.__class__ = MatrixConv2d


def attention(model: torch.nn.Module, precision: str) -> AbstractContextManager[None]:
    """The context in which a model is trained: in bfloat16, attention of few tokens is plain, not torch's fused one.

    The backward pass of the fused one takes several times as long in bfloat16 as in float32.
    """
    tokens = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    few = isinstance(tokens, int) and tokens <= _FEW
    return sdpa_kernel(SDPBackend.MATH) if few and precision == "bf16-mixed" else nullcontext()
