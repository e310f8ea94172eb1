from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
    import torch

    monkeypatch.setattr("formulavision.device.find_device", lambda name: torch.device("cpu"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found categories are cached for the length of the test run, apart from the user's own."""
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
