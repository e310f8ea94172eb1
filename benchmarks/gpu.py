"""What drawing on a GPU gives, and what it costs a training that draws where it trains: needs a GPU, under 8 minutes
(3 on an H100: docs/results/gpu).

    python benchmarks/gpu.py

Agreement: 100 categories of each generator at full size, on the GPU and on the CPU: the share of lit pixels (in either
image) that are the same, and the largest difference in gray levels.

Drawing: batches of 256 instances of random categories, none drawn twice, into the GPU's memory; images a second over
some seconds, with one wait at the end of each twenty batches. Host is the time that the CPU takes to ask for a batch:
where it is longer than the batch itself, it is the limit.

The card: atomic maxima a second at random places of 32 MiB, and bytes a second that a fill stores, measured here, and
what drawing uses of them. The limit is the kernel that takes most of the time, by torch's profiler.

Training: a model's images a second on one constant batch, and on batches drawn on demand one batch ahead, in turns;
after that on batches drawn by the CPU's loader processes. bfloat16, channels-last, compiled.

What has a goal comes first. What would begin after five minutes is left out, and the table says so; what raises is told
while the rest goes on, and the exit status is 1.

On a machine without a GPU it runs small in Triton's interpreter, where its times say nothing:

    TRITON_INTERPRET=1 python benchmarks/gpu.py --device cpu --size 32 --dots 1000 --batch 4 --categories 4 \
        --seconds 0.01 --models resnet10t --no-compile
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from formulavision import Drawer, FormulaDataset, Recipe
from formulavision.data.device_loading import DrawnOnDevice, device_drawer, make_device_loader
from formulavision.data.loading import Prepared, make_loader
from formulavision.recipes.device import device_name
from formulavision.recipes.drawing import DeviceDrawer
from formulavision.training.models import to_input

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]

GOALS = {"ifs": 25_000.0, "perlin": 200_000.0, "bezier": 100_000.0, "resnet50": 0.95, "vit_tiny_patch16_224": 0.90}
TURNS = 3
ENOUGH_S = 300
"""After which nothing more begins: a model, which takes longest, may take two minutes and a half."""
AHEAD = 20
"""Batches that are asked for before the benchmark waits."""


@dataclass
class Row:
    """A line of the table."""

    work: str
    result: str
    goal: str = ""
    notes: str = ""


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    rows = [Row("device", device_name(device), notes=f"torch {torch.__version__}, triton {triton.__version__}")]
    started = time.perf_counter()
    card = Card.measured(device)
    rows.append(Row("card: atomic maxima", f"{card.atomics / 1e9:.1f} G/s", notes="random places of 32 MiB"))
    rows.append(Row("card: bytes stored", f"{card.bytes / 1e9:,.0f} GB/s", notes="a fill of 1 GiB"))
    models = [Model(name, options) for name in options.models]
    works = _works(options)
    parts: list[tuple[str, Callable[[], list[Row]]]] = [
        *((f"draw {work.title}", partial(work.measure, card, options)) for work in works if work.goal),
        *((model.title, model.in_turns) for model in models),
        *((f"draw {work.title}", partial(work.measure, card, options)) for work in works if not work.goal),
        *((f"{model.title}, drawn by loaders", model.with_loaders) for model in models),
    ]
    failed = False
    for title, part in parts:
        if not any(word in title for word in options.only):
            continue
        if time.perf_counter() - started > ENOUGH_S:
            measured = [Row(title, "left out", notes=f"{ENOUGH_S} s were over")]
        else:
            try:
                measured = part()
            except Exception:
                traceback.print_exc()
                failed = True
                measured = [Row(title, "failed")]
        rows += _told(measured)
    if device.type == "cuda":
        rows.append(Row("highest memory", f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB", notes="of all of it"))
    rows.append(Row("time of this benchmark", f"{time.perf_counter() - started:.0f} s"))
    widths = [max(len(getattr(row, field)) for row in rows) for field in ("work", "result", "goal")]
    for row in rows:
        print(f"{row.work:{widths[0]}}  {row.result:>{widths[1]}}  {row.goal:>{widths[2]}}  {row.notes}".rstrip())
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if failed:
        raise SystemExit(1)


def _told(rows: list[Row]) -> list[Row]:
    """Rows, told as they are measured, in case that the end is not reached, where the table comes."""
    for row in rows:
        print(f"measured: {row.work}: {row.result} {row.notes}", flush=True)
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256, help="width and height of the canvas")
    parser.add_argument("--dots", type=int, default=200_000, help="points of a fractal")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--categories", type=int, default=1000, help="of fractals, of leaves")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement; a model has eleven")
    parser.add_argument("--models", nargs="*", default=["resnet50", "vit_tiny_patch16_224"])
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only", nargs="*", default=[""], help="parts whose titles contain one of these words")
    parser.add_argument("--out", type=Path, help="write the rows as JSON, too")
    return parser.parse_args()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# The card ------------------------------------------------------------------------------------------------------------


@triton.jit
def _scatter(target, steps, MASK: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.uint32)
    for step in range(steps):
        place = place * 1664525 + 1013904223
        tl.atomic_max(target + ((place >> 8) & MASK).to(tl.int32), step, sem="relaxed")


@dataclass
class Card:
    """What the device can do."""

    atomics: float
    bytes: float

    @staticmethod
    def measured(device: torch.device) -> Card:
        words = 1 << 23 if device.type == "cuda" else 1 << 10
        programs, steps = (4096, 100) if device.type == "cuda" else (2, 2)
        target = torch.zeros(words, dtype=torch.int32, device=device)
        filled = torch.empty((1 << 30) if device.type == "cuda" else (1 << 20), dtype=torch.uint8, device=device)
        scatter = _median(lambda: _scatter[(programs,)](target, steps, MASK=words - 1, BLOCK=128), device)
        fill = _median(lambda: filled.fill_(1), device)
        return Card(programs * steps * 128 / scatter, len(filled) / fill)


def _median(work: Callable[[], Any], device: torch.device, runs: int = 9) -> float:
    work()
    seconds = []
    for _ in range(runs):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


# Drawing -------------------------------------------------------------------------------------------------------------


@dataclass
class Work:
    """A recipe to draw.

    Attributes:
        labels: of the categories that are drawn.
        atomics: atomic maxima an image.
    """

    title: str
    recipe: Recipe
    labels: NDArray[np.int64]
    goal: float | None = None
    atomics: float = 0

    def measure(self, card: Card, options: argparse.Namespace) -> list[Row]:
        device = torch.device(options.device)
        searched = self.recipe.all_parts[0].generator.name == "ifs"
        drawer = Drawer(self.recipe, workers=len(os.sched_getaffinity(0)) if searched else 1)
        on_device = DeviceDrawer(drawer, device)
        assert on_device.native, self.title
        random = np.random.default_rng(0)

        def draw() -> None:
            labels = random.choice(self.labels, options.batch)
            on_device.draw_instances(labels, random.integers(2**40, size=options.batch))

        agreement = self._agreement(drawer, on_device)
        host, rates = [], []
        for turn in range(1 + TURNS):  # the first one compiles
            batches, started = 0, time.perf_counter()
            while time.perf_counter() - started < (options.seconds / TURNS if turn else 0) or not batches:
                for _ in range(AHEAD if device.type == "cuda" else 1):
                    asked = time.perf_counter()
                    draw()
                    host.append(time.perf_counter() - asked)
                    batches += 1
                wait(device)
            rates.append(batches * options.batch / (time.perf_counter() - started))
            if not turn:
                host.clear()
        rate = statistics.median(rates[1:])
        pixels = self.recipe.canvas.size**2 * self.recipe.canvas.channels
        used = [f"its images alone store {rate * pixels / card.bytes:.1%} of the bytes"]
        if self.atomics:
            used.insert(
                0, f"{rate * self.atomics / 1e9:.2f} G points/s, {rate * self.atomics / card.atomics:.1%} of the maxima"
            )
        batch_ms, host_ms = 1000 * options.batch / rate, 1000 * statistics.median(host)
        limit = "the host" if host_ms > 0.9 * batch_ms else _slowest_kernel(draw, device)
        return [
            Row(
                f"draw {self.title}",
                f"{rate:,.0f} images/s",
                f"{self.goal:,.0f}" if self.goal else "",
                f"{batch_ms:.2f} ms a batch, host {host_ms:.2f}; {', '.join(used)}; limit: {limit}",
            ),
            Row("  as the CPU draws", *agreement),
        ]

    def _agreement(self, drawer: Drawer, on_device: DeviceDrawer) -> tuple[str, str, str]:
        labels = self.labels[np.linspace(0, len(self.labels) - 1, min(100, len(self.labels))).astype(int)]
        instances = np.arange(len(labels)) % drawer.recipe.num_instances
        one = drawer.draw_instances(labels, instances)
        other = on_device.draw_instances(labels, instances).cpu().numpy()
        lit = (one > 0) | (other > 0)
        share = float((one == other)[lit].mean())
        same = sum(np.array_equal(*pair) for pair in zip(one, other, strict=True))
        largest = int(np.abs(one.astype(int) - other).max())
        goal = "99.5 %" if self.recipe.all_parts[0].generator.name == "ifs" else "1 level"
        return f"{share:.4%}", goal, f"{same} of {len(labels)} images the same, largest difference {largest}"


def _works(options: argparse.Namespace) -> list[Work]:
    def work(
        title: str,
        name: str,
        chosen: Callable[[int], bool] = lambda label: True,
        size: int = options.size,
        **settings: Any,
    ) -> Work:
        generator = {"name": name, **settings}
        canvas = {"size": size, "padding": 3}
        few = ("ifs", "dead-leaves", "ifs3d", "rcdb", "visual-atoms")
        count = {"categories": options.categories} if name in few else {}
        recipe = Recipe.from_dict({"generator": generator, "canvas": canvas, **count})
        goal = GOALS.get(name) if title == name else None
        labels = np.array([label for label in range(recipe.num_categories) if chosen(label)])
        return Work(title, recipe, labels, goal, options.dots if name == "ifs" else 0)

    return [
        work("ifs", "ifs", dots=options.dots),
        work("ifs, bare points", "ifs", dots=options.dots, patch="point"),
        work("ifs, published orbit", "ifs", dots=options.dots, orbit="published"),
        work("perlin", "perlin"),
        work("perlin, 4 octaves", "perlin", octaves=4),
        work("bezier", "bezier", lambda label: label % 12 == 7),  # eight curves
        work("bezier, 1024", "bezier", grid=32),
        work("dead-leaves", "dead-leaves"),
        work("ifs3d", "ifs3d"),
        work("rcdb", "rcdb"),
        work("visual-atoms, 512 pixels", "visual-atoms", size=512),  # a published CUDA renderer: 0.0194 ms an image
    ]


def _slowest_kernel(draw: Callable[[], None], device: torch.device) -> str:
    if device.type != "cuda":
        return "not known"
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(5):
            draw()
        wait(device)
    # What the CPU asked for carries its kernels' times a second time.
    there = torch.autograd.DeviceType.CUDA
    kernels = [event for event in profile.key_averages() if event.device_type == there and not event.is_user_annotation]
    total = sum(event.self_device_time_total for event in kernels)
    shares = sorted(((event.self_device_time_total / total, event.key[:24]) for event in kernels), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in shares[:3])


# Training ------------------------------------------------------------------------------------------------------------


class Model:
    """A model that trains on fractals."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.device = torch.device(options.device)
        self.title = f"train {name}, batches of {options.batch}"
        self.crop = options.size * 7 // 8
        self.shapes = {
            "resize": options.size,
            "crop": self.crop,
            "augment": True,
            "flip": True,
            "seed": 1,
            "fresh": True,
        }
        self.constant = 0.0  # images a second

    @cached_property
    def dataset(self) -> FormulaDataset:
        options = self.options
        data = {"generator": {"name": "ifs", "dots": options.dots}, "categories": options.categories}
        recipe = Recipe.from_dict({**data, "instances": 1000, "canvas": {"size": options.size, "padding": 3}})
        return FormulaDataset(recipe, workers=len(os.sched_getaffinity(0)))

    @cached_property
    def step(self) -> Callable[[torch.Tensor, torch.Tensor], None]:
        return _step(self.name, self.dataset.recipe.num_categories, self.crop, self.options)

    def in_turns(self) -> list[Row]:
        """On a constant batch, and on batches drawn on demand."""
        drawer = device_drawer(self.dataset, self.device)
        assert drawer is not None
        drawn = DrawnOnDevice(self.dataset, drawer, **self.shapes)
        loader = make_device_loader(drawn, batch_size=self.options.batch, shuffle=True)
        constant = next(iter(loader))
        kinds: dict[str, Batches] = {
            "constant": (constant for _ in iter(int, 1)),
            "drawn": (batch for _ in iter(int, 1) for batch in loader),
        }
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(1 + TURNS):  # the first one compiles
            for kind in ("constant", "drawn") if turn % 2 else ("drawn", "constant"):
                rates[kind].append(_rate(self.step, kinds[kind], self.device, self.options))
        rates = {kind: seen[-TURNS:] for kind, seen in rates.items()}
        ratios = [one / other for one, other in zip(rates["drawn"], rates["constant"], strict=True)]
        turns = "its turns: " + ", ".join(f"{ratio:.3f}" for ratio in ratios)
        self.constant = statistics.median(rates["constant"])
        return [
            Row(f"{self.title}, one constant batch", f"{self.constant:,.0f} images/s"),
            Row(f"{self.title}, drawn on demand", f"{statistics.median(rates['drawn']):,.0f} images/s"),
            Row("  over constant", f"{statistics.median(ratios):.3f}", f"{GOALS.get(self.name, '')}", turns),
        ]

    def with_loaders(self) -> list[Row]:
        """On batches that loader processes draw: not while others are timed, and what they drew ahead is not timed."""
        cores = len(os.sched_getaffinity(0))
        workers = min(16, cores) if self.device.type == "cuda" else 0
        prepared, pin = Prepared(self.dataset, cache=None, **self.shapes), self.device.type == "cuda"
        loader = make_loader(prepared, batch_size=self.options.batch, shuffle=True, workers=workers, pin=pin)
        loaded = (
            (images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))
            for _ in iter(int, 1)
            for images, labels in loader
        )
        for _ in range(2 * workers + 1):
            self.step(*next(loaded))
        rate = statistics.median(_rate(self.step, loaded, self.device, self.options) for _ in range(TURNS))
        share = f"{rate / self.constant:.3f} of constant, " if self.constant else ""
        title = f"{self.title}, drawn by {workers} loaders"
        return [Row(title, f"{rate:,.0f} images/s", notes=f"{share}on {cores} cores")]


def _step(
    name: str, classes: int, crop: int, options: argparse.Namespace
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A training step on uint8 images [b, 1, crop, crop] and labels."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    size: dict[str, Any] = {} if name.startswith("resnet") else {"img_size": crop}
    model: Any = timm.create_model(name, num_classes=classes, **size)
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    mean, std = (torch.full((1, 3, 1, 1), value, device=device) for value in (0.2, 0.5))

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        inputs = to_input(images, mean, std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            return torch.nn.functional.cross_entropy(model(inputs), labels)

    if options.compile:
        model.compile()

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss_of(images, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _rate(
    step: Callable[[torch.Tensor, torch.Tensor], None],
    batches: Batches,
    device: torch.device,
    options: argparse.Namespace,
) -> float:
    """Images a second."""
    wait(device)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds or not images:
        for _ in range(5 if device.type == "cuda" else 1):
            batch = next(batches)
            step(*batch)
            images += len(batch[1])
        wait(device)
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
