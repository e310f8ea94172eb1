"""Cases of parametrized tests that are slow: they repeat what another case of the test states."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*cases: Any) -> list[Any]:
    """Cases for ``pytest.mark.parametrize``, a tuple for several arguments, that only ``-m slow`` runs."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]
