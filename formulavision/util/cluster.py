"""Ray as the engine of ``--on ray``: a cluster that is connected to or started, and a pool of its worker processes.

Ray places tasks on nodes, and repeats those of workers and nodes that are lost. Ray is an extra, and is imported by the
first function that needs it.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from formulavision.util.errors import ClusterError, ConfigError, one_line
from formulavision.util.text import counted

__all__ = ["Cluster", "PerTask", "check_on", "connected"]

_ADDRESS = re.compile(r"ray(://(auto|[^/\s:]+:\d{1,5}))?")
_RETRIES = 10
"""How often a task is begun again after its worker or its node was lost. An error of the task itself is not retried."""
_PROBE_S = 5.0
_STORE_BYTES = 128 * 2**20
"""Shared memory of a local cluster: recipes and categories pass through it, never images."""
_MEMORY = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class PerTask:
    """The part of a node that a task reserves. None: chosen by the work and the cluster.

    Attributes:
        cpus: cores. A stage of a comparison computes with as many threads.
        gpus: GPUs, or the share of one: 0.5.
        memory: bytes.
    """

    cpus: int | None = None
    gpus: float | None = None
    memory: int | None = None

    @classmethod
    def parse(cls, text: str) -> PerTask:
        """What ``cpus=8,gpus=0.5,memory=16GB`` names, or some of these.

        Raises:
            ConfigError: it names something else.
        """
        given: dict[str, Any] = {}
        for item in filter(None, text.split(",")):
            name, _, value = item.partition("=")
            if name in given:
                raise ConfigError(f"per_task: {name} is given twice")
            if name == "cpus" and re.fullmatch(r"[1-9]\d{0,4}", value):
                given[name] = int(value)
            elif name == "gpus" and re.fullmatch(r"\d{1,3}|0?\.\d{1,4}", value):  # Ray takes no 1.5 GPUs
                given[name] = float(value)
            elif name == "memory" and (size := re.fullmatch(r"(?=.*[1-9])(\d{1,9}(?:\.\d+)?)(kB|MB|GB)", value)):
                given[name] = round(float(size[1]) * _MEMORY[size[2]])
            else:
                raise ConfigError(f"per_task: '{item}' is not allowed: must be as in cpus=8,gpus=0.5,memory=16GB")
        return cls(**given)


def check_on(on: str) -> None:
    """Refuse what names no cluster, before any work; and an engine that is not installed.

    Raises:
        ConfigError: it is one of these.
    """
    if _ADDRESS.fullmatch(on) is None:
        raise ConfigError(f"on: '{on}' is not allowed: must be ray, ray://auto or ray://HOST:PORT")
    _ray()


@contextmanager
def connected(on: str, cpus: int) -> Iterator[Cluster]:
    """Connect to a cluster while the block runs. A connection that is there already (``ray.init``) is used and kept.

    Args:
        on: ``ray://HOST:PORT``: the cluster whose Ray Client listens there. ``ray://auto``: the cluster that this
            machine is a node of. ``ray``: the one that ``RAY_ADDRESS`` names; without it, one is started on this
            machine, and ended.
        cpus: cores of a cluster that is started.

    Raises:
        ClusterError: no cluster is there, or it has another version of Ray or Python.
    """
    ray = _ray()
    if ray.is_initialized():
        yield Cluster(ray)
        return
    # Ray answers SIGTERM by an exit of its own.
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        _connect(ray, on, cpus)
        if main:
            signal.signal(signal.SIGTERM, handler)
        yield Cluster(ray)
    finally:
        ray.shutdown()
        if main:
            signal.signal(signal.SIGTERM, handler)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("on: needs Ray: pip install 'formulavision[ray]'") from None
    return ray


def _connect(ray: Any, on: str, cpus: int) -> None:
    known = os.environ.get("RAY_ADDRESS", "")
    address = {"ray": known or "local", "ray://auto": known or "auto"}.get(on, on)
    place = re.fullmatch(r"(?:ray://)?([^/\s:]+):(\d+)", address)
    if place is not None:
        # Ray asks for up to a quarter of an hour.
        try:
            socket.create_connection((place[1], int(place[2])), timeout=_PROBE_S).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"on: no Ray cluster answers at {address}: {one_line(error)}{_which_port(on)}") from None
    settings: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if not address.startswith("ray://"):
        settings["logging_level"] = "ERROR"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Ray Client connection timed out")  # the error says it
            ray.init(address, **settings)
    except (RuntimeError, ConnectionError, ValueError) as error:
        told = one_line(error)
        if versions := re.findall(r"(?i)(Ray|Python)(?: version)?:? v?(\d+\.\d+[\w.]*)", told):
            there, here = ", ".join(map(" ".join, versions[:2])), ", ".join(map(" ".join, versions[2:4]))
            if "ersion mismatch" in told:
                raise ClusterError(
                    f"on: the cluster at {address} has {there}, this process {here}: they must be the same"
                ) from None
        if "Traceback" in told:  # of a process of the cluster
            told = re.split(r"\w+Error: ", told)[-1]
            raise ClusterError(f"on: Ray's client at {address} failed: {told}") from None
        token = "; where the cluster asks for a token, set RAY_AUTH_MODE=token" if "://" in address else ""
        raise ClusterError(f"on: cannot connect to Ray at {address}: {told}{_which_port(on)}{token}") from None


def _which_port(on: str) -> str:
    if on in ("ray", "ray://auto"):
        return ": start one with 'ray start --head', or give --on ray, without RAY_ADDRESS, for one on this machine"
    return ": give the port of its Ray Client (10001, where nothing else was said); on one of its nodes, ray://auto"


class Cluster:
    """A Ray cluster that this process is connected to.

    Attributes:
        nodes: number of nodes that compute.
        cpus: cores of all nodes together.
        node_cpus: cores of the smallest node; with GPUs, of the smallest one that has any.
        node_gpus: GPUs of that node.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        have = [node["Resources"] for node in self._alive()]
        if not have:
            raise ClusterError("on: the cluster has no node with a free core: start one with 'ray start'")
        self.nodes, self.cpus = len(have), int(sum(node["CPU"] for node in have))
        smallest = min(have, key=lambda node: (-(node.get("GPU", 0) > 0), node["CPU"]))
        self.node_cpus, self.node_gpus = max(1, int(smallest["CPU"])), int(smallest.get("GPU", 0))

    def __repr__(self) -> str:
        return f"Cluster({self.described})"

    @property
    def described(self) -> str:
        """Nodes, cores and version in words."""
        return f"Ray {self._ray.__version__}: {counted(self.nodes, 'node')}, {counted(self.cpus, 'core')}"

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def check_fits(self, per_task: PerTask) -> None:
        """Refuse tasks that no node has room for: they would wait for ever.

        Raises:
            ConfigError: the tasks are too large.
        """
        keys = {"cpus": "CPU", "gpus": "GPU", "memory": "memory"}
        wanted = {name: getattr(per_task, name) or 0 for name in keys}
        nodes = [node["Resources"] for node in self._alive()]
        for name, key in keys.items():
            most = max(node.get(key, 0) for node in nodes)
            if wanted[name] > most:
                raise ConfigError(f"per_task: {name}={wanted[name]:g}: no node of the cluster has more than {most:g}")
        if not any(all(node.get(key, 0) >= wanted[name] for name, key in keys.items()) for node in nodes):
            together = ",".join(f"{name}={value:g}" for name, value in wanted.items() if value)
            raise ConfigError(f"per_task: {together}: no node of the cluster has all of it")

    def pool(self, per_task: PerTask, start: Callable[..., None], *arguments: Any) -> Executor:
        """A pool of the cluster's worker processes, which call ``start(*arguments)`` before their first work."""
        return _Pool(self._ray, _options(per_task), start, arguments)

    def on_every_node(self, work: Callable[..., str | None], *arguments: Any) -> list[str]:
        """Call ``work(*arguments)`` on every node. Returns what was not None, behind the node's name."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in self._alive():
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {**_options(PerTask()), "num_cpus": 0, "scheduling_strategy": there}
            asked[_Pool(self._ray, options, _nothing, ()).submit(work, *arguments)] = node
        answers = []
        for future, node in asked.items():
            try:
                told = future.result()
            except ClusterError as error:
                if node["NodeID"] not in {alive["NodeID"] for alive in self._alive()}:
                    continue  # it was lost; others do its work
                told = str(error)
            if told is not None:
                answers.append(f"node {node['NodeManagerAddress']}: {told}")
        return answers


def _options(per_task: PerTask) -> dict[str, Any]:
    """Options of a Ray task."""
    given = {"num_cpus": per_task.cpus, "num_gpus": per_task.gpus, "memory": per_task.memory}
    return {"max_retries": _RETRIES} | {name: value for name, value in given.items() if value is not None}


class _Pool(Executor):
    """Ray tasks as an executor. What all tasks need is sent once to each node, and read once by each process."""

    def __init__(self, ray: Any, options: dict[str, Any], start: Callable[..., None], arguments: Any) -> None:
        self._ray = ray
        self._task = ray.remote(_in_worker).options(**options)
        self._common = ray.put((secrets.token_hex(8), start, arguments))
        self._running: dict[Future[Any], Any] = {}

    def submit(self, work: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
        # Within a list Ray hands the reference on, and not what it stands for.
        ref = self._task.remote([self._common], self._common.hex(), partial(work, *args, **keywords))
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._running[future] = ref
        ref.future().add_done_callback(partial(self._ended, future))
        return future

    def _ended(self, future: Future[Any], answer: Future[Any]) -> None:
        self._running.pop(future, None)
        try:
            error, result = answer.result()
        except Exception as lost:
            error, result = ClusterError(_told(lost)), None
        except BaseException as cancelled:  # CancelledError, at shutdown
            error, result = cancelled, None
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures and self._ray.is_initialized():
            for ref in list(self._running.values()):
                self._ray.cancel(ref, force=True)


def _told(error: Exception) -> str:
    """What Ray says when a task could not be run, in one line."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, ModuleNotFoundError):
        return f"{cause}: install formulavision there, in the same version"
    told = one_line(cause)
    kind = type(error).__name__
    if kind in ("WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError", "OutOfMemoryError"):
        told = f"a task lost its worker or its node {_RETRIES + 1} times; if memory ran out, per_task reserves more"
    return f"Ray: {kind}: {told[:400]}"


# In a worker process -------------------------------------------------------------------------------------------------


def _in_worker(common: list[Any], pool: str, work: Callable[[], Any]) -> tuple[BaseException | None, Any]:
    """Do work in a worker process. An error is returned, because Ray wraps what is raised."""
    global _started
    import ray

    # An error of Ray itself is raised here, and told as one of the cluster.
    wanted = ray.get(common[0]) if _started != pool else None
    try:
        if wanted is not None:
            _, start, arguments = wanted
            start(*arguments)
            _started = pool
        return None, work()
    except Exception as error:
        return error, None


def _nothing() -> None:
    pass


_started = ""
"""The pool for which this worker process has started."""
