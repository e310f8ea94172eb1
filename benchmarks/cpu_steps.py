"""What makes a training step faster on a CPU, one thing after the other, and what it does to accuracy.

    python benchmarks/cpu_steps.py resnet18 64

Seconds of a step (forward, backward, optimizer) of a model on one constant batch of 64 images, in 32 bits and plain as
before, then with each of the things that training adds on a CPU, and with bfloat16 and channels-last memory alone. All
are in one process and take turns; medians. `--compile` adds torch.compile, and says how long its first step takes.

    python benchmarks/cpu_steps.py resnet18 32 --accuracy PATH --seeds 3

trains on 300 images a class of the folder PATH from scratch, in 32 bits and in bfloat16, with several seeds, and prints
the accuracy on 200 test images a class. The runs take turns; PATH holds train/CLASS/ and test/CLASS/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from formulavision import finetune
from formulavision.training.models import build_model
from formulavision.training.on_cpu import attention, use_matrix_products
from formulavision.training.optimization import make_optimizer
from formulavision.training.settings import TrainSettings

VARIANTS: dict[str, str] = {
    "before": "",
    "bfloat16 and channels-last alone": "bfloat16 channels_last",
    "matrix products": "products",
    "+ channels-last": "products channels_last",
    "+ fused optimizer (32-true)": "products channels_last fused",
    "+ bfloat16": "products channels_last fused bfloat16",
    "+ plain attention (auto)": "products channels_last fused bfloat16 attention",
}
COMPILED = {"auto, compile": f"{VARIANTS['+ plain attention (auto)']} compile"}
"""Names of the variants, and which things each of them has."""


def make_step(settings: TrainSettings, has: str) -> Callable[[], None]:
    """A training step of a new model on a constant batch, with the things that are named."""
    torch.manual_seed(1)
    model = build_model(settings, 16)
    if "products" in has:
        use_matrix_products(model)
    memory = torch.channels_last if "channels_last" in has else torch.contiguous_format
    model.to(memory_format=memory)
    optimizer = make_optimizer(model, settings, fused=True if "fused" in has else None)
    images = torch.rand(settings.batch_size, 3, settings.crop, settings.crop).contiguous(memory_format=memory)
    labels = torch.arange(settings.batch_size) % 16
    if "compile" in has:
        model.compile()

    def step() -> None:
        optimizer.zero_grad()
        kernel = attention(model, "bf16-mixed") if "attention" in has else nullcontext()
        with kernel, torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in has, cache_enabled=False):
            logits = model(images)
        cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return step


def time_steps(settings: TrainSettings, rounds: int, *, compiled: bool) -> dict[str, float]:
    """Median seconds of a step of each variant, in turns, and of the first step of a compiled model."""
    steps = {name: make_step(settings, has) for name, has in {**VARIANTS, **(COMPILED if compiled else {})}.items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            for _ in range(2):
                started = time.perf_counter()
                step()
                found[name].append(time.perf_counter() - started)
            if number == 0:
                first, found[name] = found[name][0], []
    medians = {name: round(statistics.median(seconds), 4) for name, seconds in found.items()}
    return {**medians, **({"first step of the compiled model": round(first, 1)} if compiled else {})}


def train(settings: dict[str, Any], folder: str, seed: int, precision: str) -> float:
    """Accuracy (0..1) on test images of a run on a small part of a folder of images."""
    downstream = {"kind": "folder", "root": folder, "train_per_class": 300, "test_per_class": 200}
    with tempfile.TemporaryDirectory() as out:
        own = {**settings, "seed": seed, "precision": precision}
        run = finetune(None, downstream, out=Path(out) / "run", settings=own, logger=False, show_progress=False)
        return run.final["validation_accuracy"] or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a timm model")
    parser.add_argument("size", type=int, help="side of the images, pixels")
    parser.add_argument("--rounds", type=int, default=5, help="of two steps of each variant")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--accuracy", metavar="PATH", help="folder of images to train on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    settings: dict[str, Any] = {
        "model": arguments.model, "crop": arguments.size, "batch_size": 64, "epochs": arguments.epochs, "device": "cpu",
        "schedule": "cosine", "label_smoothing": 0.1,
        **({"optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 0.05, "warmup_epochs": 1.0}
           if "vit" in arguments.model else {"learning_rate": 0.05, "weight_decay": 5e-4}),
    }  # fmt: skip
    if arguments.accuracy is None:
        parsed = TrainSettings.model_validate(settings)
        print(json.dumps(time_steps(parsed, arguments.rounds, compiled=arguments.compile), indent=1))
        return
    for seed in range(1, arguments.seeds + 1):
        for precision in ("32-true", "bf16-mixed"):
            accuracy = train(settings, arguments.accuracy, seed, precision)
            print(json.dumps({"seed": seed, "precision": precision, "accuracy": round(accuracy, 4)}), flush=True)


if __name__ == "__main__":
    main()
