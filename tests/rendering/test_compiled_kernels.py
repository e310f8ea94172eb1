"""The kernels for GPUs as a GPU will run them, on machines without one: compiled, and emulated.

The tests of images that are drawn on a device run in a process of their own: Triton reads at its import whether it
shall interpret kernels. All of them, and another architecture, are slow: ``pytest -m slow``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not here: it comes with torch on Linux")

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("architecture", "chosen"),
    [
        pytest.param("90", "not slow", id="90"),
        pytest.param("90", "", id="90 in full", marks=pytest.mark.slow),
        pytest.param("80", "", id="80", marks=pytest.mark.slow),
    ],
)
def test_what_is_compiled_draws_what_the_cpu_draws(architecture: str, chosen: str) -> None:
    tests = [
        str(TESTS / name)
        for name in (
            "plugins/test_on_device.py",
            "rendering/test_random.py",
            "rendering/test_compositing.py",
            "recipes/test_composition.py::test_a_device_draws_the_same_scenes",
        )
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", chosen, *tests]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "PYTEST_ADDOPTS")
    }
    environment["EMULATED_GPU"] = architecture
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=TESTS.parent)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed and int(passed[1]) > (10 if chosen else 40), ended.stdout
