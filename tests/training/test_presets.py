"""The numbers of each preset, beside the published line that they come from; and that its runs resume exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from comparing_runs import comparable, same, stopped_and_resumed

from formulavision.training import TrainSettings, pretrain
from formulavision.training.settings import PRESETS

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""timm's IMAGENET_DEFAULT_MEAN and _STD, which its program takes where none are given; configs/data of the others."""
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

RESNET = {
    # Kataoka et al., ACCV 2020, section 4: SGD, momentum 0.9, batch size 256, learning rate 0.01, 90 epochs, divided by
    # 10 after epochs 30 and 60, crops of 224 from 256 pixels.
    "optimizer": "sgd", "momentum": 0.9, "batch_size": 256, "learning_rate": 0.01, "epochs": 90,
    "milestones": (30, 60), "gamma": 0.1, "crop": 224, "resize": 256, "rand_augment": None, "random_erasing": 0.0,
}  # fmt: skip
VIT = {
    # Touvron et al., ICML 2021, table 9: batch size 1024, AdamW, learning rate 0.0005 x batch / 512, cosine, weight
    # decay 0.05, warm-up 5, label smoothing 0.1, stochastic depth 0.1, mixup 0.8, CutMix 1.0; 300 epochs.
    "batch_size": 1024, "optimizer": "adamw", "learning_rate": 0.0005 * 1024 / 512, "schedule": "cosine",
    "weight_decay": 0.05, "warmup_epochs": 5, "label_smoothing": 0.1, "drop_path": 0.1, "mixup": 0.8, "cutmix": 1.0,
    "epochs": 300,
    # Its table also has RandAugment 9/0.5, erasing 0.25 and repeated augmentation: the preset leaves them out.
    "rand_augment": None, "random_erasing": 0.0, "repeated_augmentation": 1, "min_learning_rate": 0.0,
}  # fmt: skip
SHARED = {
    # --mixup 0.8 --cutmix 1.0 --smoothing 0.1 --drop-path 0.1 --aa rand-m9-mstd0.5-inc1 --interpolation bicubic
    # --scale 0.08 1.0 (the program's default), and the same in configs/data and configs/model of the others.
    "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "drop_path": 0.1, "rand_augment": "rand-m9-mstd0.5-inc1",
    "interpolation": "bicubic", "random_resized_crop": (0.08, 1.0), "schedule": "cosine", "color_jitter": 0.0,
}  # fmt: skip
FDSL_VIT = {
    **SHARED,
    # CVPR2023-FDSL-on-VisualAtom, scripts/pretrain.sh: --sched cosine_iter --lr 1.0e-3 --weight-decay 0.05
    # --min-lr 1.0e-5 --warmup-iter 5000 --opt adamw --repeated-aug --reprob 0.25 --hflip 0.0
    "optimizer": "adamw", "learning_rate": 1.0e-3, "weight_decay": 0.05, "min_learning_rate": 1.0e-5,
    "warmup_steps": 5000, "repeated_augmentation": 3, "random_erasing": 0.25, "horizontal_flip": False,
    "vertical_flip": False,
    # CVPR2022-Pretrained-ViT-PyTorch, exe_scripts/exe_rcdb_1k.sh: EPOCHS=300, NGPUS=4, LOCAL_BS=64
    "epochs": 300, "batch_size": 4 * 64, "mean": IMAGENET[0], "std": IMAGENET[1],
}  # fmt: skip
FRACTALDB_VIT = {
    **SHARED,
    # configs/optim/adamw.yaml: lr 5.0e-4, weight_decay 0.05; configs/scheduler/cosine.yaml: min_lr 1.0e-5,
    # warmup_epochs 5; configs/pretrain.yaml: epochs 300; configs/data/fractal1k.yaml: batch_size 64, hflip 0.0,
    # re_prob 0.25, mean and std 0.5; pretrain.py: scaled_lr = lr * batch_size / 512.0
    "optimizer": "adamw", "learning_rate": 5.0e-4 * 64 / 512.0, "weight_decay": 0.05, "min_learning_rate": 1.0e-5,
    "warmup_epochs": 5, "epochs": 300, "batch_size": 64, "horizontal_flip": False, "random_erasing": 0.25,
    "repeated_augmentation": 1, "mean": HALF[0], "std": HALF[1],
}  # fmt: skip
OFDB = {
    **SHARED,
    # pre-train.sh of OFDB and 1p-frac: NGPUS=8, batch_size=32, re_prob=0.5, hflip=0.5, vflip=0.5, scale=[0.08,1.0],
    # learning_rate=0.001, warmup_epochs=5, epochs=80000; 1,000 images. configs/model/vit.yaml: weight_decay 0.05,
    # min_lr 1.0e-5; main.py: scaled_lr = learning_rate * batch_size * world_size / 512.0, min_lr alike.
    "optimizer": "adamw", "batch_size": 8 * 32, "learning_rate": 0.001 * 32 * 8 / 512.0, "weight_decay": 0.05,
    "min_learning_rate": 1.0e-5 * 32 * 8 / 512.0, "steps": 320_000, "epochs": None, "warmup_steps": 20,
    "random_erasing": 0.5, "horizontal_flip": True, "vertical_flip": True, "mean": HALF[0], "std": HALF[1],
    "fresh": False, "repeated_augmentation": 1, "interval": 3_200,
}  # fmt: skip
FINETUNE_SGD = {
    **SHARED,
    # CVPR2023-FDSL-on-VisualAtom, scripts/finetune.sh: NGPUS=8, LOCAL_BS=96, optimizer_name=sgd, learning_rate=0.01,
    # weight_decay=1.0e-4, warmup_epochs=10, epochs=1000; finetune.py scales by batch / 512; colorimagefolder.yaml:
    # hflip 0.5, re_prob 0.25.
    "optimizer": "sgd", "momentum": 0.9, "batch_size": 8 * 96, "learning_rate": 0.01 * 8 * 96 / 512.0,
    "weight_decay": 1.0e-4, "min_learning_rate": 1.0e-5 * 8 * 96 / 512.0, "warmup_epochs": 10, "epochs": 1000,
    "horizontal_flip": True, "random_erasing": 0.25, "mean": IMAGENET[0], "std": IMAGENET[1],
}  # fmt: skip
FINETUNE_ADAMW = {
    **SHARED,
    # CVPR2022-Pretrained-ViT-PyTorch, scripts/finetune.sh: EPOCHS=300, LR=1.0e-3, NGPUS=16, LOCAL_BS=64,
    # --weight-decay 0.05 --opt adamw --warmup-epochs 5 --repeated-aug --reprob 0.25
    "optimizer": "adamw", "batch_size": 16 * 64, "learning_rate": 1.0e-3, "weight_decay": 0.05,
    "min_learning_rate": 1.0e-5, "warmup_epochs": 5, "epochs": 300, "repeated_augmentation": 3,
    "random_erasing": 0.25, "horizontal_flip": True, "mean": IMAGENET[0], "std": IMAGENET[1],
}  # fmt: skip

