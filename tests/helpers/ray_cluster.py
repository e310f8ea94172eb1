"""Ray clusters on this machine: two nodes, for the length of a test module; one that ``ray start`` starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
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


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}
"""Variables by which a cluster asks for a token, and by which its users have it."""


@contextmanager
def command_line_cluster(log: Path) -> Iterator[str]:
    """Start a cluster of one node with two cores by ``ray start``, with a token. Yields the address of its Ray Client.

    Args:
        log: file for what it prints.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", **TOKEN}
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0",
        "--include-dashboard=false", f"--ray-client-server-port={port}",
        "--num-cpus=2", f"--object-store-memory={100 * 2**20}",
    ]  # fmt: skip
    with (
        log.open("wb") as printed,
        subprocess.Popen(command, env={**os.environ, **own}, stdout=printed, stderr=printed) as process,
    ):
        try:
            until = time.monotonic() + 300
            while True:
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"ray://127.0.0.1:{port}"
        finally:
            process.terminate()  # which ends all of its processes


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
