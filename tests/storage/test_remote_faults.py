"""Faults between a store and the machine: repeated until the answer is right, or told in one line, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from crash_points import contents
from faulty_proxy import Proxy, faulty_proxy

from formulavision import Drawer, FormulaVisionError, Recipe, Store, StoredDataset, generate, verify
from formulavision.storage.formats import format as format_module
from formulavision.util.errors import RemoteError
from formulavision.util.folders import MARKER
from formulavision.util.remote import RemoteFolder, folder_of

pytestmark = pytest.mark.slow

RECIPE = Recipe.from_dict(
    {
        "generator": {"name": "perlin", "grid": 2},
        "categories": 3,
        "instances": 6,
        "canvas": {"size": 16, "padding": 2},
    }
)
HANG_S = 2.0
NewUrl = Callable[[], str]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 4)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def proxy(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that all requests of this test go through; they wait a second for an answer."""
    with faulty_proxy(s3_server, hang_s=HANG_S) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1}})
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield proxy
        fsspec.get_filesystem_class("s3").clear_instance_cache()


def every(number: int, fault: str, *, methods: tuple[str, ...] = ("GET", "PUT", "POST", "HEAD")) -> Any:
    """A fault at every ``number``-th request."""
    count = 0

    def choose(method: str, path: str) -> str | None:
        nonlocal count
        count += method in methods
        return fault if method in methods and count % number == 0 else None

    return choose


def always(fault: str, *, methods: tuple[str, ...], part: str = "") -> Any:
    return lambda method, path: fault if method in methods and part in path else None


def same_as_local(url: str, folder: Path) -> bool:
    remote = folder_of(url)
    assert isinstance(remote, RemoteFolder)
    local, found = contents(generate(RECIPE, folder).path), remote.read_all(sorted(remote.sizes()))
    del local[MARKER], found[MARKER]
    return found == local


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize(
    ("fault", "methods"),
    [
        ("500", ("GET", "PUT", "POST")),
        ("503", ("GET", "PUT", "POST")),
        ("hang", ("GET", "PUT")),
        ("truncated", ("GET",)),
        ("lost", ("PUT", "GET")),
    ],
)
def test_faults_that_pass_are_not_seen(
    proxy: Proxy, s3_url: NewUrl, tmp_path: Path, fault: str, methods: tuple[str, ...]
) -> None:
    url = s3_url()
    proxy.fault = every(4, fault, methods=methods)
    generate(RECIPE, url)
    store = Store(url)
    images, _ = Drawer(RECIPE).draw_batch(range(len(store)))
    assert all(np.array_equal(store.read(index), images[index]) for index in range(len(store)))
    assert verify(url, sample=0).problems == []
    assert proxy.faults > 3
    assert same_as_local(url, tmp_path / "local")


@pytest.mark.parametrize(
    ("fault", "part", "told"),
    [
        ("500", "train-00001", "We encountered an internal error"),
        ("503", "000001", "reduce your request rate"),
        ("hang", "train-00001", "[Tt]imeout"),
        ("lost", "train-00001", "s3://"),
        ("expired", "train-00001", "is refused: The provided token has expired.: check your credentials"),
        ("expired", "manifest.json", "is refused: The provided token has expired.: check your credentials"),
        ("denied", ".formulavision", "is refused: Access Denied: check your credentials"),
        ("lost", ".formulavision", "Connection was closed"),
        ("lost", "manifest.json", "Connection was closed"),
    ],
)
def test_a_run_that_fails_goes_on(
    proxy: Proxy, s3_url: NewUrl, tmp_path: Path, fault: str, part: str, told: str
) -> None:
    url = s3_url()
    proxy.fault = always(fault, methods=("PUT",), part=part)
    with pytest.raises(RemoteError, match=told) as caught:
        generate(RECIPE, url)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("what was written so far is kept: run the same command again")
    proxy.fault = lambda method, path: None
    generate(RECIPE, url)
    assert same_as_local(url, tmp_path / "local")


@pytest.mark.parametrize("fault", ["500", "hang", "truncated", "expired"])
def test_a_store_that_cannot_be_read_is_told(proxy: Proxy, s3_url: NewUrl, fault: str) -> None:
    url = s3_url()
    store = generate(RECIPE, url)
    proxy.fault = always(fault, methods=("GET", "HEAD"))
    for work in (lambda: Store(url), lambda: store.read(0), lambda: verify(url, sample=0)):
        with pytest.raises(RemoteError) as caught:
            work()
        assert "\n" not in str(caught.value) and url in str(caught.value)
    proxy.fault = lambda method, path: None
    assert store.read(0).shape == (16, 16, 1)


@pytest.mark.parametrize("settings", [{}, {"job": "1/2"}, {"finish": True}])
def test_a_bucket_that_does_not_exist_is_told(s3_url: NewUrl, settings: dict[str, Any]) -> None:
    del s3_url
    for work in (
        lambda: generate(RECIPE, "s3://missing-bucket/store", **settings),
        lambda: Store("s3://missing-bucket/a"),
    ):
        with pytest.raises(FormulaVisionError, match=r"s3://missing-bucket/.*: The specified bucket does not exist"):
            work()


def test_no_credentials_are_told(s3_url: NewUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = s3_url()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(RemoteError, match="credentials"):
        generate(RECIPE, url)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_each_byte_is_fetched_once(proxy: Proxy, s3_url: NewUrl) -> None:
    url = s3_url()
    generate(RECIPE, url)
    size = Store(url).manifest.bytes
    proxy.sent.clear()
    dataset = StoredDataset(url)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    dataset.__getitems__(order)
    pieces = sum(count for path, count in proxy.sent.items() if ".parquet" in path)
    assert pieces == size
    proxy.sent.clear()
    dataset.__getitems__(order)
    assert proxy.sent == {}


PROGRAM = """
import sys
from formulavision.storage.formats import format as format_module
format_module.SHARD_IMAGES = 4
from formulavision.__main__ import main
sys.argv = ["formulavision", "generate", "slow", "--categories", "4", "--instances", "4", "--size", "16",
            "--workers", "1", "--out", sys.argv[1]]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_ended_process_goes_on(s3_url: NewUrl, tmp_path: Path, number: signal.Signals) -> None:
    from slow_generator import installed

    url = s3_url()
    environment = {**installed(tmp_path), "SLOW": "1"}
    command: list[str] = [sys.executable, "-c", PROGRAM, url]
    outputs: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=environment, **outputs)
    remote = folder_of(url)
    assert isinstance(remote, RemoteFolder)
    for _ in range(600):
        if any(name.endswith(".json") and name.startswith(".incomplete") for name in remote.sizes()):
            break
        time.sleep(0.1)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in output, output
    before = set(remote.sizes())
    assert "manifest.json" not in before
    del environment["SLOW"]
    done = subprocess.run(command, env=environment, **outputs)
    assert done.returncode == 0, done.stdout
    assert len(Store(url)) == 16