SOURCES = {
    "resnet": RESNET, "vit": VIT, "fdsl-vit": FDSL_VIT, "fractaldb-vit": FRACTALDB_VIT, "ofdb": OFDB, "1p-frac": OFDB,
    "finetune-sgd": FINETUNE_SGD, "finetune-adamw": FINETUNE_ADAMW,
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_the_numbers_of_a_preset_are_those_of_its_source(name: str) -> None:
    settings = TrainSettings(preset=name)
    for key, value in SOURCES[name].items():
        assert getattr(settings, key) == (pytest.approx(value) if isinstance(value, float) else value), key
    assert PRESETS[name].keys() <= SOURCES[name].keys()


def test_every_preset_has_a_source_and_a_row_in_the_documents() -> None:
    names = set(get_args(TrainSettings.model_fields["preset"].annotation))
    text = (Path(__file__).parents[2] / "docs" / "training-settings.md").read_text()
    table = text.partition("## Presets\n")[2].partition("\n## ")[0]
    assert names == set(PRESETS) == set(SOURCES)
    assert all(f"| `{name}`" in table for name in names)


def test_given_settings_replace_a_presets() -> None:
    settings = TrainSettings(preset="ofdb", epochs=10, learning_rate=0.1)
    assert (settings.epochs, settings.steps, settings.interval, settings.warmup_steps) == (10, None, None, 20)
    assert settings.learning_rate == 0.1
    assert TrainSettings(preset="fdsl-vit", warmup_epochs=0).warmup_steps == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_run_of_a_preset_resumes_exactly(name: str, stripes: Any, tmp_path: Path) -> None:
    length: dict[str, Any] = {"epochs": 2, "warmup_steps": 1} if PRESETS[name].get("steps") is None else {
        "steps": 6, "interval": 4, "warmup_steps": 1
    }  # fmt: skip
    settings = {
        "preset": name, "model": "test_vit", "batch_size": 16, "resize": 36, "crop": 32, "device": "cpu",
        "checkpoint_minutes": 0, **length,
    }  # fmt: skip
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=settings, show_progress=False)
    for workers, stops in ((2, [2, 2]), (0, [1, 4])):
        out = tmp_path / str(workers)
        run = stopped_and_resumed(stripes(), out, {**settings, "workers": workers}, stops)
        assert same(run.folder, whole.folder)
        assert comparable(run) == comparable(whole)
