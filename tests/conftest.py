"""How all tests are run: on every core, each process with one thread, apart from the user's own folders."""

from __future__ import annotations

import functools
import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

# Number of threads of torch and numpy, which read it at import; subprocesses inherit it. Tests keep every core busy: on
# two cores, two processes with two threads each are ten times slower than with one. The number also changes rounding.
os.environ["OMP_NUM_THREADS"] = "1"

# Compiled kernels are kept between runs of the tests, and shared by all their processes. numba reads it at import.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

# A shell starts what it runs in the background with Ctrl-C ignored, which the processes that tests start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch
import typer.main
from hypothesis import settings
from signatures import check_signatures

from formulavision.util import yaml as util_yaml

check_signatures()

# typer reads the signatures of all commands at each call, for 50 milliseconds. The tests make a thousand calls.
typer.main.get_command = functools.cache(typer.main.get_command)


@functools.lru_cache(200)
def pickled_yaml(text: str) -> bytes:
    return pickle.dumps(parse_yaml(text))


# The configs that ship are read many hundred times, for up to 100 milliseconds.
parse_yaml = util_yaml.parse_yaml
util_yaml.parse_yaml = lambda text: pickle.loads(pickled_yaml(text))

# A first call may compile, and other processes may take the time.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

EMULATED = "EMULATED_GPU" in os.environ
if EMULATED:
    import emulated_gpu

    emulated_gpu.start()
elif not torch.cuda.is_available():
    # Kernels for GPUs are interpreted. Triton asks when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

MOST_PROCESSES = 8
"""Each of them holds torch in its memory."""

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the tests in one process for each core, unless the command line says otherwise.

    Tests run in this process with ``-n 0``, ``-p no:xdist``, ``-s`` (which shows prints), ``--pdb``, and where a single
    file or test is named. pytest-xdist takes its options later in this hook.
    """
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or "PYTEST_XDIST_WORKER" in os.environ:
        return
    single = len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file()
    if option.numprocesses is None and not (single or option.usepdb or option.capture == "no"):
        option.numprocesses = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        if option.dist == "no":
            # Each process begins with a run of neighbouring tests, which share fixtures; later it takes over others'.
            option.dist = "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest test first: begun last, it would keep one core busy alone.
    items.sort(key=lambda item: item.path.name != "test_faults.py")
    if EMULATED or not torch.cuda.is_available():
        for item in items:
            emulated = EMULATED and "device" in getattr(item, "fixturenames", ())
            if item.get_closest_marker("gpu") and not emulated:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data and goldens that are kept beside the checkout, not in it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def official(shared_data: Path) -> Path:
    """Categories, weights and images of the published FractalDB."""
    return shared_data / "fractaldb-official"


@pytest.fixture
def cuda_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """``device="cuda"`` draws as on a GPU, but in the CPU's memory: in plain torch that is all the same."""
    for module in ("device", "drawing"):
        monkeypatch.setattr(f"formulavision.recipes.{module}.find_device", lambda name: torch.device("cpu"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found categories are cached for the length of the test run, by each of its processes, apart from the user's."""
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def signal_handlers_stay() -> Iterator[None]:
    """A test leaves no signal handler: SIGTERM would then end the tests by an exception of a command that has ended."""
    numbers = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.fixture
def hangup_ends_processes() -> Iterator[None]:
    """SIGHUP is answered as on a terminal, also where the tests run under nohup, which ignores it for all processes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def unflushed() -> Iterator[None]:
    """Files are not flushed to the disk, which takes milliseconds each time: no test cuts off the machine's power.

    The processes that tests start flush as ever.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(os, "sync", lambda: None, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def slow_bfloat16() -> Iterator[None]:
    """``precision: auto`` is 32-true on all processors, but in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            patch.setattr(torch.cpu, name, lambda: False)
        yield


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels for GPUs are run: on one, or on the CPU in Triton's interpreter or emulated."""
    if EMULATED:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    triton = pytest.importorskip("triton", reason="Triton is not here: it comes with torch on Linux")
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7) and np.__version__ >= "2.4":
        pytest.skip(f"the interpreter of Triton {triton.__version__} is not for numpy {np.__version__}")
    return torch.device("cpu")
