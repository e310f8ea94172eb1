"""Ray as the engine of ``generate`` and ``compare``: its speed beside local workers, and kills.

    python benchmarks/cluster.py speed --images 1000000 --pairs 3 --out docs/results/cluster/speed.json
    python benchmarks/cluster.py kills --out docs/results/cluster/kills.json

``speed`` draws the recipe fractaldb-1k in turn by two local workers and by two of a Ray cluster that runs already.
Speed counts from the first images that are reported to the last ones, and start-up before that. ``kills`` starts a
cluster of three nodes on this machine, and kills workers, nodes and the driver at random moments: 12 while a store is
drawn and 8 during a comparison. Both need ``pip install 'formulavision[ray]'``. Ray's own
niceness of workers, 15, is set to 0: beside other programs it would be what is measured.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from formulavision import Recipe, compare, generate
from formulavision.recipes.categories import find_categories
from formulavision.recipes.recipe import as_recipe
from formulavision.util.machine import cores, processor, versions

NODE_BYTES = 100 * 2**20
"""Object store of a node."""


# Speed ---------------------------------------------------------------------------------------------------------------


class Clock:
    """Notes when images are reported."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.reports: list[tuple[float, int]] = []

    def categories(self, found: int, total: int) -> None:
        pass

    def images(self, done: int, total: int) -> None:
        if done and (not self.reports or done > self.reports[-1][1]):
            self.reports.append((time.perf_counter() - self.begun, done))

    def note(self, line: str) -> None:
        pass

    def figures(self) -> dict[str, float]:
        (first, some), (last, every) = self.reports[0], self.reports[-1]
        return {"first_images_s": round(first, 2), "images_per_s": round((every - some) / (last - first), 1)}


def speed(images: int, pairs: int, folder: Path) -> dict[str, Any]:
    import ray

    recipe = as_recipe("fractaldb-1k", [f"instances={images // 1000}"])
    find_categories(recipe)
    begun = time.perf_counter()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=NODE_BYTES)
    started = time.perf_counter() - begun
    runs: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    digests: dict[str, str] = {}
    for pair in range(pairs):
        for engine in ("local", "ray") if pair % 2 == 0 else ("ray", "local"):
            clock, out = Clock(), folder / engine
            generate(recipe, out, workers=2, progress=clock, on="ray" if engine == "ray" else None)
            runs[engine].append({**clock.figures(), "whole_s": round(time.perf_counter() - clock.begun, 2)})
            digests[engine] = digest(out)
            shutil.rmtree(out)
            print(engine, runs[engine][-1], flush=True)
    ray.shutdown()
    medians = {engine: statistics.median(run["images_per_s"] for run in each) for engine, each in runs.items()}
    return {
        "recipe": recipe.id, "images": len(recipe), "pairs": pairs, "runs": runs, "median_images_per_s": medians,
        "ray_to_local": round(medians["ray"] / medians["local"], 3), "ray_start_s": round(started, 2),
        "same_bytes": digests["ray"] == digests["local"],
    }  # fmt: skip


def digest(root: Path) -> str:
    """Of all files, by name and content; of the marker, which lists files in the order of their writers, by name."""
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = b"" if path.name == ".formulavision" else path.read_bytes()
        total.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


# Kills ---------------------------------------------------------------------------------------------------------------


DRIVER = "from formulavision.__main__ import main; main()"


