from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "training"))

from striped_images import Stripes


@pytest.fixture(scope="session")
def stripes() -> Callable[..., Any]:
    return Stripes
