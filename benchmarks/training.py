"""What training costs besides the model: the share of a step, start-up, evaluation, memory.

    python benchmarks/training.py

Step: ResNet-18 at 64 x 64, batches of 64, on fractals drawn on demand (`ifs`, 128 x 128, 25,000 dots, continuous
weights, no image twice), by `pretrain` as a user calls it. Timers stand around the model's forward, the backward and
the optimizer's step; what is left of the steps' wall time is drawing, resizing, cropping, metrics and the rest.
The baseline is a bare loop on one constant batch, in turns with it. The first steps of each do not count.

Settings: the same run in 32 bits, and compiled, in turns with the run as it is. Compiling takes a C++ compiler, and
half a minute before the first step. cpu_steps.py measures each of the things that make steps faster.

Start-up: from the command to the end of the first step, in a process of its own, with its categories in the cache.

Evaluation: `evaluate` on 10,000 images of 32 x 32 in memory, at 64 x 64, against the forward passes alone.

Memory is the highest resident set of the process that trains (`getrusage`).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cpu_steps import make_step

from formulavision import Recipe, evaluate, finetune, pretrain
from formulavision.data.downstream import Downstream, DownstreamSettings
from formulavision.data.downstream.images import LabelledImages
from formulavision.training.fit import resolve_precision
from formulavision.training.models import build_model, to_input
from formulavision.training.module import LightningClassifier
from formulavision.training.recorder import Recorder
from formulavision.training.settings import TrainSettings

WARM_UP = 4
RECIPE = {
    "generator": {"name": "ifs", "dots": 25_000},
    "categories": 16,
    "instances": 100,
    "canvas": {"size": 128, "padding": 2},
}
SETTINGS: dict[str, Any] = {
    "model": "resnet18",
    "batch_size": 64,
    "resize": 73,
    "crop": 64,
    "epochs": 1,
    "device": "cpu",
    "horizontal_flip": True,
}


class Watch:
    """Seconds in the parts of a model's steps."""

    def __init__(self) -> None:
        self.inside = 0.0
        self.steps: list[tuple[float, float]] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.inside += time.perf_counter() - started

        return timed

    def share_outside(self) -> float:
        (first, inside), (last, end) = self.steps[WARM_UP], self.steps[-1]
        return 1 - (end - inside) / (last - first)

    def seconds_a_step(self) -> float:
        ends = [when for when, _ in self.steps[WARM_UP:]]
        return statistics.median(np.diff(ends))


