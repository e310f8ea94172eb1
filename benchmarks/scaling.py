"""Simulates ``generate --on ray``: 21,000 categories x 1,000 images on 100 nodes of 16 cores, with measured rates.

    python benchmarks/scaling.py --out docs/results/cluster/scaling.json
    python benchmarks/scaling.py --measured docs/results/cluster/scaling.json --nodes 10 --nodes 1000

The rates are measured here, on one core each: drawing and storing, the search for categories, the start of a worker
process and its imports, the compilation of kernels, Ray's tasks a second, the bytes that each node receives. Then tasks
are handed out one by one, as fast as one driver did it here, to workers that each start, compile, and draw. The network
(10 Gbit/s) and the store's file system (no limit) are assumptions, and so is that 16 cores are 16 times as fast as one.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from formulavision import bench, generate
from formulavision.generators.contract import Category
from formulavision.recipes.categories import category_name
from formulavision.recipes.recipe import as_recipe
from formulavision.storage.generation import plan_pieces
from formulavision.storage.manifest import layout_of
from formulavision.util.machine import cores, processor, versions

CATEGORIES, INSTANCES = 21_000, 1_000
CORES = 16
BANDWIDTH = 1.25e9
"""Bytes a second of a node's network."""
SETTINGS = [f"categories.count={CATEGORIES}", f"instances={INSTANCES}"]
SEARCHES = {"published": [], "independent": ["generator.search=independent"]}
IMPORTS = "import formulavision.storage.generation"
DRAWING = (
    "import formulavision as fv; from formulavision.recipes.categories import find_categories; "
    "one = find_categories({'generator': 'ifs', 'categories': 1})[0]; "
    "fv.Drawer('fractaldb-1k', categories=[one] * 1000).draw(0)"
)


def measure() -> dict[str, float]:
    found: dict[str, float] = {}
    for name, settings in SEARCHES.items():
        recipe = as_recipe("fractaldb-1k", [*SETTINGS, *settings])
        cost = bench(recipe, seconds=2)
        assert cost.categories_per_second is not None
        found[f"{name}_categories_per_s"] = cost.categories_per_second
    found |= measure_drawing() | {"image_bytes": cost.image_bytes}
    table = np.random.default_rng(0).random((5, 7))
    categories = [Category(i, category_name(i), table.copy()) for i in range(CATEGORIES)]
    found["common_bytes"] = len(pickle.dumps((recipe.portable(), categories, layout_of(recipe, categories))))
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    found["imports_s"] = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        empty = {**os.environ, "NUMBA_CACHE_DIR": folder, "FORMULAVISION_CACHE": folder}
        times = []
        for _ in range(2):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", DRAWING], check=True, env=empty)
            times.append(time.perf_counter() - begun)
    found["compile_s"] = times[0] - times[1]
    return found | measure_ray()


def measure_drawing() -> dict[str, float]:
    """Milliseconds that an image of a store takes, in shards of full size, on one core."""
    times = []
    for count in (4, 4, 8):  # the first compiles, and two shards less one are one without the start
        recipe = as_recipe("fractaldb-1k", [f"categories.count={count}"])
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            generate(recipe, Path(folder) / "store")
            times.append(time.perf_counter() - begun)
    return {"store_ms": (times[2] - times[1]) / 4}


def measure_ray() -> dict[str, float]:
    import ray

    begun = time.perf_counter()
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    started = time.perf_counter() - begun
    nothing = ray.remote(lambda common, number: None).options(max_retries=10)
    common = ray.put("recipe")
    begun = time.perf_counter()
    ray.get(nothing.remote([common], 0))
    first = time.perf_counter() - begun
    count = 2000
    begun = time.perf_counter()
    ray.get([nothing.remote([common], number) for number in range(count)])
    rate = count / (time.perf_counter() - begun)
    ray.shutdown()
    return {"ray_start_s": started, "worker_start_s": first, "tasks_per_s": rate}


def simulate(rates: dict[str, float], nodes: int, search: str, seed: int = 0) -> dict[str, float]:
    """Seconds of each phase. A task waits for the driver, which hands out one after the other, and for a free core."""
    generator, workers = random.Random(seed), nodes * CORES

    def run(tasks: list[float], ready_s: float) -> float:
        """Seconds until all tasks are done; each worker first takes ``ready_s``."""
        free = [ready_s] * workers
        end = 0.0
        for number, seconds in enumerate(tasks):
            begun = max(heapq.heappop(free), number / rates["tasks_per_s"])
            heapq.heappush(free, begun + seconds)
            end = max(end, begun + seconds)
        return end

    checked = rates["worker_start_s"] + rates["imports_s"] + nodes / rates["tasks_per_s"]
    rate = rates[f"{search}_categories_per_s"]
    if search == "published":
        searched = CATEGORIES / rate  # each trial goes on where the last one ended: the driver alone
        ready, compiled = rates["worker_start_s"] + rates["imports_s"], rates["compile_s"]
    else:
        chunks = [16 / rate * generator.lognormvariate(0, 0.25) for _ in range(CATEGORIES // 16)]
        searched = run(chunks, rates["worker_start_s"] + rates["imports_s"] + rates["compile_s"])
        ready = compiled = 0.0  # the search has had them
    pieces = [piece.count for piece in plan_pieces(as_recipe("fractaldb-1k", SETTINGS), "parquet")]
    sent = nodes * rates["common_bytes"] / BANDWIDTH  # from the driver's node, one after the other
    seconds = [count * rates["store_ms"] / 1000 * generator.lognormvariate(0, 0.1) for count in pieces]
    with_start = run(seconds, ready + compiled + sent)
    drawn = sum(seconds) / workers
    before = ready + compiled + sent
    return {
        "pieces": len(pieces),
        "connect_and_check": checked,
        "search": searched,
        "worker_start": ready,
        "compile": compiled,
        "send_recipe": sent,
        "draw": drawn,
        "hand_out_and_last_wave": with_start - before - drawn,
        "in_all": checked + searched + with_start,
        "handing_out_alone": len(pieces) / rates["tasks_per_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, help="JSON of an earlier run; measures nothing")
    parser.add_argument("--nodes", type=int, action="append", help="default: 10, 100 and 1,000")
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--out", type=Path, help="JSON")
    given = parser.parse_args()
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    rates = measure() if given.measured is None else json.loads(given.measured.read_text())["measured"]
    print(json.dumps(rates, indent=1))
    found: list[dict[str, Any]] = []
    for search in SEARCHES:
        for nodes in given.nodes or (10, 100, 1000):
            seconds = simulate(rates, nodes, search)
            found.append({"search": search, "nodes": nodes} | {name: round(each, 2) for name, each in seconds.items()})
            print(found[-1], flush=True)
    if given.out is not None:
        machine = {"processor": processor(), "cores": cores(), "versions": versions("ray"), "note": given.note}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"measured": rates, "simulated": found, **machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
