"""How a model is trained. Importable without torch: the command line makes its options from it."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from formulavision.util.config import Config
from formulavision.util.errors import ConfigError

__all__ = ["FREEZE_CONV", "FREEZE_STAGE", "NEUTRAL", "PREPROCESSING", "PRESETS", "TrainSettings", "check_freeze"]

Channels = tuple[float, float, float]

PREPROCESSING = ("resize", "crop", "resize_mode", "interpolation", "mean", "std")
"""Settings of how images are prepared, which belong to the weights that are trained on them."""

NEUTRAL = {"resize_mode": "squash", "interpolation": "bilinear"}
"""Settings that came later, at the values that train as before them."""


PRESETS: dict[str, dict[str, Any]] = {
    "resnet": {},
    "vit": {
        "epochs": 300,
        "batch_size": 1024,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup_epochs": 5,
        "label_smoothing": 0.1,
        "mixup": 0.8,
        "cutmix": 1.0,
        "drop_path": 0.1,
    },
}
"""What a preset sets besides the defaults. ``resnet``: the paper's section 4, which the defaults are. ``vit``: DeiT
(Touvron et al., ICML 2021, table 9) without its random augmentation. The published code of the field's vision
transformers does augment (RCDB, Visual Atoms, OFDB: RandAugment m9-mstd0.5, random erasing 0.25 or 0.5; OFDB also
colour jitter; Visual Atoms without horizontal flips), so this preset does not reproduce their figures."""


class TrainSettings(Config):
    """Settings of a pre-training or fine-tuning run; the defaults are those of the paper's section 4.

    The published scripts pre-train at ``learning_rate=0.1``.
    """

    preset: Literal["resnet", "vit"] = Field(
        "resnet", description="defaults for what is not set: the paper's for ResNets, or DeiT's for vision transformers"
    )
    model: str = Field("resnet50", min_length=1, description="name of a timm model")
    epochs: int = Field(90, ge=1, le=100_000, description="passes over the training images")
    # Batch normalisation has no statistics of a single image once its feature map is a single pixel.
    batch_size: int = Field(256, ge=2, le=65_536, description="images a step")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with momentum, or AdamW")
    learning_rate: float = Field(0.01, gt=0, le=100, description="highest learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(
        1e-4, ge=0, le=1, description="weight decay; of SGD on all parameters, of AdamW on all but biases and norms"
    )
    schedule: Literal["step", "cosine"] = Field(
        "step", description="step: times gamma after each milestone; cosine: down to 0 at the end"
    )
    milestones: tuple[int, ...] = Field(
        (30, 60), description="epochs after which the learning rate is multiplied by gamma (schedule: step)"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor on the learning rate at each milestone")
    warmup_epochs: float = Field(
        0.0, ge=0, le=1000, description="epochs in which the learning rate rises from 0, step by step"
    )
    clip_grad: float = Field(0.0, ge=0, le=1e6, description="longest gradient, as its norm; 0: whatever it is")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label that is spread over all classes")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of mixup in training; 0: none")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of CutMix in training; 0: none; with mixup: one of both")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth, of the model's last block")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay a step of the moving average of weights that is kept; 0: the last weights",
    )
    crop: int = Field(
        224,
        ge=8,
        le=4096,
        description="side of the crop that the model sees: random in training, central in evaluation",
        json_schema_extra={"unit": "pixels"},
    )
    resize: int = Field(
        # The paper's 256 for a crop of 224.
        default_factory=lambda given: round(given["crop"] * 8 / 7),
        ge=8,
        le=4096,
        description="side that images are resized to; unset: 8/7 of crop",
        json_schema_extra={"unit": "pixels"},
    )
    resize_mode: Literal["squash", "center", "border"] = Field(
        "squash",
        description="resizing of images that are not square (timm's crop_mode); squash: both sides to resize; center: "
        "the shorter side, and the rest is cut off; border: the longer side, and the rest is filled with the mean",
        json_schema_extra={"neutral": NEUTRAL["resize_mode"]},
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear",
        description="interpolation of resizing, always with antialiasing",
        json_schema_extra={"neutral": NEUTRAL["interpolation"]},
    )
    fresh: bool = Field(
        True,
        description="images drawn on demand: every epoch draws images of its own, which no store of the recipe holds; "
        "false: the recipe's, in every epoch the same",
    )
    held_out: int = Field(
        0,
        ge=0,
        le=100_000,
        description="instances of each category, drawn on demand and never trained on, to validate pre-training on",
    )
    horizontal_flip: bool = Field(True, description="mirror every other training image, at random")
    mean: Channels = Field((0.2, 0.2, 0.2), description="subtracted from the channels, which are scaled to 0..1")
    std: Channels = Field((0.5, 0.5, 0.5), description="divides the channels after that")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="Lightning's precision; auto: bf16-mixed on CUDA, 32-true elsewhere"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where the model is trained")
    devices: int = Field(
        1,
        ge=1,
        le=1024,
        description="processes that share each batch, one a GPU (DDP); under torchrun its number counts",
    )
    compile: bool = Field(False, description="compile the model (torch.compile): a slower first step, then faster ones")
    channels_last: bool = Field(False, description="channels-last memory format: faster on GPUs with mixed precision")
    checkpoint_minutes: float = Field(
        10.0,
        ge=0,
        le=100_000,
        description="minutes after which a checkpoint to resume from is written within an epoch; 0: every step",
        json_schema_extra={"unit": "minutes"},
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=256,
        description="processes that load images; unset: up to 16 on CUDA, else 1 to draw new images, none to read",
    )
    draw_on: Literal["auto", "cpu"] = Field(
        "auto",
        description="where images drawn on demand are drawn; auto: on the GPU where the model trains, where the "
        "generator can; cpu: by loader processes",
    )
    seed: int = Field(1, ge=0, lt=2**31, description="seed of the initial weights, the order of images and their crops")

    def resizing(self) -> dict[str, Any]:
        """Arguments of :class:`formulavision.data.loading.Prepared` for the size of images."""
        return {
            "resize": self.resize,
            "crop": self.crop,
            "mode": self.resize_mode,
            "interpolation": self.interpolation,
            "fill": [round(255 * value) for value in self.mean],
        }

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        preset = PRESETS.get(data.get("preset", "resnet")) if isinstance(data, dict) else None
        return {**preset, **data} if preset else data

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}: must be at most resize")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below epochs {self.epochs}")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)} must be rising epochs from 1")
        if any(s <= 0 for s in self.std):
            raise ValueError(f"std {list(self.std)} must be above 0 in every channel")
        return self


FREEZE_CONV = re.compile(r"conv1(?:-([1-5]))?")
FREEZE_STAGE = re.compile(r"stage1(?:-(\d+))?")


def check_freeze(spec: str) -> None:
    """Refuse what no model could freeze, before anything slow is opened.

    Raises:
        ConfigError: ``spec`` is none of the known forms.
    """
    if not (spec == "none" or FREEZE_CONV.fullmatch(spec) or FREEZE_STAGE.fullmatch(spec)):
        raise ConfigError(
            f"freeze: {spec!r} is not allowed: must be none, conv1, conv1-2 to conv1-5 (ResNets), "
            "or stage1, stage1-2 and on"
        )