def watched_run(steps: int, folder: Path, *, parts: bool = True, **settings: Any) -> Watch:
    """A pre-training run whose steps, and with ``parts`` its model, backward and optimizer, are timed."""
    watch = Watch()
    recipe = Recipe.from_dict({**RECIPE, "instances": steps * SETTINGS["batch_size"] // RECIPE["categories"]})
    whole = (
        LightningClassifier.__init__,
        LightningClassifier.backward,
        torch.optim.SGD.step,
        Recorder.on_train_batch_end,
    )

    def initialise(self: Any, model: Any, *arguments: Any) -> None:
        whole[0](self, model, *arguments)
        if parts:
            model.forward = watch.around(model.forward)

    def step(self: Any, closure: Any = None) -> Any:
        # Lightning's closure is the forward and backward, which have their own timers.
        loss = closure() if closure is not None else None
        watch.around(whole[2])(self)
        return loss

    def end(self: Any, *arguments: Any) -> None:
        whole[3](self, *arguments)
        watch.steps.append((time.perf_counter(), watch.inside))

    try:
        LightningClassifier.__init__ = initialise  # type: ignore[method-assign, assignment]
        LightningClassifier.backward = watch.around(whole[1])  # type: ignore[method-assign]
        torch.optim.SGD.step = step  # type: ignore[method-assign]
        Recorder.on_train_batch_end = end  # type: ignore[method-assign, assignment]
        pretrain(recipe, out=folder, settings={**SETTINGS, **settings}, show_progress=False)
    finally:
        LightningClassifier.__init__, LightningClassifier.backward = whole[:2]  # type: ignore[method-assign]
        torch.optim.SGD.step, Recorder.on_train_batch_end = whole[2:]  # type: ignore[method-assign]
    return watch


def compare_settings(steps: int, rounds: int, folder: Path) -> dict[str, float]:
    """Seconds a step with each of the settings that make training faster on some machines: medians."""
    settings: dict[str, dict[str, Any]] = {
        "as it is": {},
        "precision: 32-true": {"precision": "32-true"},
        "compile": {"compile": True},
    }
    found: dict[str, list[float]] = {name: [] for name in settings}
    for number in range(rounds):
        for name, setting in settings.items():
            watch = watched_run(steps, folder / f"{name}-{number}", parts=False, **setting)
            found[name].append(watch.seconds_a_step())
    return {name: round(statistics.median(seconds), 4) for name, seconds in found.items()}


def bare_loop(steps: int) -> float:
    """Seconds a step of the same model on one constant batch."""
    settings = TrainSettings.model_validate(SETTINGS)
    is_fast = resolve_precision("auto", torch.device("cpu")) == "bf16-mixed"
    step = make_step(settings, "products channels_last fused" + " bfloat16 attention" * is_fast)
    ends = []
    for _ in range(steps):
        step()
        ends.append(time.perf_counter())
    return statistics.median(np.diff(ends[WARM_UP:]))


def first_step(arguments: list[str]) -> float:
    """Seconds from starting a command to the end of its first training step."""
    code = (
        "import os, sys, time\n"
        "from formulavision.training import recorder\n"
        "def end(self, *a): print('first step', time.time(), flush=True); os._exit(0)\n"
        "recorder.Recorder.on_train_batch_end = end\n"
        "from formulavision.cli import main\n"
        "sys.argv = ['formulavision', *sys.argv[1:]]\n"
        "main()\n"
    )
    started = time.time()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.rsplit("first step", 1)[1]) - started


def time_evaluation(folder: Path, images: int) -> dict[str, float]:
    """Seconds of evaluating a fine-tuned model, and of its forward passes alone."""
    random = np.random.default_rng(1)
    pixels = random.integers(0, 255, (images, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(images) % 10
    names = [str(i) for i in range(10)]

    def side(count: int) -> LabelledImages:
        return LabelledImages(_Pixels(pixels), np.arange(count), labels[:count], names)

    downstream = Downstream("random", DownstreamSettings(kind="digits"), side(64), side(images))
    small = Downstream("random", downstream.settings, side(64), side(64))
    settings = {**SETTINGS, "batch_size": 64}
    run = finetune(None, small, out=folder / "tuned", settings=settings, show_progress=False)
    model = build_model(TrainSettings.model_validate(SETTINGS), 10).eval()
    mean, std = (
        torch.tensor(SETTINGS.get(k, d)).view(1, 3, 1, 1) for k, d in (("mean", [0.2] * 3), ("std", [0.5] * 3))
    )
    batch = torch.randint(0, 255, (256, 3, 64, 64), dtype=torch.uint8)
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, images, 256):
            model(to_input(batch[: min(256, images - start)], mean, std))
    forward = time.perf_counter() - started
    started = time.perf_counter()
    evaluate(run.folder, downstream, show_progress=False)
    return {"evaluate_seconds": time.perf_counter() - started, "forward_seconds": forward}


class _Pixels:
    """Images in memory, uint8 [n, h, w, 3]."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __call__(self, index: int) -> np.ndarray:
        return self.images[index]

    def content(self, indices: np.ndarray) -> bytes:
        return self.images[indices].tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help="of each run; the first four do not count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="to evaluate")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        watched_run(WARM_UP + 2, folder / "warm")  # compiles the kernels, and finds the categories
        bare: list[float] = []
        ours: dict[int, list[Any]] = {workers: [] for workers in (0, 1)}
        for number in range(arguments.rounds):
            bare.append(bare_loop(arguments.steps))
            for workers, found in ours.items():
                found.append(watched_run(arguments.steps, folder / f"{number}-{workers}", workers=workers))
        figures["bare_loop_seconds_a_step"] = round(statistics.median(bare), 4)
        for workers, found in ours.items():
            figures[f"{workers}_workers"] = {
                "seconds_a_step": round(statistics.median(w.seconds_a_step() for w in found), 4),
                "outside_model_backward_and_optimizer": [f"{w.share_outside():.2%}" for w in found],
            }
        figures["settings_seconds_a_step"] = compare_settings(arguments.steps, arguments.rounds, folder)
        recipe = folder / "recipe.yaml"
        recipe.write_text(Recipe.from_dict(RECIPE).to_yaml())
        command = ["pretrain", "--recipe", str(recipe), "--model", "resnet18", "--crop", "64", "--batch-size", "64"]
        starts = [first_step([*command, "--out", str(folder / f"start{n}")]) for n in range(arguments.rounds)]
        figures["first_step_after_seconds"] = [round(seconds, 2) for seconds in starts]
        figures["peak_megabytes_of_training"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
        figures |= {name: round(value, 2) for name, value in time_evaluation(folder, arguments.images).items()}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