def task_processes() -> list[int]:
    """Processes that run a task of Ray."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and (place / "cmdline").read_bytes().startswith(b"ray::_in_worker"):
                found.append(int(place.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


class Campaign:
    """Kills at random moments, of one kind after the other."""

    def __init__(self, seed: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": NODE_BYTES, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.others = [self.add() for _ in range(2)]
        self.random = random.Random(seed)
        os.environ["RAY_ADDRESS"] = self.cluster.address

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=NODE_BYTES)

    def run(self, command: list[str], kinds: list[str], most_s: float) -> list[dict[str, Any]]:
        """Run a command again and again until it ends by itself after all kills. Returns them."""
        kills: list[dict[str, Any]] = []
        begun = time.monotonic()
        while True:
            with subprocess.Popen(
                [sys.executable, "-c", DRIVER, *command], stderr=subprocess.PIPE, text=True
            ) as driver:
                while driver.poll() is None and len(kills) < len(kinds):
                    if not task_processes():
                        time.sleep(0.05)
                        continue
                    time.sleep(self.random.uniform(0.2, most_s))
                    if driver.poll() is None and self.kill(kinds[len(kills)], driver):
                        kills.append({"kind": kinds[len(kills)], "at_s": round(time.monotonic() - begun, 1)})
                        print(kills[-1], flush=True)
                told = driver.communicate()[1]
            if driver.returncode == 0:
                return kills
            if driver.returncode != -signal.SIGKILL:
                raise SystemExit(told)

    def kill(self, kind: str, driver: subprocess.Popen[str]) -> bool:
        if kind == "driver":
            driver.kill()
        elif kind == "node":
            self.cluster.remove_node(self.others.pop(0), allow_graceful=False)
            self.others.append(self.add())
        elif processes := task_processes():
            os.kill(self.random.choice(processes), signal.SIGKILL)
        else:
            return False
        return True


COMPARISON = {
    "name": "kills",
    "arms": {
        "scratch": {},
        **{
            name: {"recipe": {"generator": name, "categories": 4, "instances": 100, "canvas": {"size": 32}}}
            for name in ("perlin", "bezier")
        },
    },
    "downstreams": {"digits": {"kind": "digits", "train_per_class": 40}},
    "model": "test_resnet",
    "seeds": [0, 1],
    "pretrain": {"epochs": 8, "batch_size": 32, "resize": 32, "crop": 32, "milestones": [6], "device": "cpu"},
    "finetune": {"epochs": 8, "batch_size": 32, "resize": 32, "crop": 32, "milestones": [6], "device": "cpu"},
    "pictures": False,
}
TIMES = ("seconds", "images_per_second", "hours", "time")


def results(out: Path) -> list[dict[str, str]]:
    """The rows of results.csv without times and places, in the order of their text."""
    with (out / "results.csv").open(newline="") as file:
        rows = [
            {
                name: value
                for name, value in row.items()
                if not any(time in name for time in (*TIMES, "folder", "start"))
            }
            for row in csv.DictReader(file)
        ]
    return sorted(rows, key=str)


def kills(folder: Path, images: int, seed: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    file = folder / "comparison.json"
    file.write_text(json.dumps(COMPARISON))  # which YAML reads
    recipe: Recipe = as_recipe("fractaldb-1k", [f"instances={images // 1000}"])
    find_categories(recipe)
    generate(recipe, folder / "store-local", workers=cores())
    compare(file, out=folder / "table-local", show_progress=False)
    campaign = Campaign(seed)
    numbers = ["fractaldb-1k", "--instances", str(images // 1000)]
    store = ["generate", *numbers, "--out", str(folder / "store-ray"), "--on", "ray"]
    of_store = campaign.run(store, ["worker", "node", "worker", "driver"] * 3, 3.0)
    table = ["compare", str(file), "--out", str(folder / "table-ray"), "--on", "ray", "--per-task", "cpus=1"]
    of_table = campaign.run(table, ["worker", "driver", "worker", "node"] * 2, 6.0)
    campaign.cluster.shutdown()
    return {
        "seed": seed, "images": len(recipe), "generate": of_store, "compare": of_table,
        "kills": len(of_store) + len(of_table),
        "same_bytes": digest(folder / "store-ray") == digest(folder / "store-local"),
        "same_table": results(folder / "table-ray") == results(folder / "table-local"),
        "rows": len(results(folder / "table-ray")),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "kills"])
    parser.add_argument("--images", type=int, default=100_000, help="a multiple of 1,000")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    given = parser.parse_args()
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "speed":
            found = speed(given.images, given.pairs, Path(folder))
        else:
            found = kills(Path(folder), given.images, given.seed)
    machine = {"processor": processor(), "cores": cores(), "versions": versions("ray"), "note": given.note}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**found, **machine}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
