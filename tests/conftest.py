from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

EMULATED = "EMULATED_GPU" in os.environ
if EMULATED:
    import emulated_gpu

    emulated_gpu.start()
elif not torch.cuda.is_available():
    # Kernels for GPUs are interpreted. Triton asks when it is imported.
    os.environ["TRITON_INTERPRET"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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
    """Found categories are cached for the length of the test run, apart from the user's own."""
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


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
