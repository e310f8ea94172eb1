"""Settings of a training run. Importable without torch: the command line makes its options from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, StrictBool, model_validator

from formulavision.recipes.recipe import RecipeSetting
from formulavision.recipes.targets import Target
from formulavision.training.presets import PRESETS
from formulavision.util.config import Config
from formulavision.util.errors import ConfigError

__all__ = [
    "FREEZE_CONV",
    "FREEZE_STAGE",
    "NEUTRAL",
    "PREPROCESSING",
    "PRESETS",
    "REMOTE",
    "Decoder",
    "LoggerName",
    "MixingSettings",
    "Precision",
    "TrainSettings",
    "check_freeze",
    "without_other_unit",
]

Channels = tuple[float, float, float]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Decoder = Literal["fpn", "unet", "upernet", "dpt"]
LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow", "trackio"]
Preset = Literal["resnet", "vit", "fdsl-vit", "fractaldb-vit", "ofdb", "1p-frac", "finetune-sgd", "finetune-adamw"]

PREPROCESSING = ("resize", "crop", "resize_mode", "interpolation", "mean", "std")
"""Preprocessing settings: weights are used with the values that they were trained with."""

REMOTE = ("timm:", "torchvision:")
"""Prefixes of a checkpoint that is the name of a published model, not a path."""

NEUTRAL = {"resize_mode": "squash", "interpolation": "bilinear"}
"""Values of later settings that train as runs did before the settings existed."""

_LENGTHS = (("epochs", "steps"), ("warmup_epochs", "warmup_steps"))
"""Settings that give one length in two units."""


class MixingSettings(Config):
    """PixMix (Hendrycks et al., CVPR 2022) with pictures that a recipe draws; see
    :class:`formulavision.data.pixmix.Mixing`.

    The numbers are those of the published program for CIFAR (``cifar.py`` of andyzoujm/pixmix). Its program for
    ImageNet (``imagenet.py``) has a beta of 4 and a severity of 1.
    """

    recipe: RecipeSetting = Field(
        description="formula of the pictures: a recipe, the path of its YAML file, or the name of a generator"
    )
    rounds: int = Field(default=4, ge=1, le=100, description="largest number of mixing rounds of an image")
    beta: float = Field(
        default=3.0,
        gt=0,
        le=1000,
        description="parameter of the Beta distribution of the coefficients; the larger, the weaker the mixing",
    )
    severity: float = Field(
        default=3.0, gt=0, le=10, description="largest level of the changes of the image itself, on timm's scale of 10"
    )


class TrainSettings(Config):
    """Settings of a pre-training or fine-tuning run; the defaults are those of the paper's section 4.

    The published scripts pre-train at ``learning_rate=0.1``.
    """

    preset: Preset = Field(
        default="resnet",
        description="defaults of the other settings (see the presets): resnet is the paper's; the others are for "
        "vision transformers",
    )
    model: str = Field(default="resnet50", min_length=1, description="name of a timm model")
    target: Target | None = Field(
        default=None,
        description="what the model learns from an image; class: one class; labels: several; semantic: a class for "
        "each pixel; unset: the data's own target",
        json_schema_extra={"neutral": None},
    )
    decoder: Decoder | None = Field(
        default=None,
        description="decoder of segmentation (target: semantic) on the model, which is its encoder; dpt: for plain "
        "vision transformers; unset: fpn",
        json_schema_extra={"neutral": None},
    )
    # In place of an epoch, whose length depends on the number of images. Before epochs, whose default depends on it.
    steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="steps of the optimizer, in place of epochs",
        json_schema_extra={"neutral": None},
    )
    interval: int | None = Field(
        default_factory=lambda given: math.ceil(given["steps"] / 100) if given.get("steps") else None,
        ge=1,
        le=1_000_000_000,
        description="with steps: steps between two validations, each with a checkpoint and a row in metrics.csv; "
        "unset: a hundredth of steps",
        json_schema_extra={"neutral": None},
    )
    epochs: int | None = Field(
        default_factory=lambda given: None if given.get("steps") else 90,
        ge=1,
        le=100_000,
        description="passes over the training images",
    )
    # At least 2: batch normalisation has no statistics of one image whose feature map is one pixel.
    batch_size: int = Field(default=256, ge=2, le=65_536, description="images per step")
    grad_accum_steps: int = Field(
        default=1,
        ge=1,
        le=65_536,
        description="batches whose gradients are added up for one step of the optimizer (gradient accumulation)",
        json_schema_extra={"neutral": 1},
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="SGD with momentum, or AdamW")
    learning_rate: float = Field(default=0.01, gt=0, le=100, description="highest learning rate of the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD")
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="factor on the learning rate from a layer to the one before it (layer-wise decay, in timm's "
        "layers); 1: none",
        json_schema_extra={"neutral": 1.0},
    )
    weight_decay: float = Field(
        default=1e-4, ge=0, le=1, description="weight decay; SGD: of all parameters; AdamW: of all but biases and norms"
    )
    schedule: Literal["step", "cosine"] = Field(
        default="step",
        description="step: times gamma after each milestone; cosine: falls to min_learning_rate at the end of the run",
    )
    milestones: tuple[int, ...] = Field(
        # Thirds of the run, as in the paper, whose run has 90 epochs.
        default_factory=lambda given: (
            tuple(sorted({math.ceil(given["steps"] / 3), math.ceil(given["steps"] * 2 / 3)}))
            if given.get("steps")
            else (30, 60)
        ),
        description="epochs after which the learning rate is multiplied by gamma (schedule: step); with steps: steps, "
        "unset: a third and two thirds of them",
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="factor on the learning rate at each milestone")
    warmup_epochs: float = Field(
        default=0.0, ge=0, le=1000, description="warm-up: epochs in which the learning rate rises linearly from 0"
    )
    warmup_steps: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000,
        description="the same in steps, in place of warmup_epochs",
        json_schema_extra={"neutral": 0},
    )
    min_learning_rate: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="learning rate that the end of the run approaches (schedule: cosine)",
        json_schema_extra={"neutral": 0.0},
    )
    clip_grad: float = Field(
        default=0.0, ge=0, le=1e6, description="maximum L2 norm of the gradient (gradient clipping); 0: no clipping"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of each label that is spread over all classes"
    )
    mixup: float = Field(default=0.0, ge=0, le=10, description="alpha of mixup; 0: no mixup")
    cutmix: float = Field(
        default=0.0, ge=0, le=10, description="alpha of CutMix; 0: no CutMix; with mixup: one of the two for each batch"
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="stochastic-depth rate of the last block; it rises linearly from 0 (timm's drop_path_rate)",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay per step of the exponential moving average of weights; 0: no average",
    )
    crop: int = Field(
        default=224,
        ge=8,
        le=4096,
        description="side of the crop that is the model's input: random in training, central in evaluation",
        json_schema_extra={"unit": "pixels"},
    )
    resize: int = Field(
        # The paper's 256 for a crop of 224.
        default_factory=lambda given: round(given["crop"] * 8 / 7),
        ge=8,
        le=4096,
        description="side to which images are resized before the crop; unset: 8/7 of crop",
        json_schema_extra={"unit": "pixels"},
    )
    resize_mode: Literal["squash", "center", "border"] = Field(
        default="squash",
        description="resizing of images that are not square (timm's crop_mode); squash: both sides to resize; center: "
        "the shorter side, the rest is cut; border: the longer side, the rest is filled with the mean",
        json_schema_extra={"neutral": NEUTRAL["resize_mode"]},
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        default="bilinear",
        description="interpolation of resizing, always with antialiasing",
        json_schema_extra={"neutral": NEUTRAL["interpolation"]},
    )
    fresh: bool = Field(
        default=True,
        description="if true, each epoch renders new instances of each category (images drawn on demand only); if "
        "false, each epoch uses the recipe's instances",
    )
    held_out: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="pre-training: instances per category, or scenes, that are drawn for validation and never trained "
        "on; 0: no validation",
    )
    horizontal_flip: bool = Field(default=True, description="mirror each training image with probability 0.5")
    vertical_flip: bool = Field(
        default=False,
        description="turn each training image upside down with probability 0.5",
        json_schema_extra={"neutral": False},
    )
    random_resized_crop: tuple[float, float] | None = Field(
        default=None,
        description="smallest and largest share of a training image's area that is cut out at random, with an aspect "
        "ratio of 3/4 to 4/3, and resized to crop; unset: random crops of the resized image",
        json_schema_extra={"neutral": None},
    )
    rand_augment: str | None = Field(
        default=None,
        pattern=r"^rand(-(mstd|p)\d+(\.\d+)?|-(mmax|inc|m|n)\d+)+$",
        description="RandAugment of training images in timm's words, such as rand-m9-mstd0.5-inc1; unset: none",
        json_schema_extra={"neutral": None},
    )
    color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="largest relative change of brightness, contrast and saturation of training images; 0: none",
        json_schema_extra={"neutral": 0.0},
    )
    random_erasing: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability with which a rectangle of a training image is filled with noise (timm's mode pixel)",
        json_schema_extra={"neutral": 0.0},
    )
    repeated_augmentation: int = Field(
        default=1,
        ge=1,
        le=100,
        description="times that an image is in an epoch, each time with another augmentation; an epoch has as many "
        "fewer images",
        json_schema_extra={"neutral": 1},
    )
    mixing: MixingSettings | None = Field(
        default=None,
        description="fine-tuning: a recipe whose pictures are mixed into training images (PixMix), by recipe, rounds, "
        "beta, severity; unset: none",
        json_schema_extra={"neutral": None},
    )
    mean: Channels = Field(
        default=(0.2, 0.2, 0.2), description="mean that is subtracted from each channel; channels are scaled to 0..1"
    )
    std: Channels = Field(
        default=(0.5, 0.5, 0.5), description="standard deviation by which each channel is divided after that"
    )
    precision: Literal["auto"] | Precision = Field(
        default="auto",
        description="Lightning's precision; auto: bf16-mixed on CUDA and on CPUs with AMX or of AMD with bfloat16, "
        "32-true elsewhere",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="device of the training; auto: CUDA, else MPS, else the CPU"
    )
    devices: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="processes that share each batch, one per GPU (DDP); torchrun sets its own number",
    )
    compile: bool = Field(
        default=False, description="compile the model (torch.compile): the first step is slower, the others are faster"
    )
    channels_last: StrictBool | None = Field(
        default=None,
        description="channels-last memory format: faster on CPUs, and on GPUs with mixed precision; unset: on CPUs, "
        "for models by name",
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        ge=0,
        le=100_000,
        description="minutes between checkpoints within an epoch; 0: a checkpoint after every step",
        json_schema_extra={"unit": "minutes"},
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="loader processes; unset: up to 16 on CUDA, else 1 to draw new images and 0 to read images",
    )
    draw_on: Literal["auto", "cpu"] = Field(
        default="auto",
        description="device that draws images on demand; auto: the GPU of the training, if the generator can draw "
        "there; cpu: loader processes",
    )
    seed: int = Field(
        default=1, ge=0, lt=2**31, description="seed of the initial weights, the order of images, and their crops"
    )

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Only the settings that differ from their defaults."""
        default = type(self)(crop=self.crop)
        crop = type(self).model_fields["crop"].default
        return ((name, value) for name, value in self if value != (crop if name == "crop" else getattr(default, name)))

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
        if not isinstance(data, dict):
            return data
        name = data.get("preset", "resnet")
        preset = dict(PRESETS.get(name, {})) if isinstance(name, str) else {}
        for one, other in _LENGTHS:
            if data.get(one) and data.get(other):
                raise ValueError(f"{one} and {other} are both given: give one of them")
            for given, unit in ((one, other), (other, one)):
                if data.get(given) is not None:
                    preset.pop(unit, None)
        return {**preset, **data}

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} is larger than resize {self.resize}: must be at most resize")
        if self.steps is None and self.epochs is None:
            raise ValueError("epochs: must be a number where steps is none")
        if self.steps is None and self.interval is not None:
            raise ValueError(f"interval {self.interval} needs steps: a run of epochs validates after each epoch")
        if self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below epochs {self.epochs}")
        if self.steps is not None and self.warmup_epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be 0 with steps: give warmup_steps")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} must be at most learning_rate {self.learning_rate:g}"
            )
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)} must be rising epochs (with steps: steps) from 1")
        if (area := self.random_resized_crop) is not None and not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"random_resized_crop {list(area)} must be two rising shares above 0, at most 1")
        if any(s <= 0 for s in self.std):
            raise ValueError(f"std {list(self.std)} must be above 0 in every channel")
        return self


def without_other_unit(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The settings ``under`` without lengths that the settings ``over`` them give in the other unit.

    Milestones and the interval are counted in the unit of the run's length, so they go with it.
    """
    pairs = [pair for one, other in _LENGTHS for pair in ((one, other), (other, one))]
    gone = {other for given, other in pairs if over.get(given) is not None}
    if gone & {"epochs", "steps"} & under.keys():
        gone |= {"milestones", "interval"}
    return {name: value for name, value in under.items() if name in over or name not in gone}


FREEZE_CONV = re.compile(r"conv1(?:-([1-5]))?")
FREEZE_STAGE = re.compile(r"stage1(?:-(\d+))?")


def check_freeze(spec: Any) -> None:
    """Refuse a ``freeze`` setting that no model has, before weights and data are loaded.

    Raises:
        ConfigError: ``spec`` has none of the known forms.
    """
    known = isinstance(spec, str) and (spec == "none" or FREEZE_CONV.fullmatch(spec) or FREEZE_STAGE.fullmatch(spec))
    if not known:
        raise ConfigError(
            f"freeze: {spec!r} is not allowed: must be none, conv1, conv1-2 to conv1-5 (ResNets), "
            "or stage1, stage1-2 and on"
        )
