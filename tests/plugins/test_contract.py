"""The generators that ship keep the contract, and draw the pixels that ``digests/`` has of their versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cases import slow

from formulavision.testing import check_generator

DIGESTS = Path(__file__).parent / "digests"
QUICK: dict[str, dict[str, Any]] = {
    "bezier": {},
    "colored-ifs": {"points": 1000},
    "dead-leaves": {"radius_min": 0.4, "leaves": 50},
    "diamond-square": {},
    "ifs": {"dots": 1000},
    "ifs3d": {},
    "mandelbulb": {"antialiasing": 1, "iterations": 2, "power_min": 8},
    "moire": {},
    "perlin": {},
    "rcdb": {"lines_max": 20, "vertices_max": 30},
    "segrcdb": {"lines_max": 20, "vertices_max": 30},
    "visual-atoms": {},
}
"""Parameters that make drawing faster. A file of digests is written by

    formulavision plugins check NAME --digests tests/plugins/digests/NAME.json --write
"""


ELSEWHERE = QUICK.keys() - {"bezier", "moire"}
"""Generators whose images other tests compare with published ones or with other libraries'."""


@pytest.mark.parametrize("name", [*sorted(QUICK.keys() - ELSEWHERE), *slow(*sorted(ELSEWHERE))])
def test_it_keeps_the_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without Triton's interpreter, which takes minutes: test_on_device.py compares the device's images.
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert check_generator(name, params=QUICK[name], digests=DIGESTS / f"{name}.json", limit_s=1) == []
