"""Defaults of settings, by the name of a preset, with the source of each. Importable without torch."""

from __future__ import annotations

from typing import Any

__all__ = ["PRESETS"]

_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

_DEIT: dict[str, Any] = {
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "drop_path": 0.1,
}
"""DeiT (Touvron et al., ICML 2021, table 9), without its random augmentation."""

_AUGMENTED: dict[str, Any] = {
    **_DEIT,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "random_resized_crop": (0.08, 1.0),
    "random_erasing": 0.25,
    "interpolation": "bicubic",
}
"""What the published training programs of the field share."""

_ADAMW: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 0.05}

_ONE_IMAGE_A_CLASS: dict[str, Any] = {
    **_AUGMENTED,
    **_ADAMW,
    **_HALF,
    "steps": 80_000 * 4,
    "batch_size": 256,
    "learning_rate": 1e-3 * 256 / 512,
    "min_learning_rate": 1e-5 * 256 / 512,
    "warmup_steps": 5 * 4,
    "random_erasing": 0.5,
    "vertical_flip": True,
    "fresh": False,
}
"""``pre-train.sh`` of ryoo-nakamura/OFDB and of SUPER-TADORY/1p-frac, whose ``main.py`` multiplies learning rates by
batch size / 512. Four steps are an epoch of 1,000 images. Both scripts set colour jitter, too, which timm leaves out
beside RandAugment."""

PRESETS: dict[str, dict[str, Any]] = {
    "resnet": {},
    "vit": {
        **_DEIT,
        **_ADAMW,
        "epochs": 300,
        "batch_size": 1024,
        "learning_rate": 1e-3,
        "warmup_epochs": 5,
    },
    # masora1030/CVPR2023-FDSL-on-VisualAtom, scripts/pretrain.sh; epochs and batch size for 1,000 categories:
    # masora1030/CVPR2022-Pretrained-ViT-PyTorch, exe_scripts/exe_rcdb_1k.sh and exe_exfractaldb_1k.sh.
    "fdsl-vit": {
        **_AUGMENTED,
        **_ADAMW,
        **_IMAGENET,
        "epochs": 300,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-5,
        "warmup_steps": 5_000,
        "repeated_augmentation": 3,
        "horizontal_flip": False,
    },
    # nakashima-kodai/FractalDB-Pretrained-ViT-PyTorch, configs/ and pretrain.py, which multiplies the learning rate by
    # batch size / 512.
    "fractaldb-vit": {
        **_AUGMENTED,
        **_ADAMW,
        **_HALF,
        "epochs": 300,
        "batch_size": 64,
        "learning_rate": 5e-4 * 64 / 512,
        "min_learning_rate": 1e-5,
        "warmup_epochs": 5,
        "horizontal_flip": False,
    },
    "ofdb": _ONE_IMAGE_A_CLASS,
    "1p-frac": _ONE_IMAGE_A_CLASS,
    # masora1030/CVPR2023-FDSL-on-VisualAtom, scripts/finetune.sh and finetune.py, which multiplies learning rates by
    # batch size / 512; the same in the repositories of OFDB and 1p-frac (configs/data/colorimagefolder.yaml).
    "finetune-sgd": {
        **_AUGMENTED,
        **_IMAGENET,
        "epochs": 1_000,
        "batch_size": 768,
        "learning_rate": 0.01 * 768 / 512,
        "min_learning_rate": 1e-5 * 768 / 512,
        "weight_decay": 1e-4,
        "warmup_epochs": 10,
    },
    # masora1030/CVPR2022-Pretrained-ViT-PyTorch, scripts/finetune.sh (ImageNet-1k).
    "finetune-adamw": {
        **_AUGMENTED,
        **_ADAMW,
        **_IMAGENET,
        "epochs": 300,
        "batch_size": 1024,
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-5,
        "warmup_epochs": 5,
        "repeated_augmentation": 3,
    },
}
"""Settings of a preset that differ from the defaults; docs/training-settings.md says what differs from the sources.
``resnet``: section 4 of the FractalDB paper, which the defaults are. ``vit``: DeiT without its random augmentation,
which none of the field's published programs leaves out."""
