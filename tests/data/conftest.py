from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from striped_images import Stripes


@pytest.fixture(scope="session")
def stripes() -> Callable[..., Any]:
    return Stripes
