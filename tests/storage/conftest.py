"""Fixtures of the tests of stores."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator

import pytest

from formulavision.storage import redrawing


@pytest.fixture
def redrawn_here() -> Iterator[None]:
    """``verify`` draws images again in this process, by the same code: a new process takes a second to start.

    The tests of generators that break their promise, in ``test_verification.py``, start the new process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redrawing, "run_in_new_process", lambda generators, comparison: comparison.run())
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on this machine, with a bucket called ``bucket``."""
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", address)
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield address
    server.stop()


_numbers = itertools.count()


@pytest.fixture
def s3_url(s3_server: str) -> Callable[[], str]:
    """New URLs of folders on the server."""
    return lambda: f"s3://bucket/folder-{next(_numbers)}/store"


@pytest.fixture
def memory_url() -> Callable[[], str]:
    """New URLs of folders in this process's memory."""
    return lambda: f"memory://folder-{next(_numbers)}/store"
