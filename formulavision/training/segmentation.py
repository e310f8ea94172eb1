"""Segmentation models: an encoder of timm with a decoder of segmentation-models-pytorch."""

from __future__ import annotations

from typing import Any, get_args

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

from formulavision.training.settings import Decoder
from formulavision.util.errors import ConfigError

__all__ = ["SegmentationModel", "encoder_of"]

_PYRAMIDS = {(4, 8, 16, 32): 2, (2, 4, 8, 16, 32): 1, (1, 2, 4, 8, 16, 32): 0}
"""Strides of an encoder's feature maps that the decoders know, with the number of maps that are missing before them."""
_UNET_CHANNELS = (256, 128, 64, 32, 16)
_DPT_CHANNELS, _DPT_FUSION = (256, 512, 1024, 1024), 256
_DPT_DEPTH = 4


class SegmentationModel(torch.nn.Module):
    """A class for each pixel: images, float32 [b, 3, h, w], to logits, float [b, classes, h, w].

    Decoder and head are those of segmentation-models-pytorch, with its default sizes. The encoder is timm's model
    itself, without a head, so that its tensors have timm's names: ``encoder.<timm's name>``. Parameters of the encoder
    that no decoder uses, such as a last norm before the head, are kept and not trained.

    Args:
        encoder: a timm model without a classification head.
        decoder: ``fpn`` (Kirillov et al., CVPR 2019), ``unet`` (Ronneberger et al., MICCAI 2015), ``upernet`` (Xiao et
            al., ECCV 2018), or, for plain vision transformers, ``dpt`` (Ranftl et al., ICCV 2021).
        num_classes: number of classes.
        crop: side of the images in pixels.

    Raises:
        ConfigError: the decoder does not fit the encoder's feature maps, or the side of the images.
    """

    def __init__(self, encoder: Any, decoder: Decoder, num_classes: int, crop: int) -> None:
        super().__init__()
        name = encoder.pretrained_cfg["architecture"]
        maps = getattr(encoder, "feature_info", None)
        if not maps or not hasattr(encoder, "forward_intermediates"):
            raise ConfigError(f"model: '{name}' gives no feature maps, which every decoder needs: take another model")
        maps = list(maps)
        strides, channels = tuple(each["reduction"] for each in maps), [each["num_chs"] for each in maps]
        self.encoder = encoder
        self._options: dict[str, Any] = {"output_fmt": "NCHW", "intermediates_only": True}
        self._before: int | None = None
        self.decoder: torch.nn.Module
        if decoder == "dpt":
            if len(set(strides)) != 1 or len(maps) < _DPT_DEPTH:
                others = " or ".join(each for each in get_args(Decoder) if each != "dpt")
                raise ConfigError(f"decoder: 'dpt' is for plain vision transformers: '{name}' needs {others}")
            # Blocks at even distances, the last one included, as of smp.DPT.
            indices = [(i + 1) * len(maps) // _DPT_DEPTH - 1 for i in range(_DPT_DEPTH)]
            prefix = bool(getattr(encoder, "num_prefix_tokens", 0))
            self._options["indices"] = indices
            if prefix:
                self._options["return_prefix_tokens"] = True
            self.decoder = DPTDecoder(
                [channels[i] for i in indices], [strides[i] for i in indices], prefix, "cat", _DPT_CHANNELS, _DPT_FUSION
            )
            self.segmentation_head: torch.nn.Module = DPTSegmentationHead(_DPT_FUSION, num_classes)
        else:
            if strides not in _PYRAMIDS:
                if len(set(strides)) == 1:
                    raise ConfigError(f"decoder: '{decoder}' needs feature maps of several sizes: '{name}' needs dpt")
                raise ConfigError(f"decoder: '{decoder}' does not fit '{name}', whose feature maps have the strides "
                                  f"{', '.join(map(str, strides))}: take another model")  # fmt: skip
            if crop % strides[-1]:
                below = crop // strides[-1] * strides[-1]
                near = " or ".join(str(side) for side in (below, below + strides[-1]) if side)
                raise ConfigError(
                    f"crop: {crop} is not a multiple of {strides[-1]}, the stride of '{name}', as '{decoder}' needs "
                    f"it: take {near}"
                )
            self._before = _PYRAMIDS[strides]
            channels = [3, 0][: self._before] + channels
            self.decoder, features, kernel, factor = _pyramid_decoder(decoder, channels)
            self.segmentation_head = SegmentationHead(features, num_classes, kernel_size=kernel, upsampling=factor)
        initialize_decoder(self.decoder)
        initialize_head(self.segmentation_head)
        self._leave_out_unused(crop)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.encoder.forward_intermediates(images, **self._options)
        if self._before is None:
            if isinstance(maps[0], torch.Tensor):
                maps = [(each, None) for each in maps]
            decoded = self.decoder([each for each, _ in maps], [prefix for _, prefix in maps])
        else:
            b, _, h, w = images.shape
            # Decoders count from the image itself; a map of half its size is empty where the encoder has none.
            before = [images, images.new_empty(b, 0, h // 2, w // 2)][: self._before]
            decoded = self.decoder([*before, *maps])
        logits: torch.Tensor = self.segmentation_head(decoded)
        return logits

    def no_weight_decay(self) -> set[str]:
        """Names of the encoder's parameters that AdamW does not decay, as timm reads them of any model."""
        exempt: Any = getattr(self.encoder, "no_weight_decay", set)
        return {f"encoder.{name}" for name in exempt()}

    def _leave_out_unused(self, crop: int) -> None:
        """Parameters of the encoder that get no gradient need none: they keep their values through a run."""
        parameters = list(self.encoder.parameters())
        self.eval()
        with torch.enable_grad():
            logits = self(torch.zeros(1, 3, crop, crop))
        if logits.shape[-2:] != (crop, crop):
            raise ConfigError(f"decoder: gives {list(logits.shape[-2:])} for {crop} pixels: take another decoder")
        used = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, used, strict=True):
            if gradient is None:
                parameter.requires_grad_(False)
        self.train()


def encoder_of(model: torch.nn.Module) -> torch.nn.Module:
    """The encoder of a segmentation model; any other model itself."""
    return model.encoder if isinstance(model, SegmentationModel) else model


def _pyramid_decoder(decoder: Decoder, channels: list[int]) -> tuple[torch.nn.Module, int, int, int]:
    """A decoder for feature maps of strides 1, 2, 4, 8, 16 and 32; its channels, and its head's kernel and factor."""
    if decoder == "fpn":
        fpn = FPNDecoder(channels, dropout=0.2)
        return fpn, fpn.out_channels, 1, 4
    if decoder == "upernet":
        upernet = UPerNetDecoder(channels)
        return upernet, upernet.fusion_block[0].out_channels, 1, 4
    return UnetDecoder(channels, _UNET_CHANNELS), _UNET_CHANNELS[-1], 3, 1
