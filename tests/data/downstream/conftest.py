from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


def _make_folder(root: Path, *, test: str = "test", classes: tuple[str, ...] = ("cat", "dog"), images: int = 3) -> Path:
    for side, count in (("train", images), (test, 2)):
        for label, name in enumerate(classes):
            (root / side / name).mkdir(parents=True)
            for i in range(count):
                value = 10 * label + i
                Image.new("RGB", (8 + i, 6), (value, value + 1, value + 2)).save(root / side / name / f"{i:04d}.png")
    return root


@pytest.fixture
def make_folder() -> MakeFolder:
    """Writes ``train/`` and ``test/`` with a few images a class, of which each has a size and values of its own."""
    return _make_folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which its files can be downloaded."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def digest() -> Callable[[Path], tuple[str, str]]:
    """A file's name and MD5, in which torchvision keeps what it downloads."""
    return lambda file: (file.name, hashlib.md5(file.read_bytes()).hexdigest())
