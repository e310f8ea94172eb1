"""A Ray cluster of two nodes on this machine, for the length of a test module."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start two nodes with two cores each, without credentials for object storage; ``RAY_ADDRESS`` names them. Yields
    the ``ray.cluster_utils.Cluster``."""
    # Processes of a cluster inherit these; tests share the cores with each other, and import generators of helpers.
    own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    before = {name: os.environ.get(name) for name in (*own, "RAY_ADDRESS")}
    credentials = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    os.environ |= own
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node, shutdown_at_exit=False)
    try:
        cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
        os.environ["RAY_ADDRESS"] = cluster.address
        os.environ |= credentials
        yield cluster
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        cluster.shutdown()


def worker_processes() -> list[int]:
    """The processes that run Ray's tasks."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if place.joinpath("cmdline").read_bytes().startswith(b"ray::_in_worker"):
                    found.append(int(place.name))
            except OSError:
                continue  # it has ended
    return found
